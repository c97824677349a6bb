"""The expected calibration error is torchmetrics', and a count by hand."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.classification import MulticlassCalibrationError

from semivl.evaluation.calibration import BINS, Bin, expected_error, reliability, reliability_plot, tallies


def bins_of(truth: torch.Tensor, probabilities: torch.Tensor) -> tuple[Bin, ...]:
    """Of maps (B, H, W) and probabilities (B, N, H, W)."""
    confidence, prediction = probabilities.max(1)
    found = tallies(truth, prediction.byte(), confidence)
    return reliability(*(part.sum(0).numpy() for part in found))


def drawn(sharpness: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    probabilities = (sharpness * torch.randn(3, 6, 20, 30, generator=random)).softmax(1)
    truth = torch.where(torch.rand(3, 20, 30, generator=random) < 0.6, probabilities.argmax(1), 2).byte()
    truth[torch.rand(truth.shape, generator=random) < 0.2] = 255
    return truth, probabilities


@pytest.mark.parametrize("sharpness", [0.5, 3.0])
def test_error_agrees_with_torchmetrics(sharpness: float) -> None:
    truth, probabilities = drawn(sharpness)
    theirs = MulticlassCalibrationError(6, n_bins=BINS, norm="l1", ignore_index=255)(probabilities, truth.long())
    assert expected_error(bins_of(truth, probabilities)) == pytest.approx(100 * float(theirs), abs=1e-4)


def test_bins_are_a_count_by_hand() -> None:
    truth, probabilities = drawn()
    bins = bins_of(truth, probabilities)
    sums = np.zeros((BINS, 3))
    confidence, prediction = (part.flatten().tolist() for part in probabilities.max(1))
    for t, p, c in zip(truth.flatten().tolist(), prediction, confidence, strict=True):
        if t != 255:
            sums[min(int(c * BINS), BINS - 1)] += (1, t == p, c)
    assert [b.pixels for b in bins] == sums[:, 0].tolist()
    for found, (pixels, right, summed) in zip(bins, sums, strict=True):
        assert found.accuracy == pytest.approx(100 * right / max(pixels, 1))
        assert found.confidence == pytest.approx(100 * summed / max(pixels, 1), abs=1e-4)
    gaps = np.abs(sums[:, 1] - sums[:, 2]).sum() / sums[:, 0].sum()
    assert expected_error(bins) == pytest.approx(100 * gaps, abs=1e-4)


def test_full_confidence_is_in_the_last_bin() -> None:
    one = torch.ones(1, 2, 2)
    found = tallies(torch.tensor([[[0, 1], [0, 255]]], dtype=torch.uint8), torch.zeros(1, 2, 2, dtype=torch.uint8), one)
    assert found.pixels[0, -1] == 3 and found.right[0, -1] == 2 and found.confidence[0, -1] == 3.0
    assert found.pixels.sum() == 3


def test_the_plot_is_a_picture_also_where_bins_are_empty() -> None:
    bins = reliability(*(np.array([0] * (BINS - 1) + [n]) for n in (10, 7, 9.5)))
    assert Image.open(io.BytesIO(reliability_plot(bins))).size[0] > 300
