#!/usr/bin/env python3
"""Writes the files that this overlay's secretGenerator reads: random secrets, for the owner's eyes only, git-ignored.

python3 infra/kubernetes/overlays/local/make_secrets.py

Files that are there stay: their passwords are those of the databases that were made with them.
"""

import json
import os
import secrets
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RIGHTS = {
    "admin": ["Admin", "Read", "Write", "List", "Tagging"],
    "worker": ["Read:semivl", "Write:semivl", "List:semivl", "Tagging:semivl"],
    "mlflow": ["Read:semivl-artifacts", "Write:semivl-artifacts", "List:semivl-artifacts"],
}
NAMES = {"worker": ("SEMIVL_S3_ACCESS_KEY", "SEMIVL_S3_SECRET_KEY")}
"""under which a user's keys reach its pods, where not under Amazon's own names"""


def main() -> int:
    """0 where the files were written, 1 where one was there."""
    keys = {user: (secrets.token_hex(10), secrets.token_hex(24)) for user in RIGHTS}
    passwords = ("POSTGRES_PASSWORD", "PREFECT_DB_PASSWORD", "MLFLOW_DB_PASSWORD")
    texts = {"postgres.env": as_env({name: secrets.token_hex(24) for name in passwords})}
    for user, pair in keys.items():
        names = NAMES.get(user, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
        texts[f"s3-{user}.env"] = as_env(dict(zip(names, pair, strict=True)))
    texts["s3.json"] = json.dumps({"identities": [identity(user, *pair) for user, pair in keys.items()]}, indent=1)
    there = [name for name in texts if (HERE / name).exists()]
    if there:
        print(f"error: {', '.join(there)} is there already, and stays.", file=sys.stderr)
        return 1
    for name, text in texts.items():
        with os.fdopen(os.open(HERE / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    print(f"wrote {', '.join(texts)} (mode 600)")
    return 0


def identity(user: str, key: str, secret: str) -> dict:
    """SeaweedFS' description of a user: keys, and what they may do with which bucket."""
    return {"name": user, "actions": RIGHTS[user], "credentials": [{"accessKey": key, "secretKey": secret}]}


def as_env(values: dict[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in values.items())


if __name__ == "__main__":
    sys.exit(main())
