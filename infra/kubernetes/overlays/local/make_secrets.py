#!/usr/bin/env python3
"""Writes the files that this overlay's secretGenerator reads: random secrets, for the owner's eyes only, git-ignored.

python3 infra/kubernetes/overlays/local/make_secrets.py

Files that are there stay: their passwords are those of the databases that were made with them.
"""

import os
import secrets
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PASSWORDS = ("POSTGRES_PASSWORD", "PREFECT_DB_PASSWORD", "MLFLOW_DB_PASSWORD")
S3_USERS = {
    "admin": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "worker": ("SEMIVL_S3_ACCESS_KEY", "SEMIVL_S3_SECRET_KEY"),
    "mlflow": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
}
"""and under which names their keys reach their pods"""


def main() -> int:
    """0 where the files were written, 1 where one was there."""
    files = {"postgres.env": {name: secrets.token_hex(24) for name in PASSWORDS}, "s3-users.env": {}}
    for user, (key, secret) in S3_USERS.items():
        files[f"s3-{user}.env"] = {key: secrets.token_hex(10), secret: secrets.token_hex(24)}
        for what, value in zip(("KEY", "SECRET"), files[f"s3-{user}.env"].values(), strict=True):
            files["s3-users.env"][f"S3_{user.upper()}_{what}"] = value  # the server knows all of them
    there = [name for name in files if (HERE / name).exists()]
    if there:
        print(f"error: {', '.join(there)} is there already, and stays.", file=sys.stderr)
        return 1
    for name, values in files.items():
        with os.fdopen(os.open(HERE / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.writelines(f"{one}={value}\n" for one, value in values.items())
    print(f"wrote {', '.join(files)} (mode 600)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
