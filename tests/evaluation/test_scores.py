"""Scores are what a plain count of pixels gives."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassJaccardIndex

from semivl.data.cache import ShardCache
from semivl.data.snapshot import Snapshot
from semivl.errors import RegistryError
from semivl.evaluation.evaluate import evaluate
from semivl.evaluation.scores import confusion, iou_points, mean_iou, predicted_mask, read_pair, split_digest
from tests.evaluation.conftest import NAMES, ColourPredictor, classes_of


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 255), pixels=st.integers(0, 200))
def test_confusion_is_the_brute_force_count(seed: int, classes: int, pixels: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, pixels).astype(np.uint8)
    truth[random.random(pixels) < 0.2] = 255
    guess = random.integers(0, classes, pixels).astype(np.uint8)
    expected = np.zeros((classes, classes), int)
    for t, p in zip(truth.tolist(), guess.tolist(), strict=True):
        if t != 255:
            expected[t, p] += 1
    assert np.array_equal(confusion(torch.from_numpy(truth), torch.from_numpy(guess), classes).numpy(), expected)


def test_iou_agrees_with_torchmetrics() -> None:
    random = torch.Generator().manual_seed(3)
    truth = torch.randint(0, 6, (4, 50, 50), generator=random, dtype=torch.uint8)
    guess = torch.where(torch.rand(truth.shape, generator=random) < 0.6, truth, truth.roll(1)).clamp(max=5)
    truth[torch.rand(truth.shape, generator=random) < 0.1] = 255
    theirs = MulticlassJaccardIndex(6, average=None, ignore_index=255)(guess, truth.long())
    ours = iou_points(confusion(truth, guess, 6).numpy())
    np.testing.assert_allclose(ours, 100 * theirs.numpy(), rtol=1e-5)


def test_a_class_that_nobody_holds_is_left_out_and_one_that_is_only_predicted_counts() -> None:
    matrix = np.array([[6, 0, 2], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(iou_points(matrix), [75.0, np.nan, 0.0])
    assert mean_iou(matrix) == 37.5
    assert mean_iou(np.zeros((3, 3), int)) is None


def test_evaluation_is_the_count_over_all_images(
    predictor: ColourPredictor, snapshot: Snapshot, cache: ShardCache
) -> None:
    seen: list[tuple[int, int]] = []
    scores, per_image, matrix = evaluate(predictor, snapshot, cache, progress=lambda *n: seen.append(n))  # pyright: ignore[reportArgumentType]
    both = np.zeros((2, len(NAMES)), int)
    for row in snapshot.rows(split="val"):
        photo, truth = read_pair(cache, row)
        guess = np.array([[0.5, *(c / 255), -1.0] for c in photo.reshape(-1, 3)]).argmax(1).reshape(truth.shape)
        for c in range(len(NAMES)):
            t, p = (truth == c), (guess == c) & (truth != 255)
            both[:, c] += (t & p).sum(), (t | p).sum()
    expected = [100 * i / u if u else None for i, u in both.T]
    assert list(scores.iou) == list(NAMES)
    assert list(scores.iou.values()) == pytest.approx(expected)
    assert scores.absent == ("unicorn",)
    assert scores.miou == pytest.approx(np.mean([v for v in expected if v is not None]))
    assert np.array(per_image["intersections"].to_pylist()).sum(0).tolist() == both[0].tolist()
    assert np.array(per_image["unions"].to_pylist()).sum(0).tolist() == both[1].tolist()
    assert scores.images == per_image.num_rows == 12 and scores.pixels == matrix.sum()
    assert scores.accuracy == pytest.approx(100 * matrix.trace() / matrix.sum())
    assert seen == [(n, 12) for n in range(1, 13)]


def test_the_first_images_count_again_until_their_number_divides(snapshot: Snapshot, cache: ShardCache) -> None:
    def counted(multiple: int) -> np.ndarray:
        predictor = ColourPredictor()
        predictor.evaluation = predictor.evaluation.model_copy(update={"repeat_to_multiple_of": multiple})
        return evaluate(predictor, snapshot, cache).confusion  # pyright: ignore[reportArgumentType]

    once = counted(1)
    assert np.array_equal(counted(4), once), "twelve images divide by four"
    assert np.array_equal(counted(24), 2 * once)
    first = sorted(snapshot.rows(split="val"), key=lambda row: row.source)[:3]
    truths = [read_pair(cache, row)[1] for row in first]
    added = np.bincount(np.concatenate([t[t != 255] for t in truths]), minlength=len(NAMES))
    assert np.array_equal((counted(5) - once).sum(1), added), "fifteen: the first three twice"


def test_the_digest_stands_for_the_images_and_the_classes(snapshot: Snapshot) -> None:
    other = snapshot.manifest.model_copy(update={"classes": classes_of("a", "b", "c", "d", "e")})
    assert split_digest(snapshot) == split_digest(snapshot)
    assert split_digest(snapshot) != split_digest(Snapshot(other, snapshot.index))
    assert split_digest(snapshot) != split_digest(Snapshot(snapshot.manifest, snapshot.index.slice(0, 9)))


def test_a_model_of_other_classes_is_refused(snapshot: Snapshot, cache: ShardCache) -> None:
    model = ColourPredictor()
    model.classes = classes_of("cat", "dog")
    with pytest.raises(RegistryError, match=r"REG002.*cat, dog.*unicorn"):
        evaluate(model, snapshot, cache)  # pyright: ignore[reportArgumentType]


def test_a_split_without_masks_is_refused(predictor: ColourPredictor, snapshot: Snapshot, cache: ShardCache) -> None:
    empty = Snapshot(snapshot.manifest, snapshot.index.slice(0, 0))
    with pytest.raises(RegistryError, match="REG003"):
        evaluate(predictor, empty, cache)  # pyright: ignore[reportArgumentType]


def test_a_photo_is_masked_at_its_own_size(predictor: ColourPredictor) -> None:
    photo = np.zeros((41, 67, 3), np.uint8)
    photo[:, 30:, 1] = 255
    mask = predicted_mask(predictor, photo)  # pyright: ignore[reportArgumentType]
    assert mask.dtype == np.uint8 and mask.shape == (41, 67)
    assert (mask[:, :30] == 0).all() and (mask[:, 30:] == 2).all()
