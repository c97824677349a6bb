"""Masks as pictures: a fixed colour a class, a palette PNG, a mask laid over its photo."""

import io

import numpy as np

from semivl.config import IGNORE

_IGNORED = (224, 224, 192)


def palette(classes: int) -> np.ndarray:
    """(N, 3) uint8 colours, as PASCAL VOC does: the id's bits dealt to red, green, blue, high first.

    Always the same colour for an id; all 256 differ; id 0 is black.
    """
    ids = np.arange(classes)
    colours = np.zeros((classes, 3), dtype=np.uint8)
    for bit in range(8):
        channel, place = bit % 3, bit // 3
        colours[:, channel] |= (((ids >> bit) & 1) << (7 - place)).astype(np.uint8)
    return colours


def overlay(image: np.ndarray, mask: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """(H, W, 3) uint8: the photo tinted in the colours of its classes, ignored pixels left bare."""
    colours = palette(256)[mask].astype(np.float32)
    tint = np.where(mask[..., None] == IGNORE, 0.0, opacity).astype(np.float32)
    return (image * (1 - tint) + colours * tint).round().astype(np.uint8)


def mask_png(mask: np.ndarray) -> bytes:
    """The (H, W) class ids as a palette PNG: ids kept, colours for the eye."""
    from PIL import Image

    colours = palette(256)
    colours[IGNORE] = _IGNORED
    picture = Image.fromarray(np.ascontiguousarray(mask, dtype=np.uint8), mode="P")
    picture.putpalette(colours.tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()
