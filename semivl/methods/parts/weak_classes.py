"""What a transfer training needs of its samples, looked at before the first step (spec transfer.md, 7)."""

from collections import Counter
from collections.abc import Collection, Iterable
from itertools import combinations

from semivl.data.strength import Strengths
from semivl.data.tags import BACKGROUND
from semivl.errors import TrainingError

INSEPARABLE = 0.95
"""share of the photos with either of two tags that have both, above which nothing tells the two apart"""


def require_transferable(known: Strengths) -> None:
    """Raises: TrainingError TRAIN040 fewer than two classes with masks, TRAIN042 a class without masks or tags."""
    strong = [name for name in known.strong if name != BACKGROUND]
    if len(strong) < 2:
        counted = f"{len(strong)} class{'' if len(strong) == 1 else 'es'} of objects"
        what = f"masks show {counted} ({', '.join(strong) or 'none'})"
        remedy = "Draw masks for two or more: what an object is must be learned from objects that differ."
        raise TrainingError("TRAIN040", f"{what}.", remedy)
    if untold := [name for name in known.unknown if name != BACKGROUND]:
        what = f"no mask shows and no tag names {', '.join(untold)}."
        raise TrainingError("TRAIN042", what, "Tag photos with them, or take them out of the class map.")


def require_separable(tagged: Iterable[frozenset[str]], weak: Collection[str]) -> None:
    """Raises: TrainingError TRAIN041, two of the weak classes are nearly always tagged together.

    Args:
        tagged: the classes that each photo's tags name.
    """
    alone: Counter[str] = Counter()
    together: Counter[tuple[str, str]] = Counter()
    for named in tagged:
        here = sorted(named.intersection(weak))
        alone.update(here)
        together.update(combinations(here, 2))
    for (one, other), both in together.most_common():
        either = alone[one] + alone[other] - both
        if both > INSEPARABLE * either:
            what = (
                f"of the {either} photos tagged {one} or {other}, {both} are tagged with both: nothing tells which is"
            )
            remedy = f"Tag photos that show {one} or {other} alone, or draw masks of one of them."
            raise TrainingError("TRAIN041", f"{what}.", remedy)


def told(known: Strengths) -> list[str]:
    """Which classes have masks and which have tags alone, with counts."""
    of_masks = ", ".join(f"{name} ({count})" for name, count in known.strong.items() if name != BACKGROUND)
    of_tags = ", ".join(f"{name} ({count})" for name, count in known.weak.items())
    lines = [f"Classes with masks (masks that show them): {of_masks}."]
    if not of_tags:
        return [*lines, "No class is known by tags alone: method semivl or supervised suits these samples better."]
    return [*lines, f"Classes known by tags alone (photos tagged): {of_tags}."]
