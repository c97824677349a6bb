"""The sliding window covers everything once or more, in both modes, and averages or adds what it sees twice."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semivl.config import EvaluationConfig
from semivl.evaluation.window import (
    answers,
    average_logits,
    photos_at_once,
    segment,
    sliding_logits,
    sliding_scores,
    starts,
    strips,
    sum_probabilities,
)


def config(**values) -> EvaluationConfig:
    return EvaluationConfig(**values)


def pointwise(images: torch.Tensor) -> torch.Tensor:
    return torch.cat([images * 3 - 1, images.mean(1, keepdim=True)], 1)


@given(length=st.integers(1, 3000), window=st.integers(16, 800), stride=st.integers(1, 800))
def test_windows_cover_the_side_and_stay_inside(length: int, window: int, stride: int) -> None:
    stride = min(stride, window)
    window = min(window, length)
    begun = starts(length, window, stride)
    assert begun[0] == 0 and begun[-1] + window == length
    assert all(0 < b - a <= stride for a, b in itertools.pairwise(begun))
    assert len(begun) == max(length - window + stride - 1, 0) // stride + 1  # the paper's count


def test_the_published_grid_of_512_and_426():
    for length in range(1, 3000):
        begun = starts(length, min(length, 512), 426)
        assert len(begun) == max(length - 512 + 425, 0) // 426 + 1
        assert begun == [min(426 * i, max(length - 512, 0)) for i in range(len(begun))]


@pytest.mark.parametrize("size", [(40, 90), (32, 32), (33, 65), (10, 100), (10, 12)])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_pointwise_model_gives_the_whole_images_logits(size: tuple[int, int], batch: int) -> None:
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    got = sliding_logits(pointwise, image, 4, config(window=32, stride=20, batch=batch))
    torch.testing.assert_close(got, pointwise(image[None])[0], rtol=0, atol=1e-6)


def test_a_pixel_gets_the_mean_of_all_windows_that_see_it() -> None:
    seen: list[int] = []

    def number_of_window(images: torch.Tensor) -> torch.Tensor:
        first = len(seen)
        seen.extend(range(first, first + len(images)))
        values = torch.arange(first, first + len(images)).float()
        return values.view(-1, 1, 1, 1).expand(-1, 2, *images.shape[2:])

    logits = average_logits(number_of_window, torch.rand(3, 16, 40), 2, config(window=16, stride=12, batch=2))
    assert seen == [0, 1, 2]  # begin at 0, 12, 24
    expected = [0.0] * 12 + [0.5] * 4 + [1.0] * 8 + [1.5] * 4 + [2.0] * 12
    assert logits[0, 5].tolist() == expected


def test_windows_have_one_size_and_come_in_batches() -> None:
    shapes = []

    def watch(images: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(images.shape))
        return images

    average_logits(watch, torch.rand(3, 100, 30), 3, config(window=48, stride=40, batch=2))
    assert shapes == [(2, 3, 48, 30), (1, 3, 48, 30)]


def test_the_short_side_is_predicted_at_and_the_answer_has_the_photos_size() -> None:
    shapes = []

    def watch(images: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(images.shape[2:]))
        return images

    logits = sliding_logits(watch, torch.rand(3, 60, 90), 3, config(short_side=32, window=512))
    assert shapes == [(32, 48)]
    assert logits.shape == (3, 60, 90)


def test_corners_keep_their_logits_when_resized() -> None:
    """align_corners True: the corner pixels lie on each other."""
    image = torch.rand(3, 32, 32)
    small = sliding_scores(pointwise, image, 4, config(short_side=16, window=16))
    large = sliding_logits(pointwise, image, 4, config(short_side=16, window=16))
    torch.testing.assert_close(large[:, [0, 0, -1, -1], [0, -1, 0, -1]], small[:, [0, 0, -1, -1], [0, -1, 0, -1]])


def test_a_stride_beyond_the_window_leaves_no_hole() -> None:
    logits = average_logits(pointwise, torch.rand(3, 64, 64), 4, config(window=16, stride=40))
    assert torch.isfinite(logits).all()


def test_probabilities_of_windows_that_overlap_are_added_and_not_divided() -> None:
    image = torch.rand(3, 40, 70, generator=torch.Generator().manual_seed(2))
    got = sum_probabilities(pointwise, image, 4, config(window=24, stride=16))
    down = torch.tensor([1 + (16 <= y < 24) + (32 <= y < 40) for y in range(40)])
    across = torch.tensor([1 + (16 <= x < 24) + (32 <= x < 40) + (48 <= x < 56) + (64 <= x < 70) for x in range(70)])
    expected = pointwise(image[None])[0].softmax(0) * (down[:, None] * across)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_cityscapes_windows_are_those_published_and_batched_by_shape() -> None:
    """1024 x 2048 with 801 and 534: begun at 0, 534 and at 0, 534, 1068, 1602; 490 and 446 pixels at the border."""
    shapes = []

    def watch(images: torch.Tensor) -> torch.Tensor:
        shapes.append((len(images), *images.shape[2:]))
        return images[:, :1]

    sum_probabilities(watch, torch.zeros(3, 1024, 2048), 1, config(window=801, stride=534, batch=4))
    assert shapes == [(3, 801, 801), (1, 801, 446), (3, 490, 801), (1, 490, 446)]


@pytest.mark.parametrize("mode", ["average_logits", "sum_probabilities"])
@pytest.mark.parametrize("size", [(40, 90), (24, 24), (10, 33)])
def test_a_pointwise_model_gives_the_whole_images_mask(mode: str, size: tuple[int, int]) -> None:
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(3))
    expected = pointwise(image[None])[0].argmax(0)
    assert torch.equal(segment(pointwise, image, 4, config(mode=mode, window=24, stride=16)).long(), expected)


@pytest.mark.parametrize("mode", ["average_logits", "sum_probabilities"])
@pytest.mark.parametrize("short_side", [None, 32])
def test_the_mask_is_the_argmax_of_the_logits(mode: str, short_side: int | None) -> None:
    image = torch.rand(3, 50, 70, generator=torch.Generator().manual_seed(1))
    chosen = config(mode=mode, short_side=short_side, window=24, stride=16)
    expected = sliding_logits(pointwise, image, 4, chosen).argmax(0)
    assert torch.equal(segment(pointwise, image, 4, chosen).long(), expected)


@pytest.mark.parametrize("mode", ["average_logits", "sum_probabilities"])
@pytest.mark.parametrize("short_side", [None, 32])
@pytest.mark.parametrize("size", [(20, 24), (50, 70)])
def test_photos_predicted_together_get_the_answers_that_each_gets_alone(
    mode: str, short_side: int | None, size: tuple[int, int]
) -> None:
    images = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(4))
    chosen = config(mode=mode, short_side=short_side, window=24, stride=16, batch=5)
    together = answers(pointwise, images, chosen)
    for image, mask, confidence in zip(images, *together, strict=True):
        alone = answers(pointwise, image[None], chosen)
        assert torch.equal(mask, alone.mask[0])
        torch.testing.assert_close(confidence, alone.confidence[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("short_side", [None, 32])
def test_confidence_is_the_probability_of_the_class(short_side: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.rand(3, 50, 70, generator=torch.Generator().manual_seed(5))
    for scores_at_once in (10**9, 2 * 50 * 70, 1):
        monkeypatch.setattr("semivl.evaluation.window.MOST_SCORES", scores_at_once)
        for mode in ("average_logits", "sum_probabilities"):
            chosen = config(mode=mode, short_side=short_side, window=24, stride=16)
            scores = sliding_logits(pointwise, image, 4, chosen)
            shares = scores.softmax(0) if mode == "average_logits" else scores / scores.sum(0)
            found = answers(pointwise, image[None], chosen)
            torch.testing.assert_close(found.confidence[0], shares.amax(0), rtol=0, atol=1e-6)
            assert torch.equal(found.mask[0].long(), scores.argmax(0))


def test_equal_scores_go_to_the_first_class() -> None:
    found = answers(lambda x: torch.zeros(len(x), 3, *x.shape[2:]), torch.rand(1, 3, 20, 20), config(window=16))
    assert not found.mask.any()
    torch.testing.assert_close(found.confidence, torch.full((1, 20, 20), 1 / 3))


@pytest.mark.parametrize("mode", ["average_logits", "sum_probabilities"])
def test_a_tall_photo_never_has_all_its_scores_at_once(mode: str) -> None:
    """The rows that are handed on, and those held open, are a few windows high however tall the photo is."""
    chosen = config(mode=mode, window=32, stride=20, batch=2)
    parts = list(strips(pointwise, torch.rand(1, 3, 2000, 40), chosen))
    assert sum(part.shape[2] for part in parts) == 2000
    assert max(part.shape[2] for part in parts) <= 2 * 32
    assert max(part.untyped_storage().nbytes() for part in parts) <= 4 * 4 * 40 * (2 * 32 + 20)


def test_photos_are_together_up_to_the_batchs_windows_and_their_pixels() -> None:
    chosen = config(window=512, stride=426, batch=4)
    assert photos_at_once((240, 320), chosen) == 4
    assert photos_at_once((512, 938), chosen) == 2
    assert photos_at_once((4000, 6000), chosen) == 1
    small = config(window=112, stride=112, short_side=112, batch=8)
    assert photos_at_once((112, 112), small) == 8
    assert photos_at_once((3000, 3000), small) == 1, "large ones, though they are predicted small"
