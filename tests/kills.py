"""kill -9 for services and flow runs, and what the same training gives where nobody kills anything."""

import os
import signal
import time
from pathlib import Path

import psutil

from semivl.config import Config
from semivl.data import snapshot
from semivl.data.store import open_store
from semivl.services import processes
from semivl.settings import home
from semivl.training.bundle import train_key
from semivl.training.launch import train


class Unwatched:
    """An observer who does not care."""

    def samples(self, told) -> None: ...

    def metrics(self, step, values): ...

    def previews(self, step, images): ...

    def checkpoint(self, step, path): ...

    def artifact(self, path): ...


def kill(service: str) -> None:
    """SIGKILL for the service and all that it started: what a power cut does."""
    end(processes.marked(service))
    psutil.wait_procs(processes.marked(service), 10)


def kill_run(run) -> None:
    """SIGKILL for the process of a flow run, and what it started; the worker lives."""
    end(p for p in processes.marked("worker") if environment(p).get("PREFECT__FLOW_RUN_ID") == str(run))


def end(found) -> None:
    for process in found:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def wait_for_checkpoint(config: Config, seconds: float = 300, version: str | None = None) -> None:
    """Until the training of the dataset's snapshot has left its second checkpoint, and is not done."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = version or snapshot.head(open_store(), config.data.dataset)
        if found:
            folder = home() / "runs" / train_key(config, found)
            assert not (folder / "model").exists(), "the training was over before the kill"
            if len(list(folder.glob("step-*"))) >= 2:
                return
        time.sleep(0.2)
    raise AssertionError("no checkpoint appeared")


def unbroken_weights(config: Config, folder: Path, version: str | None = None, parent: Path | None = None) -> bytes:
    """What the same training gives where nobody kills anything. The S3 checkpoints of its key are removed."""
    store = open_store()
    for key in list(store.list("checkpoints/")):
        store.delete(key)
    found = snapshot.read(store, config.data.dataset, version)
    bundle = train(config, found, store, folder, Unwatched(), parent)
    return (bundle / "model.safetensors").read_bytes()
