"""Batches by step number: exact epochs, resumed by arithmetic, on any number of ranks."""

import pickle
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from semivl.config import IGNORE, ClassDefinition, Classes, TrainConfig
from semivl.data.augment import Crop, crop_image, crop_mask, draw_crop, outside
from semivl.data.cache import ShardCache, read_sample
from semivl.data.decode import decode_image, decode_mask
from semivl.data.stream import Batches, LabelMaps, Steps, Unlabelled, batches, permutation, positions, share
from semivl.data.tags import TagReader
from semivl.errors import DataError
from tests.made_shards import mask, picture, put_shards

SMALL = TrainConfig(batch=2, crop=16, short_side=32, scale=(1.0, 2.0))  # pyright: ignore[reportCallIssue]
FOUR = SMALL.model_copy(update={"batch": 4})
RECORDED = {
    6: [[2, 5, 4, 1], [3, 0, 1, 2], [0, 4, 5, 3]],
    20_000: [[11608, 4641, 11239, 2027], [9473, 2650, 3182, 7457], [10163, 1856, 2851, 827]],
}
TAGGED = Classes(classes=(ClassDefinition(name="cat"), ClassDefinition(name="dog")))
SIZES = ((48, 32), (30, 45), (64, 64))


@pytest.fixture
def prepared(store, tmp_path):
    """A cache, 4 labelled and 6 unlabelled rows."""
    samples = [(picture(i, *SIZES[i % 3]), mask(i, *SIZES[i % 3]) if i < 4 else None) for i in range(10)]
    rows = put_shards(store, "seen", samples, 3)
    return ShardCache(store, "seen", tmp_path / "cache"), rows[:4], rows[4:]


def own(step: int, batch: int, size: int, seed: int, rank: int, world: int) -> list[int]:
    return positions(step, batch, size, seed)[share(batch, rank, world)]


