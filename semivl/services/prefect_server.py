"""Prefect's server on SQLite, mended for many at once.

    python -m semivl.services.prefect_server --host 127.0.0.1 --port 4330

Two things of Prefect 3.8 that a Prefect on Postgres does not have:

- Most of its writing transactions are deferred ones: they read, and ask for SQLite's one write lock at their first
  write. Where anybody has written since that read, SQLite refuses at once, however long it was told to wait; the client
  gets a 503 and tries again after 2, 4, 8, 16 and 32 seconds. Of many that submit runs at one moment one gets through
  each time, and the last are refused. Here they wait for each other before they begin, in the order in which they came,
  and take the lock when they begin. Who waits holds no connection to the database: there are 15.
- It serves 100 requests at a time, and counts among them the connections that workers and runs hold open for as long as
  they live, up to five for a worker with its run. With twenty of them nobody is served any more, for ever. Here open
  connections do not count.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction


class Turns:
    """One task of an event loop at a time; what it does within its turn needs none of its own."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._holder: asyncio.Task[Any] | None = None

    @property
    def mine(self) -> bool:
        return self._holder is asyncio.current_task()

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None, None]:
        async with self._lock:
            self._holder = asyncio.current_task()
            try:
                yield
            finally:
                self._holder = None


def one_transaction_at_a_time() -> None:
    """Makes the transactions that Prefect begins on SQLite in this process wait for each other, and immediate ones."""
    from prefect.server.database.configurations import AioSqliteConfiguration

    begin = AioSqliteConfiguration.begin_transaction
    of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()

    @asynccontextmanager
    async def in_turn(
        self: AioSqliteConfiguration, session: "AsyncSession", with_for_update: bool = False
    ) -> "AsyncGenerator[AsyncSessionTransaction, None]":
        turns = of_loop.setdefault(asyncio.get_running_loop(), Turns())
        if turns.mine:
            async with begin(self, session, with_for_update) as transaction:
                yield transaction
        else:
            async with turns.turn(), begin(self, session, with_for_update=True) as transaction:
                yield transaction

    AioSqliteConfiguration.begin_transaction = in_turn


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
    one_transaction_at_a_time()
    count_requests_alone()
    from prefect.cli import app

    sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
    app()
