"""Boundary IoU: the IoU of the bands along the outlines, which a blurred edge cannot hide from in a large area.

Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021. The band of a class is
what of it lies within d pixels (down, across or diagonally) of its outline; d is 2 % of the image's diagonal. What is
beyond the image's border counts as another class, as in the published code. Truth and prediction are intersected, and
the classes' sums over all images divided, as for the IoU.

Pixels that nobody labelled belong to no class, and neither make an outline nor hide one: the band of a class is near
labelled pixels of another class, counted across what lies between. The prediction is looked at where the truth is
labelled, so that one that is right on all labelled pixels has a boundary IoU of 100, whatever it says elsewhere.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from semivl.config import IGNORE

SHARE = 0.02
"""of the image's diagonal"""


class BandCounts(NamedTuple):
    """Pixels of every class, (B, N) int64 each."""

    intersections: Tensor
    unions: Tensor


def band_width(height: int, width: int) -> int:
    """The distance d in whole pixels, at least 1."""
    return max(1, round(SHARE * math.hypot(height, width)))


def bands(labels: Tensor, distance: int) -> Tensor:
    """(B, H, W) bool: the labelled pixels of (B, H, W) uint8 ids that are in the band of their own class.

    A pixel is in its class's band if the square of side 2d + 1 around it holds a labelled pixel of another class, or
    reaches beyond the image: if the square's least or greatest id is not its own. Two extremes serve all classes.
    """
    labelled = labels != IGNORE
    greatest = _greatest_around(labels.where(labelled, 0), distance)
    least = 255 - _greatest_around((255 - labels).where(labelled, 0), distance)
    found = labelled & ((greatest != labels) | (least != labels))
    for edge in (found[:, :distance], found[:, -distance:], found[..., :distance], found[..., -distance:]):
        edge.fill_(True)
    return found & labelled


def band_counts(truth: Tensor, prediction: Tensor, classes: int) -> BandCounts:
    """What the bands of truth and prediction, (B, H, W) uint8 ids each, have in common and have together."""
    distance = band_width(*truth.shape[-2:])
    seen = prediction.where(truth != IGNORE, IGNORE)
    of_truth, of_seen = bands(truth, distance), bands(seen, distance)
    true, said = _pixels(truth, of_truth, classes), _pixels(seen, of_seen, classes)
    both = _pixels(truth, of_truth & of_seen & (truth == seen), classes)
    return BandCounts(both, true + said - both)


def _pixels(labels: Tensor, chosen: Tensor, classes: int) -> Tensor:
    """(B, N) chosen pixels of each class; the chosen ones are labelled."""
    maps = len(labels)
    code = labels.to(torch.int32).where(chosen, classes)
    code += (classes + 1) * torch.arange(maps, dtype=torch.int32, device=labels.device)[:, None, None]
    return torch.bincount(code.flatten(), minlength=maps * (classes + 1)).view(maps, classes + 1)[:, :classes]


def _greatest_around(values: Tensor, distance: int) -> Tensor:
    """(B, H, W): the greatest value of the square around each pixel; nothing beyond the image is greater."""
    return _greatest_along(_greatest_along(values, distance, 1), distance, 2)


def _greatest_along(values: Tensor, distance: int, dim: int) -> Tensor:
    """The greatest of the 2d + 1 values around each along a dimension, by doubling: log2 comparisons, not 2d."""
    length = values.shape[dim]
    shape = list(values.shape)
    shape[dim] = distance
    beyond = values.new_zeros(shape)
    reach, run = 2 * distance + 1, 1
    found = torch.cat([beyond, values, beyond], dim)
    while run < reach:  # found[i] is the greatest of `run` values from i on
        step = min(run, reach - run)
        kept = found.shape[dim] - step
        found = torch.maximum(found.narrow(dim, 0, kept), found.narrow(dim, step, kept))
        run += step
    return found.narrow(dim, 0, length)
