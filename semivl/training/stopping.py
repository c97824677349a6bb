"""SIGTERM: the machine is wanted back, or somebody cancels. The step that runs is finished, and kept."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PREEMPTED = "TRAIN050"
"""code of a training that ended so; it goes on later"""


@contextmanager
def sigterm() -> Iterator[threading.Event]:
    """An event that is set when SIGTERM comes, in place of what it does otherwise.

    Only a program's main thread can have that. Elsewhere the event is never set.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(*_: object) -> None:
        asked.set()

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
