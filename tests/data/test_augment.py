"""The training crop: every way to draw its scale, and the pixels with and without a low-pass."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import ks_2samp

from benchmarks import recipe
from semivl.config import TrainConfig
from semivl.data.augment import Crop, crop_image, crop_mask, draw_crop

RECORDED = [
    Crop(height=184, width=245, top=60, left=134, side=96, mirrored=False),
    Crop(height=107, width=143, top=0, left=14, side=96, mirrored=False),
    Crop(height=65, width=87, top=0, left=0, side=96, mirrored=False),
]
RECIPE, CROPS, LEVEL = recipe.Recipe(crop=64, short_side=64), 2000, 0.001
GEOMETRY = ("scale", "left", "top", "is mirrored", "padding")
WRONG_RECIPES = [
    ("scale", replace(RECIPE, scale=(0.5, 1.8))),
    ("scale", replace(RECIPE, scale=(0.6, 2.0))),
    ("padding", replace(RECIPE, short_side=72)),
    ("is mirrored", replace(RECIPE, mirrored=0.4)),
]
WRONG_CROPS: list[tuple[str, Callable[[Crop], Crop]]] = [
    ("left", lambda crop: replace(crop, left=crop.left * 3 // 4)),
    ("top", lambda crop: replace(crop, top=crop.top * 3 // 4)),
    ("is mirrored", lambda crop: replace(crop, mirrored=False)),
]
SIZES = st.tuples(st.integers(20, 900), st.integers(20, 900))


def drawn(size: tuple[int, int], seed: int = 0, **settings) -> Crop:
    return draw_crop(*size, TrainConfig(**settings), np.random.default_rng(seed))


def test_the_default_draws_what_it_always_drew():
    """Recorded before the other ways came: a training under way goes on with the same crops."""
    config, random = TrainConfig(crop=96, short_side=128), np.random.default_rng(7)
    assert [draw_crop(240, 320, config, random) for _ in range(3)] == RECORDED


@given(size=SIZES, seed=st.integers(0, 99))
def test_without_a_short_side_the_long_side_is_a_factor_of_the_images_own(size, seed):
    crop = drawn(size, seed, short_side=None, crop=32)
    long = max(size)
    scaled = max(crop.height, crop.width)
    assert int(0.5 * long) <= scaled <= 2 * long
    assert abs(crop.height - size[0] * scaled / long) <= 0.5 and abs(crop.width - size[1] * scaled / long) <= 0.5


def test_both_ends_of_the_long_sides_range_are_drawn():
    random = np.random.default_rng(0)
    config = TrainConfig(short_side=None, crop=16)
    assert {draw_crop(6, 10, config, random).width for _ in range(500)} == set(range(5, 21))


@given(size=SIZES, seed=st.integers(0, 99))
def test_the_scaled_image_touches_its_box(size, seed):
    crop = drawn(size, seed, short_side=100, long_side=150, crop=32)
    factor = np.random.default_rng(seed).uniform(0.5, 2.0)
    short, long = int(100 * factor), int(150 * factor)
    scaled = sorted((crop.height, crop.width))
    assert scaled[0] <= short and scaled[1] <= long
    assert scaled[0] == short or scaled[1] == long


def test_the_published_box_leaves_the_short_side_alone_for_photos():
    for seed in range(20):
        box = drawn((375, 500), seed, long_side=2048)
        free = drawn((375, 500), seed)
        assert abs(box.height - free.height) <= 1 and abs(box.width - free.width) <= 2


@pytest.mark.parametrize("scaled", [(60, 90), (23, 31), (200, 333), (120, 180)])
def test_without_antialias_pixels_are_those_of_plain_bilinear_interpolation(scaled):
    """The oracle has half-pixel centres and no low-pass, as OpenCV's INTER_LINEAR has."""
    image = np.random.default_rng(0).integers(0, 256, (120, 180, 3), dtype=np.uint8)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    whole = torch.nn.functional.interpolate(planes, scaled, mode="bilinear", align_corners=False, antialias=False)
    expected = whole[0].permute(1, 2, 0).numpy()
    for top, left, mirrored in itertools.product((0, 5), (0, 9), (False, True)):
        side = 16
        got = crop_image(image, Crop(*scaled, top, left, side, mirrored, antialias=False)).astype(float)
        wanted = expected[top : top + side, left : left + side]
        assert np.abs(got - (wanted[:, ::-1] if mirrored else wanted)).max() < 1.001


def test_antialias_changes_only_images_that_shrink():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for side, most in ((80, 1.0), (10, 255.0)):
        pair = [crop_image(image, Crop(side, side, 0, 0, side, False, a)).astype(float) for a in (True, False)]
        difference = np.abs(pair[0] - pair[1]).max()
        assert difference <= most
        assert (difference > 30) == (side == 10)


def test_masks_are_sampled_not_mixed_whatever_the_antialias():
    mask = np.random.default_rng(0).choice(np.array([0, 7, 255], np.uint8), (50, 70))
    for antialias in (True, False):
        crop = crop_mask(mask, Crop(25, 35, 0, 0, 20, False, antialias))
        assert set(np.unique(crop)) <= {0, 7, 255}


def coordinates() -> np.ndarray:
    """(96, 128, 3) uint8: twice the column, twice the row, and 255, which padding is not."""
    ys, xs = np.mgrid[:96, :128]
    return np.stack([2 * xs, 2 * ys, np.full_like(xs, 255)], axis=2).astype(np.uint8)


def seen(cut: np.ndarray) -> list[float]:
    """Of a crop (64, 64, 3) of the coordinates, what GEOMETRY names."""
    inside = cut[..., 2] > 250
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    across = np.polyfit(columns, cut[rows[0], columns, 0], 1)[0]
    down = np.polyfit(rows, cut[rows, columns[0], 1], 1)[0]
    left, top = cut[rows[0], columns, 0].min() / 2, cut[rows, columns[0], 1].min() / 2
    return [2 / down, left, top, float(across < 0), float((~inside).mean())]


def our_geometry(change: Callable[[Crop], Crop] = lambda crop: crop) -> np.ndarray:
    config, random = TrainConfig(crop=64, short_side=64), np.random.default_rng(0)
    crops = (change(draw_crop(96, 128, config, random)) for _ in range(CROPS))
    return np.array([seen(crop_image(coordinates(), crop)) for crop in crops])


def their_geometry(chosen: recipe.Recipe) -> np.ndarray:
    recipe.seed(1)
    image = Image.fromarray(coordinates())
    return np.array([seen(np.asarray(chosen.weak(image))) for _ in range(CROPS)])


def told_apart(first: np.ndarray, second: np.ndarray) -> list[str]:
    """What of GEOMETRY is distributed differently."""
    pairs = zip(GEOMETRY, first.T, second.T, strict=True)
    return [name for name, one, other in pairs if ks_2samp(one, other, method="asymp").pvalue < LEVEL]


@pytest.fixture(scope="module")
def right() -> tuple[np.ndarray, np.ndarray]:
    return our_geometry(), their_geometry(RECIPE)


def test_crops_are_distributed_as_the_references(right):
    assert not told_apart(*right)


@pytest.mark.parametrize(("by", "wrong"), WRONG_RECIPES)
def test_another_recipe_for_crops_is_told_apart(right, by, wrong):
    assert by in told_apart(right[0], their_geometry(wrong))


@pytest.mark.parametrize(("by", "wrong"), WRONG_CROPS)
def test_crops_drawn_otherwise_are_told_apart(right, by, wrong):
    assert by in told_apart(our_geometry(wrong), right[1])
