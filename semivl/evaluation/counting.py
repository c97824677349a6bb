"""Pixels counted by what they are and what they were taken for: the counts that every score is made of.

A photo's counts are taken on the device that predicted it; those of photos add up to the split's.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from semivl.config import IGNORE


def confusions(truth: Tensor, prediction: Tensor, classes: int) -> Tensor:
    """(B, N, N) int64 pixels of each of B maps by truth (row) and prediction (column); truth 255 does not count.

    Args:
        truth, prediction: (B, ...) class ids.
    """
    maps = len(truth)
    # Counting the ignored pixels too, in rows of their own, takes a tenth of the time that picking the others out does.
    whole = (IGNORE + 1) * classes
    code = truth.flatten(1).to(torch.int32) * classes + prediction.flatten(1)
    code += whole * torch.arange(maps, dtype=torch.int32, device=code.device)[:, None]
    counted = torch.bincount(code.flatten(), minlength=maps * whole).view(maps, whole)
    return counted[:, : classes * classes].unflatten(1, (classes, classes))


def confusion(truth: Tensor, prediction: Tensor, classes: int) -> Tensor:
    """(N, N) int64 pixels of a map, or of all maps together; see `confusions`."""
    return confusions(truth[None], prediction[None], classes)[0]


def counts(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union of every class, (..., N) each, in pixels, of (..., N, N)."""
    intersections = matrix.diagonal(axis1=-2, axis2=-1)
    return intersections, matrix.sum(-2) + matrix.sum(-1) - intersections


def points(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Part of the whole in points; NaN where the whole is nothing."""
    return np.where(whole > 0, 100 * part / np.maximum(whole, 1), np.nan)


def iou_points(matrix: np.ndarray) -> np.ndarray:
    """(N,) IoU of every class in points; NaN for a class that occurs in neither truth nor prediction."""
    return points(*counts(matrix))


def mean(values: np.ndarray) -> float | None:
    """Mean of those that are a number; None where none is."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def mean_iou(matrix: np.ndarray) -> float | None:
    """Mean IoU in points over the classes that occur; None where nothing is labelled."""
    return mean(iou_points(matrix))


def by_name(names: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    """The classes' values by their names, None for NaN."""
    return {n: None if np.isnan(v) else float(v) for n, v in zip(names, values, strict=True)}
