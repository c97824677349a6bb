"""The perceptual hash is imagehash's, for pictures of any size and kind."""

import imagehash
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from semivl.data.phash import phash, shrunk

SIDES = st.one_of(st.integers(1, 40), st.integers(1, 700))


def picture(kind: str, seed: int, width: int, height: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    noise = random.integers(0, 256, (height, width), dtype=np.uint8)
    if kind == "smooth":
        small = Image.fromarray(random.integers(0, 256, (4, 4), dtype=np.uint8))
        return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
    return {"noise": noise, "black and white": (noise > 127).astype(np.uint8) * 255, "flat": noise * 0 + noise[0, 0]}[
        kind
    ]


@settings(deadline=None, max_examples=150)
@given(
    kind=st.sampled_from(["noise", "smooth", "black and white", "flat"]),
    seed=st.integers(0, 999),
    width=SIDES,
    height=SIDES,
)
@example(kind="noise", seed=0, width=64, height=96)
@example(kind="noise", seed=0, width=64, height=97)
@example(kind="noise", seed=0, width=3000, height=700)
def test_hash_is_that_of_imagehash(kind, seed, width, height):
    grey = picture(kind, seed, width, height)
    image = Image.fromarray(grey)
    np.testing.assert_array_equal(shrunk(grey), np.asarray(image.resize((32, 32), Image.Resampling.LANCZOS)))
    assert phash(grey) == str(imagehash.phash(image))


@pytest.mark.parametrize("grey", [np.zeros((50, 60), np.uint8), np.full((60, 50), 77, np.uint8)])
def test_flat_pictures_have_hashes_too(grey):
    assert phash(grey) == str(imagehash.phash(Image.fromarray(grey)))


def test_a_copy_of_rows_in_another_layout_has_the_same_hash():
    grey = picture("smooth", 1, 300, 200)
    assert phash(np.asfortranarray(grey)) == phash(grey[::-1][::-1]) == phash(grey)
