"""SIGTERM: the machine is wanted back, or somebody cancels. The step that runs is finished, and kept."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PREEMPTED = "TRAIN050"
"""code of a training that ended so; it goes on later"""
_asked = threading.Event()


def ask_to_end() -> None:
    """Asks this process's training to end, as SIGTERM does."""
    _asked.set()


@contextmanager
def sigterm() -> Iterator[threading.Event]:
    """An event that is set when SIGTERM comes, in place of what it does otherwise.

    Only a program's main thread can have that. Elsewhere `ask_to_end` alone sets it.
    """
    ours = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda *_: _asked.set()) if ours else None
    try:
        yield _asked
    finally:
        if ours:
            signal.signal(signal.SIGTERM, before)
        _asked.clear()
