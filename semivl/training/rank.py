"""One of several processes that train together: `torchrun --nproc-per-node 2 -m semivl.training.rank FOLDER`.

FOLDER holds the job (semivl.training.job); what this rank has to tell is written there. It ends with the process that
launched it: standard input is a pipe of that one's, whose end is seen even when it was killed.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from semivl.config import ComputeConfig
from semivl.data import ranks
from semivl.errors import SemivlError
from semivl.training.compute import chosen_device
from semivl.training.job import Job
from semivl.training.relay import Relay, append_to
from semivl.training.stopping import PREEMPTED

JOB, TOLD = "job.json", "told.jsonl"
GOES_ON_LATER = 75
"""exit status of a rank that SIGTERM ended, its steps kept (EX_TEMPFAIL)"""
_PATIENCE = timedelta(days=1)
"""for a rank that is slow: rank 0 may make maps of all images before the first step; heartbeats find one that hangs"""


def main(folder: Path) -> int:
    """Trains as one of the ranks that the environment tells of; the exit status."""
    job = Job.model_validate_json((folder / JOB).read_text())
    with process_group(job.config.compute):
        relay = Relay(append_to(folder / TOLD))
        if ranks.rank() == 0:
            relay.listen()
        try:
            job.run(relay)
        except SemivlError as fault:
            relay.fault(fault)
            # not an orderly end: the other ranks may be waiting for this one
            os._exit(GOES_ON_LATER if fault.code == PREEMPTED else 1)
    return 0


@contextmanager
def process_group(config: ComputeConfig) -> Iterator[None]:
    """This process as a rank, by the variables that torchrun sets; on a machine with GPUs each rank has its own.

    Numbers of the host go over gloo whatever the device's go over.
    """
    cuda = chosen_device(config).type == "cuda"
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    nccl = config.backend == "nccl" or (config.backend == "auto" and cuda)
    dist.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo", timeout=_PATIENCE)
    yield
    dist.destroy_process_group()


def end_with_launcher() -> None:
    """Ends this process when the other end of standard input is closed."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    end_with_launcher()
    sys.exit(main(Path(sys.argv[1])))
