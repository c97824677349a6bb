"""Mask ids: where a data set's masks hold ids of its own, they become class ids before anything looks at them.

The new PNG is what the sample keeps. The same mask gives the same bytes as long as Pillow's PNG writer stays.
"""

import io
from typing import Literal

import numpy as np

from semivl.config import IGNORE

MaskIds = Literal["class", "ade20k", "cityscapes"]
"""What a mask's values mean: class ids, or a data set's own."""

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


def class_ids(png: bytes, ids: MaskIds) -> bytes:
    """The mask as an 8-bit grey PNG of class ids; unchanged where it cannot be read, which the checks will tell."""
    from PIL import Image

    if ids == "class":
        return png
    try:
        mask = Image.open(io.BytesIO(png), formats=("PNG",))
        values = np.asarray(mask)
    except Exception:  # a decoder may raise anything on broken bytes
        return png
    if mask.mode not in ("L", "P"):
        return png
    written = io.BytesIO()
    Image.fromarray(table(ids)[values]).save(written, "PNG")
    return written.getvalue()
