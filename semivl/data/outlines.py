"""Outlines: the polygons and run lengths of COCO's stuff and instances, drawn to a map of class ids.

pycocotools draws them. It does not look at what it is given: a coordinate that is no number ends the process, and run
lengths that do not fill the image leave memory of somebody else in the mask. So everything is checked before.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from semivl.errors import DataError

_FAR = 1e9
"""no number and infinity are not nearer either"""
_BITS, _MORE, _SIGN = 0x1F, 0x20, 0x10
"""COCO's text of run lengths: five bits a character, least first, a flag that more follow, and the last one's sign"""


def drawn(told: dict[str, Any], class_of: Callable[[str], int], background: int, max_pixels: int) -> np.ndarray:
    """(H, W) uint8 class ids. Of outlines that overlap the smaller one is on top, and a later layer is on an earlier.

    Args:
        told: `{"size": [H, W], "layers": [{"names": {category id: name}, "objects": [COCO annotation]}]}`
        class_of: class id of a category's name
        background: class id of pixels that no outline covers

    Raises:
        DataError: DATA116 an outline is no polygon and no run lengths, or leaves the image.
    """
    from pycocotools import mask as coco

    height, width = told["size"]
    if not (_is_size(height) and _is_size(width) and height * width <= max_pixels):
        raise _fault(f"the size {height} x {width} is none, or has more than {max_pixels} pixels")
    ids = np.full((height, width), background, np.uint8)
    for layer in told["layers"]:
        objects = [
            (_run_lengths(o.get("segmentation"), height, width), class_of(layer["names"][str(o["category_id"])]))
            for o in layer["objects"]
        ]
        for covered, class_id in sorted(objects, key=lambda pair: -int(coco.area(pair[0]))):
            ids[coco.decode(covered).astype(bool)] = class_id
    return ids


def filled(polygon: list[float], height: int, width: int) -> np.ndarray:
    """(H, W) bool: inside a polygon of x, y, x, y, ... in pixels. Raises: DataError DATA116, it is none."""
    from pycocotools import mask as coco

    return coco.decode(_run_lengths([polygon], height, width)).astype(bool)


def _run_lengths(outline: Any, height: int, width: int) -> Any:
    """The object in pycocotools' own form."""
    from pycocotools import mask as coco

    if isinstance(outline, list) and outline:
        for polygon in outline:
            _require_polygon(polygon, height, width)
        return coco.merge(coco.frPyObjects(outline, height, width))
    if not isinstance(outline, dict) or outline.get("size") != [height, width]:
        raise _fault("an object has neither polygons nor run lengths of the image's size")
    counts: Any = outline.get("counts")
    counts = _unpacked(counts) if isinstance(counts, str) else counts
    whole = isinstance(counts, list) and all(type(n) is int and n >= 0 for n in counts)
    if not whole or sum(counts) != height * width:
        raise _fault("an object's run lengths do not fill the image")
    lengths: Any = {"size": [height, width], "counts": counts}
    return coco.frPyObjects(lengths, height, width)


def _require_polygon(polygon: Any, height: int, width: int) -> None:
    """A little beyond the border is usual; far beyond it pycocotools would need all memory."""
    numbers = isinstance(polygon, list) and all(type(v) in (int, float) and abs(v) < _FAR for v in polygon)
    if not numbers or len(polygon) < 6 or len(polygon) % 2:
        raise _fault("a polygon is not three or more pairs of numbers")
    columns, rows = polygon[::2], polygon[1::2]
    if min(columns) < -width or max(columns) > 2 * width or min(rows) < -height or max(rows) > 2 * height:
        raise _fault(f"a polygon lies far out of the image of {height} x {width}")


def _unpacked(text: str) -> list[int]:
    """The run lengths in COCO's text of them: from the third on, each is told by its difference to the last but one."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        digit = ord(character) - 48
        if not 0 <= digit < 64 or shift > 60:
            raise _fault("an object's run lengths are no text of COCO's")
        value |= (digit & _BITS) << shift
        shift += 5
        if not digit & _MORE:
            value -= (1 << shift) if digit & _SIGN else 0
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    return counts


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0


def _fault(what: str) -> DataError:
    return DataError("DATA116", f"the mask cannot be drawn: {what}.", "Mend the annotation file.")
