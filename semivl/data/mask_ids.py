"""Mask ids: where a data set's masks hold something else than class ids, they become class ids before anything looks
at them: ids of its own, colours, panoptic segments, or outlines in a JSON without any PNG.

The new PNG is what the sample keeps. The same mask gives the same bytes as long as Pillow's PNG writer stays.
Categories become classes by their names; `Source.annotation` tells the names, so that an image needs no other file.
"""

import io
import json
from typing import Any, Literal

import numpy as np

from semivl.config import IGNORE, Classes
from semivl.errors import DataError

MaskIds = Literal["class", "ade20k", "cityscapes", "colours", "panoptic", "outlines"]
"""What a mask's values mean: class ids, a data set's own ids, or what `Source.annotation` says."""
Other = Literal["ignore", "background"]
"""What pixels become whose category is no class."""

BACKGROUND = "background"
_CITYSCAPES = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9,
    23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18,
}  # fmt: skip
"""id -> trainId of the 19 classes that Cityscapes scores"""
_CITYSCAPES_LAST = 33


def table(ids: MaskIds) -> np.ndarray:
    """(256,) uint8, the class id of every value. Values that the data set does not know stay outside its classes."""
    values = np.arange(256, dtype=np.uint8)
    if ids == "ade20k":  # 0 is "other": nobody labelled it
        return np.where((values == 0) | (values == IGNORE), IGNORE, values - 1).astype(np.uint8)
    if ids == "cityscapes":
        values[: _CITYSCAPES_LAST + 1] = IGNORE
        values[list(_CITYSCAPES)] = list(_CITYSCAPES.values())
    return values


def class_ids(
    png: bytes | None,
    ids: MaskIds,
    annotation: str | None = None,
    classes: Classes | None = None,
    max_pixels: int = 64_000_000,
) -> bytes:
    """The mask as an 8-bit grey PNG of class ids; unchanged where it cannot be read, which the checks will tell.

    Args:
        png: the mask's file; None where the annotation alone makes the mask
        annotation: JSON of the layout: `{"ignore": [value]}` for ids, `{"other": Other}` and, for colours,
            `{"colours": [[red, green, blue, name]]}`, for panoptic `{"names": {category: name}, "segments":
            [[segment id, category]]}`, for outlines what `semivl.data.outlines` draws
        classes: the class map, which names are looked up in; not for ids
        max_pixels: larger masks are not decoded

    Raises:
        DataError: DATA115 the class map has no background; DATA116 an outline that cannot be drawn; DATA117 a colour
            or segment that the data set does not name.
    """
    told = json.loads(annotation) if annotation else {}
    if ids == "outlines":
        from semivl.data.outlines import drawn

        assert classes
        return _written(
            drawn(told, lambda name: class_of(name, told["other"], classes), background(classes), max_pixels)
        )
    assert png is not None
    if ids == "class" and not told:
        return png
    values = _decoded(png, max_pixels, coloured=ids in ("colours", "panoptic"))
    if values is None:
        return png
    if values.ndim == 2:
        found = table(ids)
        found[told.get("ignore", [])] = IGNORE
        return _written(found[values])
    assert classes
    return _written(_looked_up(values, _known(ids, told, classes)))


def class_of(name: str, other: Other, classes: Classes) -> int:
    """The class id of a category's name; where it is no class, the id of `other`."""
    if name in classes.names:
        return classes.names.index(name)
    if other == "ignore":
        return IGNORE
    if BACKGROUND not in classes.names:
        raise DataError(
            "DATA115",
            f"{name} is no class and shall be background, and there is no class of the name {BACKGROUND}.",
            "Set `data.other_categories: ignore`, or name a class so.",
        )
    return classes.names.index(BACKGROUND)


def background(classes: Classes) -> int:
    """The id of pixels that no outline covers: background where the class map has it, else nobody labelled them."""
    return classes.names.index(BACKGROUND) if BACKGROUND in classes.names else IGNORE


def _known(ids: MaskIds, told: dict[str, Any], classes: Classes) -> dict[int, int]:
    """The class id of every colour, read as a number with red as its lowest byte."""
    if ids == "colours":
        return {r | g << 8 | b << 16: class_of(name, told["other"], classes) for r, g, b, name in told["colours"]}
    names = told["names"]
    segments = {s: class_of(names[str(category)], told["other"], classes) for s, category in told["segments"]}
    return {0: IGNORE} | segments  # COCO writes 0 where there is no segment


def _looked_up(colours: np.ndarray, known: dict[int, int]) -> np.ndarray:
    """(H, W) uint8 class ids of (H, W, 3) uint8 colours. DATA117 for one that is not known."""
    numbers = colours.astype(np.uint32) @ np.array([1, 1 << 8, 1 << 16], np.uint32)
    sorted_known = np.array(sorted(known), np.uint32)
    places = np.searchsorted(sorted_known, numbers).clip(max=len(known) - 1)
    strange = numbers[sorted_known[places] != numbers]
    if strange.size:
        number = int(strange[0])
        rgb = (number & 255, number >> 8 & 255, number >> 16)
        raise DataError(
            "DATA117",
            f"{strange.size} pixels have a colour that stands for nothing, the first {rgb} (segment {number}).",
            "Add it to the data set's colours or segments; save colours without loss or smoothing.",
        )
    return np.array([known[int(n)] for n in sorted_known], np.uint8)[places]


def _decoded(png: bytes, max_pixels: int, *, coloured: bool) -> np.ndarray | None:
    """(H, W) uint8 values, or (H, W, 3) uint8 where colours are wanted; None for what is no such mask."""
    from PIL import Image

    try:
        mask = Image.open(io.BytesIO(png), formats=("PNG",))
        if mask.width * mask.height > max_pixels:
            return None
        if coloured:
            return np.asarray(mask.convert("RGB")) if mask.mode in ("RGB", "RGBA", "P") else None
        return np.asarray(mask) if mask.mode in ("L", "P") else None
    except Exception:  # a decoder may raise anything on broken bytes
        return None


def _written(values: np.ndarray) -> bytes:
    from PIL import Image

    written = io.BytesIO()
    Image.fromarray(values).save(written, "PNG")
    return written.getvalue()
