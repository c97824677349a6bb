"""Evaluation images that a training saw are found, whether as the same bytes or as a picture that looks the same."""

import io

import numpy as np
import pytest
from PIL import Image

from semivl.data.store import Store
from semivl.evaluation.overlap import overlap
from tests.made_shards import picture
from tests.made_snapshots import grown, sample, samples
from tests.tiny import CLASSES

MASK = (700, 800, 0)


def saved_again(image: bytes) -> bytes:
    """The same picture at another quality: other bytes."""
    file = io.BytesIO()
    Image.open(io.BytesIO(image)).save(file, "JPEG", quality=95)
    return file.getvalue()


def one_colour(shade: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((40, 50, 3), shade, np.uint8)).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize("masked", [MASK, None])
def test_the_same_and_the_alike_are_counted_apart_with_mask_or_without(store: Store, masked):
    evaluation = grown(store, "judged", CLASSES, samples())
    rows = list(evaluation.rows(split="val"))
    one, other = picture(100), picture(101)  # v000 and v001
    seen = [*samples(seed=5), sample("copy", one, mask=masked), sample("again", saved_again(other), mask=masked)]
    found = overlap(rows, grown(store, "learned", CLASSES, seen), 4)
    assert (found.exact, found.near, found.images) == (1, 1, 12)
    assert any("v001" in words and "again" in words for words in found.examples)


def test_an_image_held_out_there_too_was_not_seen(store: Store):
    evaluation = grown(store, "judged", CLASSES, samples())
    found = overlap(list(evaluation.rows(split="val")), evaluation, 4)
    assert (found.exact, found.near) == (0, 0) and found.examples == ()


def test_pictures_with_nothing_in_them_are_alike_by_their_bytes_alone(store: Store):
    evaluation = grown(store, "judged", CLASSES, [*samples(), sample("grey", one_colour(120), "val", MASK)])
    learned = grown(store, "learned", CLASSES, [*samples(seed=5), sample("other", one_colour(130))])
    assert overlap(list(evaluation.rows(split="val")), learned, 4).near == 0
