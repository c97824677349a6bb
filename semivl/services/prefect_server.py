"""Prefect's server on SQLite, mended for many at once.

    python -m semivl.services.prefect_server --host 127.0.0.1 --port 4330

Two things of Prefect 3.8 that a Prefect on Postgres does not have:

- Most of its writing transactions are deferred ones: they read, and ask for SQLite's one write lock at their first
  write. Where anybody has written since that read, SQLite refuses at once, however long it was told to wait; the client
  gets a 503 and tries again after 2, 4, 8, 16 and 32 seconds. Of many that submit runs at one moment one gets through
  each time, and the last are refused. Here each takes the lock when it begins, so that the others wait for it.
- It serves 100 requests at a time, and counts among them the connections that workers and runs hold open for as long as
  they live, up to five for a worker with its run. With twenty of them nobody is served any more, for ever. Here open
  connections do not count.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection


def take_the_lock_first() -> None:
    """Makes every transaction that Prefect begins on SQLite in this process an immediate one."""
    from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration

    def begin(self: AioSqliteConfiguration, conn: "Connection") -> None:
        if SQLITE_BEGIN_MODE.get() is not None:  # else it only reads, and Prefect leaves it to SQLite
            conn.exec_driver_sql("BEGIN IMMEDIATE")

    AioSqliteConfiguration.begin_sqlite_stmt = begin


def count_requests_alone() -> None:
    """Takes websockets out of the number of requests that Prefect serves at a time."""
    from prefect.server.api.server import RequestLimitMiddleware

    limited = RequestLimitMiddleware.__call__

    async def call(self: RequestLimitMiddleware, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
        else:
            await limited(self, scope, receive, send)

    RequestLimitMiddleware.__call__ = call


if __name__ == "__main__":
    take_the_lock_first()
    count_requests_alone()
    from prefect.cli import app

    sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
    app()
