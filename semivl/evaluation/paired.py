"""Two models on the same images: how far the difference of their scores can be chance of the images.

What is drawn anew is the images, all classes of an image and both models together, since the two err on the same
images. Everything is computed from the pixels that are kept of every image, so no model runs again.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

DRAWS = 2000
"""resamples: a bound then wavers by a twentieth of the difference's deviation from seed to seed"""
_AT_ONCE = 1 << 22
"""weights held at once, which bounds the memory"""


class Counts(NamedTuple):
    """One model's pixels in every image and class: (M, N) intersections and (M, N) unions."""

    intersections: np.ndarray
    unions: np.ndarray


class Interval(NamedTuple):
    """A difference in points, and the bounds above and below which it lies, each with the chosen confidence."""

    difference: float
    low: float
    high: float


class ClassDifferences(NamedTuple):
    """Every class of two models, (N,) each, in points; NaN for a class that is not there."""

    challenger: np.ndarray
    champion: np.ndarray
    error: np.ndarray
    """standard error of the difference over images; infinite where one image tells all"""
    images: np.ndarray
    """images that tell of the class; fewer than hold it where a few hold most of its pixels"""
    found: np.ndarray
    """images in which the champion finds at least a pixel of it"""


def counts_of(per_image: "pa.Table") -> Counts:
    """The counts in the table that `evaluate` keeps, in the order of the samples' keys."""
    ordered = per_image.sort_by("key")
    return Counts(*(np.array(ordered[name].to_pylist(), dtype=np.float64) for name in ("intersections", "unions")))


def common_iou(challenger: Counts, champion: Counts) -> tuple[np.ndarray, np.ndarray]:
    """(..., N) IoU of each side in points, from sums over images; NaN in both where the truth lacks the class.

    A class that the truth holds is in both unions. What one model alone has is not there: it costs that model
    pixels of the classes that are, and is no class of the mean.
    """
    there = (challenger.unions > 0) & (champion.unions > 0)
    one, other = (
        np.where(there, 100 * side.intersections / np.where(there, side.unions, 1), np.nan)
        for side in (challenger, champion)
    )
    return one, other


def compared(challenger: Counts, champion: Counts) -> tuple[np.ndarray, np.ndarray]:
    """(N,) IoU of each side in points over all images, each counted once."""
    return common_iou(*(Counts(*(part.sum(0) for part in side)) for side in (challenger, champion)))


def miou_difference(challenger: Counts, champion: Counts, confidence: float, seed: int, draws: int = DRAWS) -> Interval:
    """The mIoU difference (challenger - champion), and its one-sided bounds by a paired bootstrap over images.

    The bounds are the quantiles of the resampled differences. A class that no drawn image holds is left out of both
    means. Simulated (benchmarks/gate_power.py), such a bound errs about as often as it should from 50 images on; BCa's
    errs clearly more often, misled by classes that hang on one image. The same counts and seed give the same bounds.
    """
    one, other = compared(challenger, champion)
    point = float(np.nanmean(one) - np.nanmean(other))
    parts = [_drawn(challenger, champion, weights) for weights in _weights(len(champion.unions), seed, draws)]
    values = np.concatenate(parts)
    values = values[np.isfinite(values)]  # a resample whose images hold no class tells nothing
    low, high = np.quantile(values, [1 - confidence, confidence])
    return Interval(point, float(low), float(high))


def class_differences(challenger: Counts, champion: Counts) -> ClassDifferences:
    """Every class' difference with its standard error, linearised over images (the infinitesimal jackknife).

    A class' IoU is a ratio of sums; image m moves it by (i_m - IoU * u_m) / sum(u). As many images count as would
    tell as much if all were of equal weight (Kish's effective sample size, of the champion's unions).
    """
    one, other = compared(challenger, champion)
    squares = ((_moves(challenger, one) - _moves(champion, other)) ** 2).sum(0)
    weights = champion.unions.astype(np.float64)
    images = weights.sum(0) ** 2 / np.maximum((weights**2).sum(0), 1)
    several = images > 1.0001
    error = np.where(several, np.sqrt(squares * images / np.where(several, images - 1, 1)), np.inf)
    return ClassDifferences(one, other, error, images, (champion.intersections > 0).sum(0))


def _moves(counts: Counts, iou: np.ndarray) -> np.ndarray:
    whole = np.maximum(counts.unions.sum(0), 1)
    return (100 * counts.intersections - np.nan_to_num(iou) * counts.unions) / whole


def _drawn(challenger: Counts, champion: Counts, weights: np.ndarray) -> np.ndarray:
    """(B,) mIoU difference of each row of the (B, M) weights; NaN where its images hold no class."""
    whole = weights @ np.concatenate([*challenger, *champion], axis=1)
    inside, union, others_inside, others_union = np.split(whole, 4, axis=1)
    one, other = common_iou(Counts(inside, union), Counts(others_inside, others_union))
    there = np.isfinite(one).sum(1)
    return np.where(there > 0, np.nansum(one - other, axis=1) / np.maximum(there, 1), np.nan)


def _weights(images: int, seed: int, draws: int) -> Iterator[np.ndarray]:
    """(b, M) how often each image is in each of the resamples, a part of them at a time."""
    random = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // images)
    for first in range(0, draws, step):
        rows = min(step, draws - first)
        chosen = random.integers(images, size=(rows, images)) + images * np.arange(rows)[:, None]
        yield np.bincount(chosen.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)
