"""Masks keep their ids as pictures, and ids keep their colours."""

import io

import numpy as np
from PIL import Image

from semivl.evaluation.overlay import mask_png, overlay, palette


def test_colours_are_those_of_voc_and_all_differ() -> None:
    assert palette(6).tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128]]
    assert palette(21)[20].tolist() == [0, 64, 128]
    assert len({tuple(c) for c in palette(256)}) == 256
    assert np.array_equal(palette(256)[:21], palette(21))


def test_a_mask_png_keeps_every_id() -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(mask_png(mask)))), mask)


def test_an_overlay_tints_classes_and_leaves_ignored_pixels_bare() -> None:
    photo = np.full((1, 3, 3), 100, np.uint8)
    tinted = overlay(photo, np.array([[0, 1, 255]], np.uint8), opacity=0.5)
    assert tinted.tolist() == [[[50, 50, 50], [114, 50, 50], [100, 100, 100]]]
