"""Scores apart for classes that have training masks and for those known by tags alone (spec transfer.md, 6)."""

from collections.abc import Collection, Iterable, Mapping
from statistics import mean

from semivl.config import Record
from semivl.data.snapshot import Snapshot
from semivl.data.strength import strengths


class ByStrength(Record):
    """Plain means over the classes of a kind that occur, in points; None where none does."""

    weak: tuple[str, ...]
    """classes that no training mask shows and training tags name; the strong ones are all others"""
    strong_miou: float | None
    """the background, where masks show it, is a strong class"""
    weak_miou: float | None
    harmonic: float | None
    """harmonic mean of the two: low where either is"""


def by_strength(iou: Mapping[str, float | None], weak: Collection[str]) -> ByStrength | None:
    """The scores by kind of class, of the IoU by class name; None where no class is weak."""
    if not weak:
        return None
    of_strong = _mean(value for name, value in iou.items() if name not in weak)
    of_weak = _mean(value for name, value in iou.items() if name in weak)
    named = tuple(name for name in iou if name in weak)
    return ByStrength(weak=named, strong_miou=of_strong, weak_miou=of_weak, harmonic=harmonic(of_strong, of_weak))


def weak_classes(snapshot: Snapshot) -> tuple[str, ...]:
    """The classes that no training mask of the snapshot shows, and its training tags name."""
    return tuple(strengths(snapshot.rows("train").table, snapshot.manifest.classes).weak)


def harmonic(one: float | None, other: float | None) -> float | None:
    """The harmonic mean of two scores; 0 where one is 0, None where one is."""
    if one is None or other is None:
        return None
    return 2 * one * other / (one + other) if one + other else 0.0


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None
