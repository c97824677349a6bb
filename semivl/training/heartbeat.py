"""A process that hangs ends itself: a switch that has to be held down by finished steps.

A thread of C, which no stuck Python code can stop, waits for the next step. When it has waited too long it writes where
every thread stands into a file and ends the process, and whoever launched the training ends the other ranks: they hang
too, since all wait for the slowest. A process that is stopped as a whole is found by the others' switches.
"""

import faulthandler
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from semivl.data import ranks


def trace_of(folder: Path, rank: int) -> Path:
    """Where a rank that hung says where it stood."""
    return folder / f"hung-rank-{rank}.txt"


@contextmanager
def heartbeat(seconds: float | None, folder: Path) -> Iterator[Callable[[], None]]:
    """A function to be called after each step; the first call holds the switch down, `seconds` later it acts."""
    if seconds is None:
        yield lambda: None
        return
    path = trace_of(folder, ranks.rank())
    with path.open("w") as trace:
        try:
            yield lambda: faulthandler.dump_traceback_later(seconds, exit=True, file=trace)
        finally:
            faulthandler.cancel_dump_traceback_later()
            path.unlink()


def forget_hung(folder: Path) -> None:
    """Removes what ranks of an earlier attempt left."""
    for path in folder.glob("hung-rank-*.txt"):
        path.unlink()


def where_hung(folder: Path) -> list[str]:
    """Of each rank that hung, where its main thread stood."""
    found = []
    for path in sorted(folder.glob("hung-rank-*.txt")):
        threads = path.read_text().split("hread 0x")
        frames = [line.strip() for line in threads[-1].splitlines() if line.strip().startswith("File ")]
        if frames:  # the main thread is the last one
            found.append(f"{path.stem.removeprefix('hung-').replace('-', ' ')} stood at {frames[0]}")
    return found
