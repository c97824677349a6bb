"""Regions that annotators drew, brought to a mask of class ids; what both tools' exports are read into.

Of regions that overlap the later one is on top. What no region covers is the class `background` where the class map has
it, else 255: nobody labelled it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from semivl.config import Classes
from semivl.data.mask_ids import background
from semivl.data.outlines import filled
from semivl.data.sample import Row
from semivl.data.snapshot import Snapshot
from semivl.errors import DataError, LabelError


@dataclass(frozen=True)
class Drawn:
    """An image's mask as it came from a tool."""

    row: Row
    mask: np.ndarray
    """(H, W) uint8 class ids, 255 where nobody labelled"""


class Dataset:
    """What an export is held against: the class map, and the images by the names that a tool may have for them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.classes: Classes = snapshot.manifest.classes
        self.background = background(self.classes)
        self._ids = {name: index for index, name in enumerate(self.classes.names)}
        self._snapshot = snapshot
        self._keys: dict[str, list[str]] | None = None

    def class_id(self, label: str, where: str) -> int:
        """The id of the class that a label names. LABEL005 where none does."""
        if label in self._ids:
            return self._ids[label]
        what = f"{where} has the label {label}, and no class bears that name."
        raise LabelError("LABEL005", what, f"Rename it in the export; the classes are {', '.join(self.classes.names)}.")

    def row(self, name: str) -> Row:
        """The sample that an image's name means: its key, the path that it came by, or that path's last part.

        Raises:
            LabelError: LABEL006 there is none, or more than one.
        """
        stem = PurePosixPath(name).stem
        row = self._snapshot.find(stem) if len(stem) == 16 else None
        if row:
            return row
        keys = self._named().get(name) or self._named().get(PurePosixPath(name).name) or []
        row = self._snapshot.find(keys[0]) if len(keys) == 1 else None
        if row:
            return row
        named = f"{self._snapshot.manifest.dataset} {self._snapshot.manifest.version}"
        what = f"{len(keys) or 'no'} images of {named} go by the name {name}."
        raise LabelError(
            "LABEL006", what, "Name images by their keys, as `semivl label-next` does, or ingest them first."
        )

    def _named(self) -> dict[str, list[str]]:
        if self._keys is None:
            self._keys = {}
            for source, key in zip(*(self._snapshot.index[c].to_pylist() for c in ("source", "key")), strict=True):
                for name in {source, PurePosixPath(source).name}:
                    self._keys.setdefault(name, []).append(key)
        return self._keys


def require_size(row: Row, width: int, height: int, where: str) -> None:
    """LABEL007 where a drawing is not of the image's own size."""
    if (width, height) != (row.width, row.height):
        what = f"{where} was drawn on {width} x {height} pixels, and the image has {row.width} x {row.height}."
        raise LabelError("LABEL007", what, "Draw on the image as it is in the dataset, neither resized nor turned.")


def painted(row: Row, regions: Iterable[tuple[int, np.ndarray]], rest: int) -> np.ndarray:
    """(H, W) uint8 mask of class ids and (H, W) bool regions, the later on top."""
    mask = np.full((row.height, row.width), rest, np.uint8)
    for class_id, region in regions:
        mask[region] = class_id
    return mask


def polygon(row: Row, points: Sequence[float], where: str) -> np.ndarray:
    """(H, W) bool region inside x, y, x, y, ... in pixels. LABEL008 where they are no polygon of the image."""
    try:
        return filled(list(points), row.height, row.width)
    except DataError as error:
        raise bad_region(where, error.what.partition(": ")[2].rstrip(".")) from None


def bad_region(where: str, why: str) -> LabelError:
    return LabelError("LABEL008", f"{where} has a region that cannot be drawn: {why}.", "Mend it in the tool.")


def bad_file(path: object, why: str) -> LabelError:
    return LabelError("LABEL004", f"{path} is no export that can be read: {why}.", "See docs/label-next.md for how to.")
