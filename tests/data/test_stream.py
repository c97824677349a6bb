"""Batches by step number: exact epochs, resumed by arithmetic, on any number of ranks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semivl.config import IGNORE, TrainConfig
from semivl.data.augment import Crop, crop_image, crop_mask, draw_crop, outside
from semivl.data.stream import permutation, positions


@given(size=st.integers(1, 50), batch=st.integers(1, 7), world=st.integers(1, 4), seed=st.integers(0, 9))
def test_each_sample_comes_exactly_once_an_epoch_on_any_world_size(size, batch, world, seed):
    steps = -(-2 * size // (batch * world))
    sequence = [p for s in range(steps) for r in range(world) for p in positions(s, batch, size, seed, r, world)]
    assert sorted(sequence[:size]) == list(range(size))
    assert sorted(sequence[size : 2 * size]) == list(range(size))


@given(start=st.integers(0, 30), size=st.integers(1, 40))
def test_a_resumed_sequence_goes_on_where_it_stopped(start, size):
    unbroken = [positions(s, 3, size, 0) for s in range(start + 5)]
    assert [positions(s, 3, size, 0) for s in range(start, start + 5)] == unbroken[start:]


def test_another_world_size_takes_over_the_same_sequence():
    alone = [p for s in range(12) for p in positions(s, 4, 100, 7)]
    together = [p for s in range(6) for r in range(2) for p in positions(s, 4, 100, 7, r, 2)]
    assert alone == together


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(permutation(20, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("mirrored", [False, True])
def test_image_and_mask_are_cropped_alike_and_padding_is_marked(mirrored):
    ramp = np.tile(np.arange(40, dtype=np.uint8)[None, :] * 5, (30, 1))
    crop = Crop(height=60, width=80, top=0, left=16, side=70, mirrored=mirrored)
    image, mask = crop_image(np.repeat(ramp[..., None], 3, axis=2), crop), crop_mask(ramp, crop)
    padding = outside(crop)
    assert padding.sum() == 70 * 70 - 60 * 70 == (mask == IGNORE).sum() == 700
    assert (image[padding] == 0).all() and (mask[padding] == IGNORE).all()
    inside = image[..., 0][:60].astype(int) - mask[:60].astype(int)
    assert np.abs(inside).max() <= 5, "nearest and bilinear lie within one source pixel of each other"


def test_crops_cover_the_stated_range_of_scales():
    config = TrainConfig(crop=64, short_side=100, scale=(0.5, 2.0))
    random = np.random.default_rng(0)
    crops = [draw_crop(300, 400, config, random) for _ in range(2000)]
    shorts = np.array([c.height for c in crops])
    assert 50 <= shorts.min() < 53 and 196 < shorts.max() <= 200
    assert all(c.top + 64 <= max(c.height, 64) and c.left + 64 <= max(c.width, 64) for c in crops)
    assert abs(np.mean([c.mirrored for c in crops]) - 0.5) < 0.05
