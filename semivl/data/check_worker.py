"""Check worker: the process that examines for a pool (semivl.data.check_pool), within its memory and its time."""

import gc
import os
import pickle
import select
import signal
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semivl.config import Classes
from semivl.data.checks import Files, Limits, Quarantined, examine
from semivl.data.phash import phash
from semivl.data.sample import Row, Source
from semivl.data.source_files import with_class_ids

Found = tuple[Row, bytes | None] | Quarantined
"""the row, and the mask as class ids where that is not what was sent"""
PATIENCE = 10
"""by the clock, a file may take so many times the seconds of CPU that it may"""
NO_MEMORY = 77
"""the exit code of a worker that ran out of memory"""
_START_SECONDS = 120


Task = tuple[Source, Files]
"""what to examine; the mask as the source has it"""


class Settings(NamedTuple):
    """What a worker is told first."""

    classes: Classes
    limits: Limits
    memory: int
    """bytes"""
    seconds: float
    """of CPU"""


def work() -> None:
    """A worker's life: settings from standard input, then pairs; a row or a fault for each to standard output."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand between the answers
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, _START_SECONDS)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    settings: Settings = pickle.load(requests)  # noqa: S301 (from our parent)
    _warm_up()
    _bound_memory(settings.memory)
    found: list[Found] = []
    try:
        while True:
            signal.setitimer(signal.ITIMER_REAL, 0)
            pickle.dump(found, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
            signal.setitimer(signal.ITIMER_PROF, settings.seconds)  # waiting costs no CPU
            tasks: list[Task] = pickle.load(requests)  # noqa: S301
            found = [_timed(task, settings) for task in tasks]
    except MemoryError:
        os._exit(NO_MEMORY)
    except (EOFError, BrokenPipeError):
        os._exit(0)


def _timed(task: Task, settings: Settings) -> Found:
    signal.setitimer(signal.ITIMER_PROF, settings.seconds)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE * settings.seconds)
    source, raw = task
    files = with_class_ids(source, raw, settings.classes, settings.limits)
    if isinstance(files, Quarantined):
        return files
    found = examine(source, files, settings.classes, settings.limits)
    if isinstance(found, Quarantined):
        return found
    return found.row, None if files.mask is raw.mask else files.mask


def _leave_with_parent() -> None:
    hung_up = select.poll()
    hung_up.register(0, 0)
    hung_up.poll()
    os._exit(0)


def _warm_up() -> None:
    """What is imported and allocated once is a worker's own, no file's."""
    import simplejpeg  # noqa: F401
    from PIL import Image

    Image.preinit()
    phash(np.zeros((64, 64), np.uint8))
    gc.freeze()  # what is there by now stays: no collection need look through it


def _bound_memory(more: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        bound = int(lines["VmData"].split()[0]) * 1024 + more
        resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
