"""A training as a record that another process, or another machine, can take up."""

from pathlib import Path

from semivl.config import Config, Record
from semivl.data.snapshot import read
from semivl.data.store import open_store
from semivl.training.observe import Observer
from semivl.training.trainer import train


class Job(Record):
    """What `trainer.train` is told, where neither a snapshot nor a store can be handed over."""

    config: Config
    dataset: str
    version: str
    folder: Path
    parent: Path | None
    key: str
    guide: Path | None

    def run(self, observer: Observer, folder: Path | None = None) -> Path:
        """The folder of the finished model, in `folder` or the job's own; raises what `trainer.train` does."""
        store = open_store()
        snapshot = read(store, self.dataset, self.version)
        where = folder or self.folder
        return train(self.config, snapshot, store, where, observer, self.parent, self.key, self.guide)
