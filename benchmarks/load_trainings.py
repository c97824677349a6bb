"""What MLflow and S3 bear of trainings that tell at once: every point, picture and file read back and compared.

For benchmarks.load. Each training is a process of its own and does what semivl.training.trainer does, by the same
parts, but for the learning: a step is a pause, and the model a small one.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from semivl.config import Config, load
from semivl.data.snapshot import read
from semivl.data.store import open_store
from semivl.registry.runs import finished_run, open_run, parameters
from semivl.registry.tracking import client
from semivl.settings import home
from semivl.training.background import Background
from semivl.training.bundle import train_key
from semivl.training.checkpoint import PARTS, keep_newest, newest_whole, save_checkpoint
from semivl.training.observe import Telling
from semivl.training.remote import fetch, upload

METRICS = 10
CHECKPOINT_EVERY = 50
_TRACE = 1 << 20
"""bytes of the artifact"""


@dataclass
class Told:
    """A training that told all it had; seconds that its own thread waited for that."""

    number: int
    key: str
    open: float = 0
    metrics: list[float] = field(default_factory=list)
    checkpoints: list[float] = field(default_factory=list)
    end: float = 0


def tell_together(count: int, experiment: str, overrides: dict[str, Any], steps: int, pause: float) -> list[Told]:
    """Trainings that begin at one moment, each with a seed and so a run of its own; `pause`: seconds a step."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, spawn, initializer=_prepare, initargs=(spawn.Barrier(count),)) as pool:
        work = partial(_tell, experiment=experiment, overrides=overrides, steps=steps, pause=pause)
        return list(pool.map(work, range(count)))


_together: Any = None


def _prepare(barrier: Any) -> None:
    global _together
    _together = barrier
    torch.set_num_threads(1)


def _tell(number: int, experiment: str, overrides: dict[str, Any], steps: int, pause: float) -> Told:
    config = config_of(number, experiment, overrides)
    store = open_store()
    manifest = read(store, config.data.dataset).manifest
    told = Told(number, train_key(config, manifest.version))
    folder = home() / "runs" / told.key
    folder.mkdir(parents=True, exist_ok=True)
    model = torch.nn.Linear(512, 512)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 512)).sum().backward()
    optimizer.step()
    client()  # what a process needs once is not part of the load
    _together.wait()
    since = time.perf_counter()
    with open_run(config, manifest, {}) as run:
        told.open = time.perf_counter() - since
        with Background(waiting=1) as uploads, Telling(run) as telling:
            for step in range(1, steps + 1):
                time.sleep(pause)
                told.metrics.append(seconds_of(lambda s=step: telling.metrics(s, values(number, s))))
                if step % CHECKPOINT_EVERY == 0:
                    optimizer.step()

                    def keep(done: int = step) -> None:
                        telling.wait()
                        path = save_checkpoint(folder, done, model, optimizer)
                        uploads.do(lambda: upload(store, told.key, path, config.compute.checkpoints))
                        keep_newest(folder, config.compute.checkpoints)
                        telling.checkpoint(done, path)

                    told.checkpoints.append(seconds_of(keep))
            telling.previews(steps, {"picture": picture(number)})
            (folder / "trace.bin").write_bytes(os.urandom(_TRACE))
            telling.artifact(folder / "trace.bin")
            since = time.perf_counter()
    told.end = time.perf_counter() - since
    return told


def config_of(number: int, experiment: str, overrides: dict[str, Any]) -> Config:
    """The experiment with a seed that makes it a training of its own."""
    return load(experiment, overrides | {"train": overrides.get("train", {}) | {"seed": 1000 + number}})


def values(number: int, step: int) -> dict[str, float]:
    """Points that no other training or step has."""
    return {f"load/{name}": number * 1e6 + step + name / 16 for name in range(METRICS)}


def picture(number: int) -> np.ndarray:
    """(48, 64, 3) uint8."""
    return np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def seconds_of(work: Callable[[], object]) -> float:
    since = time.perf_counter()
    work()
    return time.perf_counter() - since


def differences(told: Told, experiment: str, overrides: dict[str, Any], steps: int) -> list[str]:
    """What MLflow and S3 have otherwise than it was told; empty where all is there, once."""
    run_id = finished_run(told.key)
    if run_id is None:
        return [f"training {told.number} has no finished run"]
    wrong = []
    for name in values(told.number, 1):
        kept = sorted((point.step, point.value) for point in client().get_metric_history(run_id, name))
        due = [(step, values(told.number, step)[name]) for step in range(1, steps + 1)]
        if kept != due:
            wrong.append(f"{name}: {len(kept)} points, {len(set(kept) & set(due))} of {len(due)} right")
    params = parameters(config_of(told.number, experiment, overrides))
    if client().get_run(run_id).data.params != params:
        wrong.append("parameters differ")
    with TemporaryDirectory() as folder:
        wrong += _different_files(told, run_id, Path(folder))
    return [f"training {told.number}: {words}" for words in wrong]


def _different_files(told: Told, run_id: str, folder: Path) -> list[str]:
    """Artifacts, pictures and checkpoints that are not, byte for byte, those on the disk."""
    wrong, local = [], home() / "runs" / told.key
    trace = client().download_artifacts(run_id, "trace.bin", str(folder))
    if Path(trace).read_bytes() != (local / "trace.bin").read_bytes():
        wrong.append("trace.bin differs")
    pictures = [file.path for file in client().list_artifacts(run_id, "images") if file.path.endswith(".png")]
    shown = [np.asarray(Image.open(client().download_artifacts(run_id, path, str(folder)))) for path in pictures]
    if len(shown) != 1 or not np.array_equal(shown[0], picture(told.number)):
        wrong.append(f"{len(shown)} pictures, or another one")
    fetch(open_store(), told.key, folder)
    newest, copied = newest_whole(local), newest_whole(folder)
    if not newest or not copied or newest.name != copied.name:
        return [*wrong, f"the newest checkpoint in S3 is {copied and copied.name}, not {newest and newest.name}"]
    return wrong + [f"{n} differs" for n in PARTS if (newest / n).read_bytes() != (copied / n).read_bytes()]
