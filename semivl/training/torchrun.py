"""A training in several processes of this machine, started by torchrun.

Nothing of them outlives the training: they end with this process, and what is left of them at the end is killed.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from threading import Event

import psutil
import torch

from semivl.config import ComputeConfig
from semivl.errors import SemivlError, TrainingError
from semivl.training.heartbeat import forget_hung, where_hung
from semivl.training.job import Job
from semivl.training.observe import Observer
from semivl.training.rank import JOB, TOLD
from semivl.training.relay import as_fault, pass_on, records_in
from semivl.training.stopping import PREEMPTED, sigterm

log = logging.getLogger(__name__)
_MARK = "SEMIVL_LAUNCH"
"""environment variable that tells the processes of a launch from all others"""
_MAY_PASS = {"TRAIN051", "TRAIN052"}
"""codes of processes that hung or died, which may go well another time"""
_POLL = 0.1
_GRACE = 25.0
"""seconds for the ranks to end by themselves; Prefect kills who has not ended 30 seconds after a cancel"""
_WORDS = 2000
"""characters of the processes' last words that an error quotes"""


def train(job: Job, observer: Observer) -> Path:
    """The folder of the finished model. Processes that die or hang are started again, `compute.restarts` times.

    Raises:
        TrainingError: TRAIN051 they hung, TRAIN052 one died; what `trainer.train` raises in one of them.
    """
    left = job.config.compute.restarts
    while fault := _attempt(job, observer):
        if fault.code not in _MAY_PASS or not left:
            raise fault
        left -= 1
        log.warning("%s Started again from the last checkpoint.", fault)
    return job.folder / "model"


def processes(config: ComputeConfig) -> int:
    """How many train together."""
    return max(1, torch.cuda.device_count()) if config.processes == "auto" else config.processes


def _attempt(job: Job, observer: Observer) -> SemivlError | None:
    """Runs the ranks to their end; the fault that ended them, None where they are done."""
    with tempfile.TemporaryDirectory(prefix="semivl-ranks-") as folder:
        return _run(job, observer, Path(folder))


def _run(job: Job, observer: Observer, folder: Path) -> SemivlError | None:
    (folder / JOB).write_text(job.model_dump_json())
    forget_hung(job.folder)
    mark = uuid.uuid4().hex
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--max-restarts=0",
        f"--nproc-per-node={processes(job.config.compute)}", "-m", "semivl.training.rank", str(folder),
    ]  # fmt: skip
    with (
        sigterm() as asked,
        (folder / "words.txt").open("w+b") as words,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=words, stderr=words, start_new_session=True,
            env=os.environ | {_MARK: mark},
        ) as group,
    ):  # fmt: skip
        try:
            ended, fault = _watch(group, observer, folder, asked)
        finally:
            _end(group, mark)
        if ended == 0:
            return None
        words.seek(0)
        last = words.read().decode("utf-8", "replace")[-_WORDS:]
        return fault or _what_happened(job, asked.is_set(), ended, last)


def _watch(
    group: subprocess.Popen[bytes], observer: Observer, folder: Path, asked: Event
) -> tuple[int, SemivlError | None]:
    """Passes on what the ranks tell, and SIGTERM to them, until they end; their exit status, and a fault of theirs."""
    records, handed_on, fault = records_in(folder / TOLD), False, None
    while True:
        ended = group.poll()  # looked at before the records: what was told before the end is passed on
        for what in iter(lambda: next(records), None):
            if what["kind"] == "fault":
                fault = fault or as_fault(what)
            else:
                pass_on(what, observer)
        if ended is not None:
            return ended, fault
        if asked.is_set() and not handed_on:
            group.send_signal(signal.SIGTERM)
            handed_on = True
        time.sleep(_POLL)


def _what_happened(job: Job, asked: bool, ended: int, last: str) -> TrainingError:
    """The fault of ranks that left none themselves."""
    if asked:
        return TrainingError(PREEMPTED, "the training was asked to end (SIGTERM).", "Run it again: it goes on.")
    hung = where_hung(job.folder)
    if hung:
        what = f"no step was finished for {job.config.compute.heartbeat_seconds:g} s; {'; '.join(hung)}."
        return TrainingError("TRAIN051", what, "Run it again: it goes on; if steps take so long, raise the setting.")
    what = f"a process of the training died (torchrun ended with {ended}); the last words were:\n{last}"
    return TrainingError("TRAIN052", what, "Run it again: it goes on from the last checkpoint.")


def _end(group: subprocess.Popen[bytes], mark: str) -> None:
    """Asks the processes to end, if they have not yet, and kills whatever of them is left."""
    if group.poll() is None:
        group.send_signal(signal.SIGTERM)
        try:
            group.wait(_GRACE)
        except subprocess.TimeoutExpired:
            log.warning("the processes of the training did not end in %g s and are killed", _GRACE)
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == mark:
                process.kill()
        except psutil.Error:  # it has ended, or is somebody else's
            continue
    group.wait()
