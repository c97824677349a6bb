"""What a retraining asks the registry: how far the last training came, what it has not seen, what to start from."""

from typing import TYPE_CHECKING

from semivl.config import Config, Parent, Record
from semivl.data.snapshot import Snapshot, head, read
from semivl.data.store import Store
from semivl.errors import DataError, RegistryError
from semivl.registry.package import alias_version, model_version
from semivl.registry.promotion import CHAMPION
from semivl.registry.reigns import reigns
from semivl.registry.runs import PARENT_VERSION, TRAIN_KEY
from semivl.registry.tracking import client, experiment_id

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

_GOES_ON = ("RUNNING", "KILLED", "SCHEDULED")
"""fates of a training that has steps to go: its process died, or its budget was used up"""
_SEEN_BY = ("key", "split", "supervision", "mask_sha256")
"""what makes an image another one to learn from"""


class News(Record):
    """What the dataset's HEAD holds that the experiment's last training did not learn from."""

    images: int
    """new or newly labelled"""
    trained: str | None
    """the snapshot of the last training that ended; None before the first"""
    goes_on: str | None
    """the snapshot of a turn that was begun: its training has steps to go, or the gate has not decided on its model"""


def news(config: Config, store: Store) -> News:
    """What there is to learn for the experiment, before the source is looked at."""
    last, begun = last_trained(config), _newest_run(config)
    trained = last.tags["semivl.snapshot"] if last else None
    goes_on = begun.data.tags["semivl.snapshot"] if begun and begun.info.status in _GOES_ON else None
    if goes_on is None and last and not _decided(store, last):
        goes_on = trained
    current = head(store, config.data.dataset)
    images = 0 if current is None else unseen(read(store, config.data.dataset, current), _kept(config, store, trained))
    goes_on = goes_on if _kept(config, store, goes_on) else None
    return News(images=images, trained=trained, goes_on=goes_on)


def unseen(snapshot: Snapshot, trained: Snapshot | None) -> int:
    """Images of the snapshot that are new or labelled otherwise since `trained`; all of them where that is None."""
    known = _rows(trained) if trained else set()
    return len(_rows(snapshot) - known)


def last_trained(config: Config) -> "ModelVersion | None":
    """The newest version that the experiment gave its model on this dataset."""
    asked = {"semivl.experiment": config.name, "semivl.dataset": config.data.dataset}
    found = client().search_model_versions(f"name = '{config.registered_model}'")
    ours = [v for v in found if all(v.tags.get(name) == value for name, value in asked.items())]
    return max(ours, key=lambda v: int(v.version), default=None)


def parent_for(config: Config, snapshot: str) -> Parent | None:
    """The version that a retraining on the snapshot starts from; None for a fresh start.

    The one that the settings name; else that of an earlier training of the experiment on the snapshot which did not
    fail, so that a run that is started again goes on with the same one whatever was promoted meanwhile; else the
    champion, where the experiment asks for it and there is one.
    """
    if config.train.parent:
        return config.train.parent
    begun = _newest_run(config)
    if begun and begun.info.status != "FAILED" and begun.data.tags["semivl.snapshot"] == snapshot:
        number = begun.data.tags.get(PARENT_VERSION)
        return Parent(version=int(number), train_key="") if number else None
    champion = alias_version(config.registered_model, CHAMPION) if config.retrain.start == "champion" else None
    return Parent(version=champion, train_key="") if champion else None


def with_named_parent(config: Config) -> Config:
    """The experiment with the train key of its parent, where it has one.

    Raises:
        RegistryError: REG004 there is no such version, REG030 the version names another train key, or none.
    """
    parent = config.train.parent
    if parent is None:
        return config
    key = model_version(config.registered_model, parent.version).tags.get(TRAIN_KEY, "")
    if not key or parent.train_key not in ("", key):
        raise RegistryError(
            "REG030",
            f"version {parent.version} of {config.registered_model} has the train key {key or 'of no training'}, "
            f"not {parent.train_key or 'one'}.",
            "Leave train.parent.train_key empty, or name the version that has it.",
        )
    named = config.train.model_copy(update={"parent": Parent(version=parent.version, train_key=key)})
    return config.model_copy(update={"train": named})


def _newest_run(config: Config) -> "Run | None":
    """The run of the experiment's newest training on this dataset."""
    asked = {"semivl.experiment": config.name, "semivl.dataset": config.data.dataset}
    asked |= {"semivl.model": config.registered_model}
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in asked.items())
    found = client().search_runs([experiment_id()], wanted, max_results=1, order_by=["attributes.start_time DESC"])
    return found[0] if found else None


def _decided(store: Store, version: "ModelVersion") -> bool:
    """Whether the gate has promoted or refused the version; or never will, since it was made champion by hand."""
    if "gate.decision" in version.tags:
        return True
    number, model = int(version.version), version.name
    promoted = any(reign.version == number and reign.decision for reign in reigns(store, model))
    return alias_version(model, CHAMPION) == number and not promoted


def _kept(config: Config, store: Store, version: str | None) -> Snapshot | None:
    """The snapshot of that version, where the store still has it."""
    try:
        return read(store, config.data.dataset, version) if version else None
    except DataError as error:
        if error.code != "DATA202":
            raise
        return None


def _rows(snapshot: Snapshot) -> set[tuple[str | None, ...]]:
    return set(zip(*(snapshot.index[name].to_pylist() for name in _SEEN_BY), strict=True))
