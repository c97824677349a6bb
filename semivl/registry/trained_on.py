"""The lineage of a model version: every snapshot whose images it or a model that it began from has seen."""

from semivl.config import Record
from semivl.errors import RegistryError
from semivl.registry.package import model_version
from semivl.registry.runs import PARENT_VERSION


class TrainedOn(Record):
    """A snapshot that a training learned from, and the version that came out of it."""

    dataset: str
    snapshot: str
    model_version: int


def trained_on(model: str, version: int) -> tuple[TrainedOn, ...]:
    """What the version learned from: its own snapshot, then those of the versions that it was trained on from.

    Raises:
        RegistryError: REG004 the version or one before it is gone, REG020 one of them does not tell its snapshot.
    """
    found: list[TrainedOn] = []
    next_version: int | None = version
    while next_version is not None and next_version not in [seen.model_version for seen in found]:
        tags = model_version(model, next_version).tags
        found.append(_seen(model, next_version, tags))
        next_version = int(tags[PARENT_VERSION]) if tags.get(PARENT_VERSION, "").isdigit() else None
    return tuple(found)


def _seen(model: str, version: int, tags: dict[str, str]) -> TrainedOn:
    dataset, snapshot = tags.get("semivl.dataset"), tags.get("semivl.snapshot")
    if dataset and snapshot:
        return TrainedOn(dataset=dataset, snapshot=snapshot, model_version=version)
    raise RegistryError(
        "REG020",
        f"version {version} of {model} does not tell on which snapshot it was trained.",
        "Set its tags semivl.dataset and semivl.snapshot, or train and register it with semivl-train.",
    )
