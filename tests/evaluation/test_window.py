"""The sliding window covers everything once or more, and averages what it sees twice."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semivl.config import EvaluationConfig
from semivl.evaluation.window import average_logits, segment, sliding_logits, starts


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
    small = average_logits(pointwise, image, 4, config(short_side=16, window=16))
    large = sliding_logits(pointwise, image, 4, config(short_side=16, window=16))
    torch.testing.assert_close(large[:, [0, 0, -1, -1], [0, -1, 0, -1]], small[:, [0, 0, -1, -1], [0, -1, 0, -1]])


def test_a_stride_beyond_the_window_leaves_no_hole() -> None:
    logits = average_logits(pointwise, torch.rand(3, 64, 64), 4, config(window=16, stride=40))
    assert torch.isfinite(logits).all()


def test_the_mask_is_the_argmax_of_the_logits() -> None:
    image = torch.rand(3, 50, 70, generator=torch.Generator().manual_seed(1))
    chosen = config(short_side=32, window=24, stride=16)
    expected = sliding_logits(pointwise, image, 4, chosen).argmax(0)
    assert torch.equal(segment(pointwise, image, 4, chosen).long(), expected)
