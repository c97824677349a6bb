"""The sample: one image with what is known about it, and its row in a snapshot's index.

In a tar a sample is `KEY.jpg` (or .png: the source's own bytes), `KEY.mask.png` where it has a mask (8-bit
class ids, 255 = ignore), and `KEY.json` (tags, caption, source, sha256, size). Where a sample has no mask,
no tags or no caption, there is nothing: never an empty file.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from semivl.data.mask_ids import MaskIds

Split = Literal["train", "val"]
Supervision = Literal["mask", "tags", "caption", "none"]
SPLITS: tuple[Split, ...] = ("train", "val")


@dataclass(frozen=True)
class Source:
    """What a layout found: the files of one image, and the split it belongs to. No picture is read yet."""

    image: Path
    split: Split | None
    """None: by the hash of its key, so that it stays as data grow"""
    mask: Path | None = None
    tags: tuple[str, ...] = ()
    tags_complete: bool = False
    """whether what no tag names is not in the image; else the tags are positive-only"""
    caption: str | None = None
    mask_ids: MaskIds = "class"
    annotation: str | None = None
    """JSON of what a data set's annotation file says of the image: it makes the mask, or tells its values"""

    @property
    def masked(self) -> bool:
        return self.mask is not None or self.annotation is not None


class Named(NamedTuple):
    """A Source as plain values, its paths as text: made and stamped by the thousand at a third of the cost."""

    image: str
    split: Split | None
    mask: str | None
    tags: tuple[str, ...]
    tags_complete: bool
    caption: str | None
    mask_ids: MaskIds
    annotation: str | None

    @property
    def masked(self) -> bool:
        return self.mask is not None or self.annotation is not None

    def source(self) -> Source:
        paths = {"image": Path(self.image), "mask": Path(self.mask) if self.mask else None}
        return Source(**self._asdict() | paths)


@dataclass(frozen=True)
class Row:
    """A sample's row in index.parquet. Sizes in pixels are those of the image as it is seen (EXIF applied)."""

    key: str
    shard: str
    """sha256 of the shard's tar, which is also its name"""
    image_offset: int
    image_bytes: int
    mask_offset: int | None
    mask_bytes: int | None
    sha256: str
    mask_sha256: str | None
    """of the mask's file; with `sha256` it names what a model is scored on"""
    phash: str
    width: int
    height: int
    orientation: int
    """EXIF orientation, 1 to 8, applied whenever the image is decoded"""
    split: Split
    supervision: Supervision
    tags: tuple[str, ...]
    tags_complete: bool
    """whether what no tag names is not in the image"""
    caption: str | None
    pixels: tuple[int, ...]
    """pixels of each class in the mask; empty without a mask"""
    ignored: int
    """pixels of the mask that are 255"""
    brightness: float
    """mean of the picture in grey, 0 to 255"""
    source: str
    """path of the image relative to the source folder"""


def key_of(image: bytes) -> str:
    """The sample's key: the first 16 hex digits of the image's SHA-256."""
    return hashlib.sha256(image).hexdigest()[:16]