@given(st.data())
def test_each_sample_comes_once_an_epoch_whatever_stops_and_on_whatever_ranks_it_goes_on(data):
    """Trainings killed at any step, each time taken up by another number of ranks."""
    size, seed = data.draw(st.integers(1, 60), "size"), data.draw(st.integers(0, 9), "seed")
    batch = data.draw(st.sampled_from([1, 2, 3, 4, 6, 12]), "batch")
    divisors = [w for w in range(1, batch + 1) if batch % w == 0]
    steps, seen, step = -(-2 * size // batch), [], 0
    while step < steps:
        world = data.draw(st.sampled_from(divisors), "world")
        stop = data.draw(st.integers(step + 1, steps), "killed at")
        parts = [[own(s, batch, size, seed, rank, world) for rank in range(world)] for s in range(step, stop)]
        assert len({len(part) for of_step in parts for part in of_step}) == 1, "ranks take equal parts"
        seen += [place for of_step in parts for part in of_step for place in part]
        step = stop
    assert sorted(seen[:size]) == list(range(size))
    assert sorted(seen[size : 2 * size]) == list(range(size))


def test_the_sequence_is_the_one_it_always_was():
    """Recorded before batches were shared out: a training under way goes on with the same samples."""
    for size, recorded in RECORDED.items():
        assert [positions(step, 4, size, 3) for step in range(3)] == recorded


def test_ranks_that_cannot_share_a_batch_are_told(prepared):
    with pytest.raises(DataError, match=r"DATA230.*batch is 4, which 3 ranks") as raised:
        Steps(*prepared, FOUR, rank=0, world=3)
    assert "set it to 3" in raised.value.remedy


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_get_the_slices_of_what_one_rank_gets(prepared, tmp_path, world):
    for row in prepared[2]:
        Image.fromarray(np.tile(np.arange(row.width, dtype=np.uint8), (row.height, 1))).save(
            tmp_path / f"{row.key}.png"
        )
    told = [replace(row, caption=f"photo {number}") for number, row in enumerate(prepared[2])]
    options: Any = {
        "maps": LabelMaps(tmp_path, 250), "captioned": told, "image_maps": tmp_path, "tags": TagReader(TAGGED)
    }  # fmt: skip
    alone = Steps(*prepared, FOUR, **options)
    ranks = [Steps(*prepared, FOUR, **options, rank=r, world=world) for r in range(world)]
    for step in (0, 1, 5):
        whole, parts = tensors(alone[step]), [tensors(rank[step]) for rank in ranks]
        assert len(whole) == 14
        for name, tensor in whole.items():
            assert torch.equal(tensor, torch.cat([part[name] for part in parts])), name
        # a step draws of the captions for all ranks
        assert all(rank[step].captioned.captions == alone[step].captioned.captions for rank in ranks)
        assert {s for rank in ranks for s in rank.shards(step)} == set(alone.shards(step))


def tensors(batch: Batches) -> dict[str, torch.Tensor]:
    """Every tensor of a batch by name."""
    parts = {part.name: getattr(batch, part.name) for part in fields(batch) if getattr(batch, part.name)}
    held = {f"{name}.{key}": value for name, part in parts.items() for key, value in vars(part).items()}
    return {name: value for name, value in held.items() if isinstance(value, torch.Tensor)}


def test_captions_and_maps_are_of_the_crops_own_image(prepared, tmp_path):
    cache, _, unlabelled = prepared
    told = [replace(row, caption=f"photo {number}") for number, row in enumerate(unlabelled)]
    for number, row in enumerate(unlabelled):
        Image.fromarray(np.full((row.height, row.width), number, np.uint8)).save(tmp_path / f"{row.key}.png")
    steps = Steps(cache, [], [], FOUR, captioned=told, image_maps=tmp_path)
    for step in range(3):
        batch = steps[step]
        assert (batch.labelled, batch.unlabelled, batch.partner) == (None, None, None)
        got = batch.captioned
        for caption, map_, ignored in zip(got.captions, got.maps, got.ignored, strict=True):
            assert torch.equal(map_ == 255, ignored)
            assert set(map_[~ignored].tolist()) == {int(caption.removeprefix("photo "))}
    assert {shard for step in range(2) for shard in steps.shards(step)} == {row.shard for row in unlabelled}


def test_crops_are_those_that_the_decoded_pictures_always_drew(prepared):
    """The way it was before the index told the sizes: one crop drawn after each picture was decoded."""
    cache, labelled, unlabelled = prepared
    for step in (0, 3):
        got = Steps(cache, labelled, unlabelled, FOUR)[step]
        images = (got.labelled.images, got.unlabelled.images, got.partner.images)
        for view, rows in enumerate((labelled, unlabelled, unlabelled)):
            random = np.random.default_rng((FOUR.seed, step, view))
            for place, number in enumerate(positions(step, 4, len(rows), FOUR.seed)):
                data, ids = read_sample(cache, rows[number])
                pixels = decode_image(data)
                crop = draw_crop(*pixels.shape[:2], FOUR, random)
                assert np.array_equal(images[view][place].permute(1, 2, 0).numpy(), crop_image(pixels, crop))
                if ids:
                    cut = crop_mask(decode_mask(ids), crop).astype(np.int64)
                    assert np.array_equal(got.labelled.masks[place].numpy(), cut)


def test_a_step_has_as_many_labelled_as_unlabelled_samples_whatever_their_numbers(prepared):
    cache, labelled, unlabelled = prepared
    steps = Steps(cache, labelled[:1], unlabelled, FOUR)
    for step in range(4):
        batch = steps[step]
        assert len(batch.labelled.images) == len(batch.unlabelled.images) == len(batch.partner.images) == 4
    assert steps.steps_an_epoch == 2
    assert Steps(cache, labelled, [], FOUR)[0].unlabelled is None


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_steps_and_their_shards_are_fetched(prepared, workers):
    cache, labelled, unlabelled = prepared
    steps = Steps(cache, labelled, unlabelled, SMALL)
    got = list(batches(steps, 2, 6, workers))
    expected = [tensors(steps[s]) for s in range(2, 6)]
    assert len(got) == 4
    for batch, one in zip(got, expected, strict=True):
        assert all(torch.equal(tensor, one[name]) for name, tensor in tensors(batch).items() if tensor is not None)
    assert {p.stem for p in cache.folder.glob("*.tar")} == {r.shard for r in labelled + unlabelled}


def test_the_order_of_a_million_is_drawn_once_however_often_a_few_others_come_round():
    kept = permutation(1_000_000, 0, 0)
    for step in range(50):
        positions(step, 64, 5, 0)
        assert positions(step, 64, 1_000_000, 0) == kept[step * 64 :][:64].tolist()
    assert permutation(1_000_000, 0, 0) is kept


def test_worker_processes_get_little_with_the_steps():
    million = Steps(None, range(10), range(1_000_000), SMALL)  # pyright: ignore[reportArgumentType]
    positions(3, 2, 1_000_000, SMALL.seed)
    assert len(pickle.dumps(million)) < 2000


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
