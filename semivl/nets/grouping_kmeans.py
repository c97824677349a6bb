"""k-means without chance: seeds are chosen greedily, so the same points give the same clusters in any order."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

ITERATIONS = 50
CANDIDATES = 1024
"""points that seeds are chosen from: all, or so many evenly spaced ones"""
NOTHING = 1e-7
"""of the mean squared distance: less than this is rounding"""


def kmeans(points: Tensor, count: int, centre: Callable[[Tensor], Tensor] = lambda means: means) -> Tensor:
    """(L,) int64 clusters of points (L, D); at most `count`, fewer where the points have fewer places.

    Args:
        centre: what a cluster's mean (K, D) is made into, to stand for it.
    """
    centres = seeds(points, count)
    labels = _nearest(points, centres)
    for _ in range(ITERATIONS):
        sums = torch.zeros_like(centres).index_add_(0, labels, points)
        sizes = torch.bincount(labels, minlength=len(centres)).unsqueeze(1)
        # a centre that lost all its points stays where it was
        centres = torch.where(sizes > 0, centre(sums / sizes.clamp(min=1)), centres)
        moved = _nearest(points, centres)
        if torch.equal(moved, labels):
            break
        labels = moved
    return labels


def seeds(points: Tensor, count: int) -> Tensor:
    """(K, D), K <= count: each the candidate that lowers the sum of squared distances to the nearest seed most.

    The first is the candidate with the least sum. It ends early where every point lies on a seed.
    """
    candidates = points[:: -(-len(points) // CANDIDATES)]
    distances = _squared(candidates, points)
    chosen = [int(distances.sum(1).argmin())]
    nearest = distances[chosen[0]]
    nothing = NOTHING * float(distances.mean())
    while len(chosen) < count and nearest.mean() > nothing:
        chosen.append(int(torch.minimum(distances, nearest).sum(1).argmin()))
        nearest = torch.minimum(nearest, distances[chosen[-1]])
    return candidates[chosen]


def on_sphere(width: int) -> Callable[[Tensor], Tensor]:
    """Centres (K, D) whose first `width` components are a unit vector again, as spherical k-means has them."""
    return lambda means: torch.cat([F.normalize(means[:, :width], dim=1), means[:, width:]], dim=1)


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    return _squared(points, centres).argmin(1)


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """(A, B) squared distances."""
    return (a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T).clamp_(min=0)
