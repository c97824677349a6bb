"""The evaluation as a whole: together or one by one, the same scores; and every figure is one of the photos' own."""

from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassJaccardIndex

from semivl.config import EvaluationConfig
from semivl.data.cache import ShardCache
from semivl.data.sample import Row
from semivl.data.snapshot import Snapshot
from semivl.errors import DataError
from semivl.evaluation.evaluate import count, evaluate
from semivl.evaluation.scores import per_class, read_pair
from semivl.evaluation.split import AHEAD, Pair, groups, read_ahead
from tests.evaluation.conftest import NAMES, ColourPredictor


def drawn(count: int, height: int = 40, width: int = 60) -> list[Pair]:
    """Photos of one size with masks, some pixels of which nobody labelled."""
    random = np.random.default_rng(3)
    photos = random.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    masks = random.choice(np.array([0, 1, 2, 3, 255], np.uint8), (count, height, width))
    return list(zip(photos, masks, strict=True))


@pytest.mark.parametrize("mode", ["average_logits", "sum_probabilities"])
@pytest.mark.parametrize("short_side", [None, 32])
def test_photos_counted_together_are_counted_as_one_by_one(mode: str, short_side: int | None) -> None:
    predictor: Any = ColourPredictor()
    predictor.evaluation = EvaluationConfig(mode=mode, short_side=short_side, window=32, stride=20, batch=64)  # pyright: ignore
    pairs = drawn(5)
    together, _ = count(predictor, pairs, predictor.evaluation)
    for image, pair in enumerate(pairs):
        alone, _ = count(predictor, [pair], predictor.evaluation)
        for several, one in zip(together, alone, strict=True):
            np.testing.assert_allclose(several[image], one[0], rtol=0, atol=1e-4 if one.dtype.kind == "f" else 0)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_neither_counts_nor_order_nor_torchs_setting(
    threads: int, predictor: ColourPredictor, snapshot: Snapshot, cache: ShardCache
) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        scores, per_image, matrix = evaluate(predictor, snapshot, cache)  # pyright: ignore[reportArgumentType]
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert per_image["key"].to_pylist() == sorted(row.key for row in snapshot.rows("val"))
    assert np.array(per_image["intersections"].to_pylist()).sum(0).tolist() == matrix.diagonal().tolist()
    assert scores.images == 12


def test_scores_agree_with_torchmetrics(predictor: ColourPredictor, snapshot: Snapshot, cache: ShardCache) -> None:
    scores, per_image, _ = evaluate(predictor, snapshot, cache)  # pyright: ignore[reportArgumentType]
    logits, truths = [], []
    for row in snapshot.rows("val"):
        photo, truth = read_pair(cache, row)
        image = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 255
        logits.append(predictor.logits(image)[0].flatten(1).T)
        truths.append(torch.from_numpy(truth.copy()).flatten().long())
    guess, truth = torch.cat(logits), torch.cat(truths)
    n, given = len(NAMES), {"ignore_index": 255}
    iou = MulticlassJaccardIndex(n, average=None, **given)(guess, truth)[: n - 1]
    recall = MulticlassAccuracy(n, average=None, **given)(guess, truth)[: n - 1]
    ece = MulticlassCalibrationError(n, n_bins=15, **given)(guess.softmax(1), truth)  # adds up in float32
    assert list(scores.iou.values())[: n - 1] == pytest.approx((100 * iou).tolist(), abs=1e-4)
    assert list(scores.class_accuracy.values())[: n - 1] == pytest.approx((100 * recall).tolist(), abs=1e-4)
    assert scores.class_accuracy["unicorn"] is None and scores.boundary_iou["unicorn"] is None
    assert scores.ece == pytest.approx(100 * float(ece), abs=1e-2)
    confidence = guess.softmax(1).amax(1)[truth != 255].double().mean()
    assert scores.confidence == pytest.approx(100 * float(confidence), abs=1e-4)
    assert scores.confidence == pytest.approx(
        np.average(per_image["confidence"].to_numpy(), weights=per_image["pixels"].to_numpy())
    )


def test_boundary_scores_are_the_sums_over_images(
    predictor: ColourPredictor, snapshot: Snapshot, cache: ShardCache
) -> None:
    found = evaluate(predictor, snapshot, cache)  # pyright: ignore[reportArgumentType]
    columns = ("boundary_intersections", "boundary_unions")
    both, either = (np.array(found.per_image[name].to_pylist()).sum(0) for name in columns)
    expected = 100 * both[:4] / either[:4]
    assert [found.scores.boundary_iou[name] for name in NAMES[:4]] == pytest.approx(expected.tolist())
    assert found.scores.boundary_miou == pytest.approx(expected.mean())
    assert 0 < found.scores.boundary_miou <= 100
    assert [r["iou"] for r in per_class(found).to_pylist()] == list(found.scores.iou.values())


def test_latency_is_measured_at_the_sizes_that_are_asked_for(
    predictor: ColourPredictor, snapshot: Snapshot, cache: ShardCache
) -> None:
    sizes = [(64, 48), (160, 120)]
    scores = evaluate(predictor, snapshot, cache, latency_sizes=sizes).scores  # pyright: ignore[reportArgumentType]
    assert [(one.width, one.height) for one in scores.latency] == sizes
    assert all(one.ms > 0 and one.peak_memory_mib > 1 for one in scores.latency)
    assert scores.model_bytes == ColourPredictor.model_bytes


def test_training_masks_are_scored_too(predictor: ColourPredictor, snapshot: Snapshot, cache: ShardCache) -> None:
    scores = evaluate(predictor, snapshot, cache, "train").scores  # pyright: ignore[reportArgumentType]
    assert (scores.split, scores.images) == ("train", len(snapshot.rows("train", "mask")))


def test_groups_hold_photos_of_one_size_and_every_photo_once(snapshot: Snapshot) -> None:
    rows = list(snapshot.rows("val"))
    config = EvaluationConfig(window=512, batch=3)  # pyright: ignore[reportCallIssue]
    found = groups(rows, config)
    assert sorted(r.key for group in found for r in group) == sorted(r.key for r in rows)
    assert all(len({(r.width, r.height) for r in group}) == 1 and len(group) <= 3 for group in found)


def test_few_photos_wait_decoded_and_a_fault_comes_through(snapshot: Snapshot, cache: ShardCache) -> None:
    begun: list[str] = []

    def counted(row: Row) -> Pair:
        begun.append(row.key)
        if len(begun) == 10:
            raise DataError("DATA207", "a shard is damaged.", "Delete it.")
        return read_pair(cache, row)

    one_by_one = [[row] for row in snapshot.rows("val")]
    taken = 0
    with pytest.raises(DataError, match="DATA207"):
        for taken, _ in enumerate(read_ahead(one_by_one, counted), start=1):
            assert len(begun) <= taken + AHEAD
    assert taken == 9
