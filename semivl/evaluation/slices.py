"""Scores by slice: where a model is good and where it is not.

A slice is the images that have something in common. One of fewer than LEAST images is joined to the others of its kind
that are too small, as "other"; a kind that then says nothing (one slice, or none but "other") is left out.
"""

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from semivl.config import Record
from semivl.data.sample import Row
from semivl.data.snapshot import Snapshot
from semivl.evaluation.counting import mean, points

if TYPE_CHECKING:
    import pyarrow as pa

LEAST = 5
OTHER = "other"
THIRDS = {"small": 0, "dark": 0, "medium": 1, "large": 2, "bright": 2}
"""the order in which they are told"""


class Slice(Record):
    """Some of a split's images; an image may be in several slices of a kind."""

    kind: str
    """image size, brightness, rarest class, tag or source"""
    name: str
    images: int
    miou: float | None
    """over the classes that occur in these images; None where nothing of them is labelled"""


def slices(rows: Sequence[Row], per_image: "pa.Table") -> tuple[Slice, ...]:
    """The slices of a split, of its images and their table (see `per_image.image_schema`) in the same order."""
    rarest = per_image["rarest_class"].to_pylist()
    kinds: dict[str, list[tuple[str, ...]]] = {
        "image size": _thirds([row.width * row.height for row in rows], ("small", "medium", "large"), " pixels"),
        "brightness": _thirds([round(row.brightness) for row in rows], ("dark", "medium", "bright"), " of 255"),
        "rarest class": [(name or "none of the rare",) for name in rarest],
        "tag": [tuple(dict.fromkeys(row.tags)) or ("no tag",) for row in rows],
        "source": [(name,) for name in sources([row.source for row in rows])],
    }
    intersections, unions = (np.array(per_image[name].to_pylist()) for name in ("intersections", "unions"))
    found = []
    for kind, names in kinds.items():
        members = _members(names)
        if len(members) > 1:
            found += [_slice(kind, name, images, intersections, unions) for name, images in members.items()]
    return tuple(found)


def rarest_classes(snapshot: Snapshot, rows: Iterable[Row]) -> list[str | None]:
    """For each image the class with the fewest pixels among the rare ones that its mask holds; None without one.

    Rare is the last third of the classes by pixels in the snapshot's training masks.
    """
    names = snapshot.manifest.classes.names
    pixels = np.zeros(len(names), dtype=np.int64)
    for row in snapshot.rows("train", "mask"):
        pixels += row.pixels
    rare = np.argsort(pixels, kind="stable")[: len(names) // 3].tolist()
    return [next((names[c] for c in rare if row.pixels and row.pixels[c]), None) for row in rows]


def sources(paths: Sequence[str]) -> list[str]:
    """Where each image is from: its first folder below those that all have in common, else its name's prefix.

    The prefix is what comes before the first of `_`, `-`, `.` or space, as the year in PASCAL VOC's names.
    """
    folders = [PurePosixPath(path).parent.parts for path in paths]
    for depth in range(max(map(len, folders), default=0)):
        found = [parts[depth] if len(parts) > depth else "" for parts in folders]
        if len(set(found)) > 1:
            return [name or "no folder" for name in found]
    names = [PurePosixPath(path).stem for path in paths]
    return [name.replace("-", "_").replace(".", "_").replace(" ", "_").partition("_")[0] for name in names]


def _thirds(values: Sequence[int], names: tuple[str, str, str], unit: str) -> list[tuple[str, ...]]:
    """The name of each value's third, the bound in it; equal values are in one third."""
    ordered = sorted(values)
    low, high = (ordered[(len(ordered) * i - 1) // 3] for i in (1, 2))
    named = (
        f"{names[0]}: up to {low:,}{unit}",
        f"{names[1]}: over {low:,}, up to {high:,}{unit}",
        f"{names[2]}: over {high:,}{unit}",
    )
    return [(named[(value > low) + (value > high)],) for value in values]


def _members(names: Sequence[tuple[str, ...]]) -> dict[str, list[int]]:
    """The images of each slice that is large enough, by name, then those of the small ones."""
    members: dict[str, list[int]] = {}
    for image, own in enumerate(names):
        for name in own:
            members.setdefault(name, []).append(image)
    ordered = sorted(members, key=lambda name: (THIRDS.get(name.partition(":")[0], 0), name))
    large = {name: members[name] for name in ordered if len(members[name]) >= LEAST}
    small = {image for name, images in members.items() if name not in large for image in images}
    if not large:
        return {}
    return large | ({OTHER: sorted(small)} if small else {})


def _slice(kind: str, name: str, images: list[int], intersections: np.ndarray, unions: np.ndarray) -> Slice:
    iou = points(intersections[images].sum(0), unions[images].sum(0))
    return Slice(kind=kind, name=name, images=len(images), miou=mean(iou))
