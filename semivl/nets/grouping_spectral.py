"""Spectral grouping by the published deep-spectral recipe (Melas-Kyriazi et al., CVPR 2022; spec scg.md, 2.1).

Patches are nodes of a graph with weights W = max(0, cosine), to which alike colours may add. The smallest solutions of
(D - W) y = lambda D y, D holding the sums of W's rows, are smooth over what belongs together; k-means of them divides
the photo. That each counts by 1 - lambda is ours.
"""

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
import torch
from scipy.spatial import KDTree
from torch import Tensor

from semivl.nets.grouping_kmeans import kmeans

DENSE = 600
"""patches up to which all eigenvectors at once cost less than a few by iteration"""
NEIGHBOURS = 10
"""patches of like colour that a patch is linked with"""


def spectral(affinity: np.ndarray, count: int, eigenvectors: int) -> Tensor:
    """(L,) int64 groups, at most `count`, of patches with an affinity (L, L), symmetric and not negative."""
    if len(affinity) == 1:
        return torch.zeros(1, dtype=torch.int64)
    values, vectors = smallest_eigenvectors(affinity, min(eigenvectors, len(affinity) - 1))
    # the rougher a vector, the less it tells: unweighted, the last ones make groups of single odd patches
    return kmeans(torch.from_numpy(vectors * np.clip(1 - values, 0, 1)).float(), count)


def smallest_eigenvectors(affinity: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count,) eigenvalues and (L, count) vectors, float64, the smallest but the first, whose vector is constant.

    Solved as the largest mu = 1 - lambda of D^-1/2 W D^-1/2, the same problem in symmetric form.
    """
    root = np.sqrt(np.maximum(affinity.sum(1), 1e-12))
    symmetric = affinity / root[:, None] / root
    size = len(affinity)
    if size <= max(DENSE, 2 * count):
        values, vectors = scipy.linalg.eigh(symmetric, subset_by_index=(size - count - 1, size - 1))
    else:
        # a start that is no eigenvector itself, and the same every time
        start = np.random.default_rng(0).standard_normal(size)
        values, vectors = scipy.sparse.linalg.eigsh(symmetric, count + 1, which="LA", v0=start)
        values, vectors = np.sort(values), vectors[:, np.argsort(values)]
    # scaled so that the constant vector would be 1, whatever the number of patches and the size of their weights
    return 1 - values[-2::-1], (vectors / root[:, None])[:, -2::-1] * np.sqrt(affinity.sum())


def affinities(features: Tensor, colours: Tensor, colour: float) -> np.ndarray:
    """(L, L) float64 weights between patches with unit features (h, w, D) and mean colours (h, w, 3).

    Args:
        colour: weight of being neighbours in colour and place, against 1 for equal features.
    """
    flat = features.flatten(0, 1).double()
    weights = (flat @ flat.T).clamp_(min=0).numpy()
    weights /= weights.max()
    return weights + colour * _alike_in_colour(colours) if colour else weights


def _alike_in_colour(colours: Tensor) -> np.ndarray:
    """(L, L) 1 between a patch and those nearest to it in colour and place, 0 elsewhere."""
    h, w = colours.shape[:2]
    rows, columns = np.mgrid[:h, :w] / max(h, w)
    points = np.concatenate([colours.flatten(0, 1).numpy(), np.stack([rows, columns], -1).reshape(-1, 2)], 1)
    _, near = KDTree(points).query(points, min(NEIGHBOURS + 1, len(points)))
    linked = np.zeros((len(points), len(points)))
    np.put_along_axis(linked, np.reshape(near, (len(points), -1)), 1.0, 1)  # of one neighbour there is no column
    return np.maximum(linked, linked.T)
