"""The README's two commands save both databases and bring them back, with their owners and their closed doors."""

import re
import shlex
import subprocess
from pathlib import Path

import psycopg2
import pytest

from tests.infra import compose
from tests.infra.stack import Stack, new_stack, postgres_programs, unprivileged

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(postgres_programs() is None, reason="no Postgres on PATH or below /usr/lib/postgresql"),
]


def documented(program: str, database: str) -> list[str]:
    """The command as infra/README.md has it, after `docker compose exec`, for one of the databases."""
    readme = (compose.FOLDER.parent / "README.md").read_text()
    found = re.search(rf"exec -T postgres ({program} [^<>\n]*)", readme)
    assert found
    return shlex.split(found[1].replace("$name", database))


def run(stack: Stack, command: list[str], **streams) -> None:
    """Within the stack, as within its container: as the database's superuser, by the local socket."""
    programs = postgres_programs()
    assert programs
    surroundings = {"PGHOST": str(stack.folder / "volumes" / "postgres"), "PGPORT": str(stack.ports["5432"])}
    whole = [*unprivileged(), str(programs / command[0]), *command[1:]]
    subprocess.run(whole, env=stack.environment("postgres") | surroundings, check=True, timeout=60, **streams)


def ask(stack: Stack, role: str, database: str, sql: str) -> list[tuple]:
    given = {"host": "127.0.0.1", "port": stack.ports["5432"], "user": role, "dbname": database}
    password = stack.settings[f"{role.upper()}_DB_PASSWORD"]
    with psycopg2.connect(**given, password=password) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def test_saved_databases_come_back_on_another_machine(tmp_path: Path) -> None:
    with new_stack() as first:
        first.up("postgres")
        for name in ("prefect", "mlflow"):
            ask(first, name, name, f"create table kept (word text); insert into kept values ('of {name}')")
        ask(first, "prefect", "prefect", "create extension pg_trgm")  # as Prefect's own migrations do
        for name in ("prefect", "mlflow"):
            with (tmp_path / name).open("wb") as saved:
                run(first, documented("pg_dump", name), stdout=saved)
        settings = first.settings
    with new_stack(settings) as second:
        second.up("postgres")
        for name in ("prefect", "mlflow"):
            with (tmp_path / name).open("rb") as saved:
                run(second, documented("pg_restore", name), stdin=saved)
            assert ask(second, name, name, "select word from kept") == [(f"of {name}",)]
            assert ask(second, name, name, "insert into kept values ('more') returning word") == [("more",)]
        with pytest.raises(psycopg2.OperationalError, match="permission denied"):
            ask(second, "mlflow", "prefect", "select 1")
