"""A small training that a process of its own runs, as the flow does it, to be ended from outside."""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from semivl.config import load
from semivl.data.ingest import ingest
from tests.loop import parameters

TRAIN = """
import json, sys
from pathlib import Path
from semivl.config import load
from semivl.data.snapshot import read
from semivl.data.store import open_store
from semivl.errors import SemivlError
from semivl.training.launch import train

given, folder = json.loads(sys.argv[1]), Path(sys.argv[2])

class Writes:
    def samples(self, told): ...
    def metrics(self, step, values):
        with (folder / "losses.jsonl").open("a") as file:
            file.write(json.dumps([step, values["train/total"]]) + "\\n")
    def previews(self, step, images): ...
    def checkpoint(self, step, path): ...
    def artifact(self, path): ...

if __name__ == "__main__":
    config, store = load(given["experiment"], given["overrides"]), open_store()
    try:
        train(config, read(store, config.data.dataset), store, folder, Writes())
    except SemivlError as error:
        print(error, file=sys.stderr)
        sys.exit(75 if error.code == "TRAIN050" else 1)
"""


def small(steps: int, experiment: str = "demo-supervised", **compute: Any) -> dict[str, Any]:
    """Parameters of a small training on a data set of its own, which is ingested."""
    given = parameters(f"t-{uuid.uuid4().hex[:8]}", experiment, steps=steps)
    given["overrides"]["train"] |= {"log_every": 1}
    given["overrides"]["compute"] |= compute
    config = load(given["experiment"], given["overrides"])
    ingest(config.data, config.classes)
    return given


@contextmanager
def training(given: dict[str, Any], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The process of the training; nothing that it started is left when the block ends."""
    mark = uuid.uuid4().hex
    with subprocess.Popen(
        [sys.executable, "-c", TRAIN, json.dumps(given), str(folder)],
        stderr=subprocess.PIPE, text=True, env=os.environ | {"SEMIVL_TEST_MARK": mark},
    ) as process:  # fmt: skip
        process.mark = mark  # pyright: ignore[reportAttributeAccessIssue]
        try:
            yield process
        finally:
            for one in family(process):
                one.kill()


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that it started, itself included, that are alive."""
    alive = []
    for one in psutil.process_iter():
        try:
            if one.environ().get("SEMIVL_TEST_MARK") == process.mark and one.status() != psutil.STATUS_ZOMBIE:  # pyright: ignore
                alive.append(one)
        except psutil.Error:
            continue
    return alive


def losses(folder: Path) -> dict[int, float]:
    """The losses that were told, the last one of each step."""
    path = folder / "losses.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return dict(json.loads(line) for line in lines if line.endswith("]"))


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while max(losses(folder), default=0) < step:
        assert process.poll() is None, process.stderr and process.stderr.read()[-3000:]
        assert time.monotonic() < deadline, "no step was told"
        time.sleep(0.05)
