"""What a transfer training needs of its samples, looked at before the first step (spec transfer.md, 7)."""

from collections import Counter
from collections.abc import Collection, Iterable
from itertools import combinations
from typing import TYPE_CHECKING

from semivl.config import Classes
from semivl.data.strength import Strengths, strengths, tagged_classes
from semivl.data.tags import BACKGROUND
from semivl.errors import TrainingError

if TYPE_CHECKING:
    import pyarrow as pa

INSEPARABLE = 0.95
"""share of the photos with either of two tags that have both, above which nothing tells the two apart"""


def transferable(masked: "pa.Table", unmasked: "pa.Table", classes: Classes) -> Strengths:
    """The classes as a transfer training's samples know them, weak ones by tags of photos without masks.

    Args:
        masked: index of the samples with masks; `unmasked` of those without.

    Raises:
        TrainingError: TRAIN040 fewer than two classes of objects have masks, TRAIN041 two classes without masks are
            nearly always tagged together, TRAIN042 a class has no mask, and no tag on a photo without one.
    """
    import pyarrow as pa

    whole = pa.concat_tables([masked, unmasked])
    known = strengths(whole, classes)
    require_transferable(known)
    known = counted_without_masks(known, tagged_classes(unmasked, classes))
    require_separable(tagged_classes(whole, classes), known.weak)
    return known


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


def counted_without_masks(known: Strengths, tagged: Iterable[frozenset[str]]) -> Strengths:
    """`known` with the weak classes counted on photos without masks, which alone are labelled by their tags.

    Args:
        tagged: the classes that the tags of each photo without a mask name.

    Raises:
        TrainingError: TRAIN042, tags name a class on photos with masks alone.
    """
    counts = Counter(name for named in tagged for name in named)
    if never := [name for name in known.weak if not counts[name] and name != BACKGROUND]:
        what = (
            f"no mask shows and only tags of photos with masks name {', '.join(never)}; "
            "by their tags photos without masks alone are labelled."
        )
        remedy = "Tag photos without a mask with them, draw them, or take them out of the class map."
        raise TrainingError("TRAIN042", what, remedy)
    return known._replace(weak={name: counts[name] for name in known.weak if counts[name]})


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
