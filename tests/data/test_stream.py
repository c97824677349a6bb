"""Batches by step number: exact epochs, resumed by arithmetic, on any number of ranks."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from semivl.config import IGNORE, TrainConfig
from semivl.data import snapshot
from semivl.data.augment import Crop, crop_image, crop_mask, draw_crop, outside
from semivl.data.cache import ShardCache
from semivl.data.ingest import ingest
from semivl.data.stream import LabelMaps, Steps, Unlabelled, permutation, positions
from semivl.errors import DataError

SMALL = TrainConfig(batch=2, crop=16, short_side=32, scale=(1.0, 2.0))  # pyright: ignore[reportCallIssue]


@pytest.fixture
def prepared(config, classes, store, tmp_path):
    """A cache, the labelled and the unlabelled training rows of an ingested source."""
    ingest(config, classes)
    rows = snapshot.read(store, config.dataset).rows(split="train")
    labelled = [r for r in rows if r.supervision == "mask"]
    return ShardCache(store, config.dataset, tmp_path / "cache"), labelled, [r for r in rows if r not in labelled]


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


def test_label_maps_are_cut_as_their_images_are_and_a_missing_one_is_unsure(prepared, tmp_path):
    cache, labelled, unlabelled = prepared
    for row in unlabelled[1:]:
        width = np.arange(row.width, dtype=np.uint8) % 250
        Image.fromarray(np.tile(width, (row.height, 1))).save(tmp_path / f"{row.key}.png")
    steps = Steps(cache, labelled, unlabelled, SMALL, True, LabelMaps(tmp_path, 250))
    seen = [view for s in range(len(unlabelled)) for view in (steps[s].unlabelled, steps[s].partner)]
    hints = torch.cat([view.hints for view in seen])
    assert hints.shape == torch.cat([view.images for view in seen])[:, 0].shape
    assert any((hint == IGNORE).all() for hint in hints) and any((hint != IGNORE).all() for hint in hints)
    plain = Steps(cache, labelled, unlabelled, SMALL)[0]
    assert plain.unlabelled.hints is None
    assert torch.equal(plain.unlabelled.images, steps[0].unlabelled.images)


def test_a_label_map_of_another_size_is_named(prepared, tmp_path):
    cache, labelled, unlabelled = prepared
    for row in unlabelled:
        Image.fromarray(np.zeros((3, 4), np.uint8)).save(tmp_path / f"{row.key}.png")
    with pytest.raises(DataError, match=r"DATA120.*is 4 x 3"):
        Steps(cache, labelled, unlabelled, SMALL, True, LabelMaps(tmp_path, 250))[0]


def test_a_label_map_of_other_classes_is_named(prepared, tmp_path):
    cache, labelled, unlabelled = prepared
    for row in unlabelled:
        Image.fromarray(np.full((row.height, row.width), 3, np.uint8)).save(tmp_path / f"{row.key}.png")
    with pytest.raises(DataError, match=r"DATA120.*beyond the 3 classes"):
        Steps(cache, labelled, unlabelled, SMALL, True, LabelMaps(tmp_path, 3))[0]


def test_without_a_partner_only_one_view_is_made(prepared):
    cache, labelled, unlabelled = prepared
    with_partner, without = (Steps(cache, labelled, unlabelled, SMALL, p)[3] for p in (True, False))
    assert without.partner is None
    assert torch.equal(with_partner.unlabelled.images, without.unlabelled.images)


def test_a_reversed_batch_keeps_images_padding_and_hints_together():
    images = torch.arange(3)[:, None, None, None].expand(3, 3, 2, 2).to(torch.uint8)
    ignored = torch.zeros(3, 2, 2, dtype=torch.bool)
    ignored[0] = True
    back = Unlabelled(images, ignored, images[:, 0].long()).reversed()
    assert back.images[0, 0, 0, 0] == 2 and back.ignored[2].all() and torch.equal(back.hints, back.images[:, 0].long())
    assert Unlabelled(images, ignored).reversed().hints is None
