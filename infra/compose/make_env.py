#!/usr/bin/env python3
"""Writes .env beside compose.yaml: a random secret for every part, for the owner's eyes only.

python3 infra/compose/make_env.py                                               pages on 127.0.0.1
python3 infra/compose/make_env.py --prefect prefect.example.org --mlflow mlflow.example.org   behind compose.tls.yaml

It needs Python alone. A file that is there stays: its passwords are those of the databases that were made with it.
"""

import argparse
import os
import secrets
import sys
from pathlib import Path

MODE = 0o600
PASSWORDS = ("POSTGRES_PASSWORD", "PREFECT_DB_PASSWORD", "MLFLOW_DB_PASSWORD", "PROXY_PASSWORD")
S3_USERS = ("ADMIN", "WORKER", "MLFLOW")


def main() -> int:
    """0 where the file was written, 1 where one was there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefect", metavar="HOST", help="name under which the proxy shows Prefect")
    parser.add_argument("--mlflow", metavar="HOST", help="name under which the proxy shows MLflow")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / ".env")
    given = parser.parse_args()
    if (given.prefect is None) != (given.mlflow is None):
        parser.error("give both names, or none")
    try:
        write(given.output, lines(given.prefect, given.mlflow))
    except FileExistsError:
        print(f"error: {given.output} is there, and the databases know its passwords. It stays.", file=sys.stderr)
        return 1
    print(f"wrote {given.output} (mode 600). Keep a copy where the team keeps its secrets.")
    return 0


def lines(prefect: str | None, mlflow: str | None) -> dict[str, str]:
    """The settings: new secrets at every call. Hexadecimal, so that they can stand in an address as they are."""
    made = {name: secrets.token_hex(24) for name in PASSWORDS}
    for user in S3_USERS:
        made[f"S3_{user}_KEY"] = secrets.token_hex(10)
        made[f"S3_{user}_SECRET"] = secrets.token_hex(24)
    made["PROXY_USER"] = "team"
    made["PREFECT_HOST"], made["MLFLOW_HOST"] = prefect or "prefect.localhost", mlflow or "mlflow.localhost"
    made["PREFECT_PAGE"] = f"https://{prefect}" if prefect else "http://127.0.0.1:4200"
    made["MLFLOW_PAGE"] = f"https://{mlflow}" if mlflow else "http://127.0.0.1:5000"
    return made


def write(path: Path, settings: dict[str, str]) -> None:
    """Makes the file; at no moment can others read it. FileExistsError where there is one."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE), "w") as file:
        file.write("# Made by make_env.py. Secrets: never commit this file, never send it unencrypted.\n")
        file.writelines(f"{name}={value}\n" for name, value in settings.items())


if __name__ == "__main__":
    sys.exit(main())
