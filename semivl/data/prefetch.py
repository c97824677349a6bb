"""Fetching ahead: a thread brings the shards that the coming steps will read, while the present ones are decoded."""

import logging
import threading
from collections.abc import Iterable

from semivl.data.cache import ShardCache
from semivl.errors import SemivlError

log = logging.getLogger(__name__)
_SHARDS, _STEPS = 8, 256
"""at most so many shards are fetched before the step that reads them, and so many steps looked ahead"""


class FetchAhead:
    """Brings the shards of steps in their order, one at a time, for all processes on the machine.

    A shard that a reader is fetching itself is left to it. What goes wrong is left to the reader as well, who will
    meet the same and has somebody to tell.
    """

    def __init__(self, cache: ShardCache, needed: Iterable[tuple[int, Iterable[str]]]) -> None:
        """`needed`: a step's number and the shards that it reads, for each step."""
        self._cache, self._needed = cache, needed
        self._turn = threading.Condition()
        self._reached, self._closed = 0, False
        self._thread = threading.Thread(target=self._run, name="fetch-ahead", daemon=True)
        self._thread.start()

    def reached(self, step: int) -> None:
        """The shards of steps before this one are read, or being read."""
        with self._turn:
            self._reached = step
            self._turn.notify()

    def close(self) -> None:
        """Lets the thread end after the shard that it is fetching; a process that ends does not wait for it."""
        with self._turn:
            self._closed = True
            self._turn.notify()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        known: set[str] = set()
        ahead: list[int] = []
        for step, shards in self._needed:
            if not self._may_look_at(step, ahead):
                return
            for shard in shards:
                if shard in known:
                    continue
                known.add(shard)
                ahead.append(step)
                if not self._may_look_at(step, ahead) or not self._fetched(shard):
                    return

    def _may_look_at(self, step: int, ahead: list[int]) -> bool:
        """Waits until the step is near and few shards are fetched ahead of it; False at the end.

        `ahead`: the steps that shards were fetched for, freed here of those that are over.
        """
        with self._turn:
            while not self._closed:
                ahead[:] = [other for other in ahead if other >= self._reached]
                if len(ahead) <= _SHARDS and step < self._reached + _STEPS:
                    return True
                self._turn.wait()
        return False

    def _fetched(self, shard: str) -> bool:
        try:
            return self._cache.fetch(shard, wait=False)
        except (SemivlError, OSError) as error:
            log.info("shard %s was not fetched ahead: %s", shard, error)
            return False
