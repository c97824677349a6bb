"""The lineage of a model version: every snapshot whose images it, or a model that it learned from, has seen.

A version learned from the one whose weights it began with, and from the finished model that guided its training.
"""

from collections.abc import Iterator

from semivl.config import Record
from semivl.errors import RegistryError
from semivl.registry.address import is_version, model_and_version
from semivl.registry.package import model_version
from semivl.registry.runs import PARENT_VERSION, TEACHER


class TrainedOn(Record):
    """A snapshot that a training learned from, and the version that came out of it."""

    dataset: str
    snapshot: str
    model: str
    model_version: int


def trained_on(model: str, version: int) -> tuple[TrainedOn, ...]:
    """What the version learned from: its own snapshot, then those of its parents and teachers, and of theirs.

    Raises:
        RegistryError: REG004 the version or one before it is gone, REG020 one of them does not tell its snapshot.
    """
    return tuple(_seen(*one) for one in _behind(model, version))


def untraced(model: str, version: int) -> tuple[str, ...]:
    """The teachers in the version's lineage that are folders, in words: what those were trained on is not known.

    Raises:
        RegistryError: REG004 the version or one before it is gone.
    """
    taught = ((name, number, tags.get(TEACHER, "")) for name, number, tags in _behind(model, version))
    return tuple(
        f"version {number} of {name} was guided by the model in {teacher}, which does not tell what it learned from."
        for name, number, teacher in taught
        if teacher and not is_version(teacher)
    )


def _behind(model: str, version: int) -> Iterator[tuple[str, int, dict[str, str]]]:
    """Name, number and tags of the version and of all that it learned from, each once, nearest first."""
    found = [(model, version)]
    for name, number in found:
        tags = model_version(name, number).tags
        yield name, number, tags
        parent, teacher = tags.get(PARENT_VERSION, ""), tags.get(TEACHER, "")
        before = [(name, int(parent))] if parent.isdigit() else []
        if is_version(teacher):
            taught_by, of_number = model_and_version(teacher)
            before.append((taught_by, int(of_number)))
        found += [one for one in before if one not in found]


def _seen(model: str, version: int, tags: dict[str, str]) -> TrainedOn:
    dataset, snapshot = tags.get("semivl.dataset"), tags.get("semivl.snapshot")
    if dataset and snapshot:
        return TrainedOn(dataset=dataset, snapshot=snapshot, model=model, model_version=version)
    raise RegistryError(
        "REG020",
        f"version {version} of {model} does not tell on which snapshot it was trained.",
        "Set its tags semivl.dataset and semivl.snapshot, or train and register it with semivl-train.",
    )
