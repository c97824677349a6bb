"""Where a training runs: in this process, in several of this machine, or on a Ray cluster, as `compute.launch` says.

It is the same training: `trainer.train`, whatever the number of processes, which may be another after a restart.
"""

from pathlib import Path

from semivl.config import Config
from semivl.data.snapshot import Snapshot
from semivl.data.store import Store
from semivl.training import on_ray, torchrun, trainer
from semivl.training.bundle import is_whole, train_key
from semivl.training.job import Job
from semivl.training.observe import Observer


def train(
    config: Config,
    snapshot: Snapshot,
    store: Store,
    folder: Path,
    observer: Observer,
    parent: Path | None = None,
    key: str | None = None,
    guide: Path | None = None,
) -> Path:
    """The folder of the finished model; see `trainer.train`.

    Raises:
        TrainingError: TRAIN051 processes hung, TRAIN052 one died, both more often than `compute.restarts`; what
            `trainer.train` raises.
    """
    if is_whole(folder / "model"):
        return folder / "model"
    if config.compute.launch == "here":
        return trainer.train(config, snapshot, store, folder, observer, parent, key, guide)
    version = snapshot.manifest.version
    key = key or train_key(config, version)
    folder.mkdir(parents=True, exist_ok=True)
    job = Job(
        config=config,
        dataset=snapshot.manifest.dataset,
        version=version,
        folder=folder.resolve(),
        parent=parent,
        key=key,
        guide=guide,
    )
    return torchrun.train(job, observer) if config.compute.launch == "torchrun" else on_ray.train(job, observer)
