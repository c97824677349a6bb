"""Prefect's server on SQLite, with transactions that wait for each other.

    python -m semivl.services.prefect_server --host 127.0.0.1 --port 4330

Prefect 3.8 begins most of its writing transactions as deferred ones: they read, and ask for SQLite's one write lock at
their first write. Where anybody has written since that read, SQLite refuses at once, however long it was told to wait;
the client gets a 503 and tries again after 2, 4, 8, 16 and 32 seconds. Of many that submit runs at one moment one gets
through each time, and the last are refused. Here each takes the lock when it begins, so that the others wait for it.
A Prefect on Postgres needs none of this.
"""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection


def take_the_lock_first() -> None:
    """Makes every transaction that Prefect begins on SQLite in this process an immediate one."""
    from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration

    def begin(self: AioSqliteConfiguration, conn: "Connection") -> None:
        if SQLITE_BEGIN_MODE.get() is not None:  # else it only reads, and Prefect leaves it to SQLite
            conn.exec_driver_sql("BEGIN IMMEDIATE")

    AioSqliteConfiguration.begin_sqlite_stmt = begin


if __name__ == "__main__":
    take_the_lock_first()
    from prefect.cli import app

    sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
    app()
