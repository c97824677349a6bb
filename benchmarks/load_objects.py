"""What S3 bears of many clients at once: shards put and got, each compared with what was put. For benchmarks.load."""

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from semivl.data.store import Store
from semivl.errors import StoreError
from semivl.settings import settings

_PREFIX = "benchmarks/load/"


@dataclass(frozen=True)
class Moved:
    """Shards that went to S3 and came back: seconds of each put and get, and of all of them together."""

    puts: list[float]
    gets: list[float]
    putting: float
    getting: float
    wrong: list[str]


def move(clients: int, shards: list[bytes]) -> Moved:
    """Puts and gets the shards by that many clients at once, each with connections of its own."""
    stores = [Store(settings()) for _ in range(clients)]
    wrong: list[str] = []

    def put(store: Store, number: int) -> None:
        store.put(f"{_PREFIX}{number}", shards[number])

    def get(store: Store, number: int) -> None:
        if hashlib.sha256(store.get(f"{_PREFIX}{number}")).digest() != hashlib.sha256(shards[number]).digest():
            wrong.append(f"shard {number} came back otherwise")

    def each(work: Callable[[Store, int], None]) -> tuple[list[float], float]:
        def of_one(client: int) -> list[float]:
            seconds = []
            for number in range(client, len(shards), clients):
                since = time.perf_counter()
                try:
                    work(stores[client], number)
                except StoreError as error:
                    wrong.append(f"shard {number}: {error}")
                seconds.append(time.perf_counter() - since)
            return seconds

        since = time.perf_counter()
        with ThreadPoolExecutor(clients) as threads:
            found = [one for of_client in threads.map(of_one, range(clients)) for one in of_client]
        return found, time.perf_counter() - since

    puts, putting = each(put)
    gets, getting = each(get)
    for key in list(stores[0].list(_PREFIX)):
        stores[0].delete(key)
    return Moved(puts, gets, putting, getting, wrong)


def shards(count: int, size: int) -> list[bytes]:
    """That many of random bytes."""
    return [os.urandom(size) for _ in range(count)]
