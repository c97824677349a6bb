"""Which classes a snapshot's training masks show, and which are known by tags alone."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from semivl.config import Classes
from semivl.data.tables import compute
from semivl.data.tags import BACKGROUND, classes_by_tag

if TYPE_CHECKING:
    import pyarrow as pa


class Strengths(NamedTuple):
    """The classes by what is known of them, in the class map's order, each with how many photos show or name it.

    The background is strong where masks show it, and else none of the three: nobody tags it.
    """

    strong: dict[str, int]
    """classes with pixels in a mask, and the number of these masks"""
    weak: dict[str, int]
    """classes without, which tags name, and the number of these photos"""
    unknown: tuple[str, ...]
    """classes that neither masks nor tags know"""


def strengths(index: "pa.Table", classes: Classes) -> Strengths:
    """The classes of the map as the samples of an index table know them."""
    pc, names = compute(), classes.names
    masked = index.filter(pc.greater(pc.list_value_length(index["pixels"]), 0))["pixels"].combine_chunks()
    pixels = masked.flatten().to_numpy().reshape(len(masked), len(names))
    masks = dict(zip(names, (pixels > 0).sum(0).tolist(), strict=True))
    tagged = Counter(name for named in tagged_classes(index, classes) for name in named)
    strong = {name: count for name, count in masks.items() if count}
    weak = {name: tagged[name] for name in names if name not in strong and name in tagged}
    unknown = tuple(name for name in names if name not in strong and name not in weak and name != BACKGROUND)
    return Strengths(strong, weak, unknown)


def tagged_classes(index: "pa.Table", classes: Classes) -> Iterator[frozenset[str]]:
    """The classes that each sample's tags name; the background, which has definitions too, is none of them."""
    by_tag = {tag: classes.names[number] for tag, number in classes_by_tag(classes).items()}
    by_tag = {tag: name for tag, name in by_tag.items() if name != BACKGROUND}
    for tags in index["tags"].to_pylist():
        yield frozenset(by_tag[tag.casefold()] for tag in tags or () if tag.casefold() in by_tag)
