"""Calibration: whether a model that says 80 % is right 80 % of the time.

A pixel's confidence is the probability of the class that it is given. Labelled pixels are sorted by it into BINS equal
bins. The expected calibration error (Naeini et al., AAAI 2015) is the mean distance between a bin's confidence and its
accuracy, each bin weighed by its pixels.
"""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from semivl.config import IGNORE, Record

BINS = 15


class Bin(Record):
    """The labelled pixels whose confidence is from `low` up to below `high`; the last bin holds 1 too."""

    low: float
    high: float
    pixels: int
    confidence: float
    """mean, in points; 0 without a pixel"""
    accuracy: float
    """in points; 0 without a pixel"""


class Tallies(NamedTuple):
    """Of the labelled pixels of each bin, (B, BINS) each."""

    pixels: Tensor
    """int64"""
    right: Tensor
    """int64"""
    confidence: Tensor
    """float64: the sum"""


def tallies(truth: Tensor, prediction: Tensor, confidence: Tensor) -> Tallies:
    """What calibration is made of, for each of B maps.

    Args:
        truth, prediction: (B, H, W) uint8 class ids.
        confidence: (B, H, W) float32 probability of the predicted class.
    """
    maps, places = len(truth), 2 * BINS + 1
    code = 2 * (confidence * BINS).to(torch.int32).clamp(0, BINS - 1) + (truth == prediction)
    code = code.where(truth != IGNORE, 2 * BINS)  # a place of their own for the ignored, which nobody reads
    code += places * torch.arange(maps, dtype=torch.int32, device=code.device)[:, None, None]
    code = code.flatten()
    counted = torch.bincount(code, minlength=maps * places).view(maps, places)[:, :-1].unflatten(1, (BINS, 2))
    summed = torch.bincount(code, confidence.flatten().double(), minlength=maps * places).view(maps, places)
    return Tallies(counted.sum(2), counted[..., 1], summed[:, :-1].unflatten(1, (BINS, 2)).sum(2))


def reliability(pixels: np.ndarray, right: np.ndarray, confidence: np.ndarray) -> tuple[Bin, ...]:
    """The bins of a split's summed tallies, (BINS,) each."""
    some = np.maximum(pixels, 1)
    return tuple(
        Bin(
            low=i / BINS,
            high=(i + 1) / BINS,
            pixels=int(pixels[i]),
            confidence=float(100 * confidence[i] / some[i]),
            accuracy=float(100 * right[i] / some[i]),
        )
        for i in range(BINS)
    )


def expected_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error in points."""
    pixels = sum(b.pixels for b in bins)
    return sum(b.pixels * abs(b.accuracy - b.confidence) for b in bins) / max(pixels, 1)


def reliability_plot(bins: Sequence[Bin]) -> bytes:
    """A PNG: accuracy against confidence in every bin that has pixels, the diagonal of a perfect model, their share."""
    from matplotlib.figure import Figure

    shown = [b for b in bins if b.pixels]
    width = 100 / len(bins)
    figure = Figure(figsize=(5, 5.6), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    above.bar([100 * b.low for b in shown], [b.accuracy for b in shown], width, align="edge", color="#86a8ff")
    above.plot([0, 100], [0, 100], color="#5b6472", linestyle="--", label="right as often as it says")
    above.plot([b.confidence for b in shown], [b.accuracy for b in shown], "o-", color="#2457d6", label="this model")
    above.set(ylabel="right, %", ylim=(0, 100), title=f"expected calibration error {expected_error(bins):.1f} points")
    above.legend(loc="upper left")
    whole = max(sum(b.pixels for b in bins), 1)
    below.bar(
        [100 * b.low for b in shown], [100 * b.pixels / whole for b in shown], width, align="edge", color="#5b6472"
    )
    below.set(xlabel="confidence, %", ylabel="pixels, %", xlim=(0, 100))
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()
