"""Spatial consistency of groups: their connected parts, and what becomes of the small ones (spec scg.md, 2.1)."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor


def without_specks(groups: np.ndarray, features: Tensor, smallest: float) -> np.ndarray:
    """(h, w) groups in which no connected part has less than `smallest` of the patches, unless it is the only one.

    Small parts, the smallest first, join the touching part whose patches are the most alike in the mean. Large ones
    keep the group that they are of.

    Args:
        groups: (h, w) ids.
        features: (h, w, D) unit vectors.
    """
    parts, owner = connected_parts(groups)
    flat = torch.as_tensor(parts).flatten()
    # the mean cosine of all pairs of patches of two parts is the product of the parts' mean vectors
    means = torch.zeros(len(owner), features.shape[-1]).index_add_(0, flat, features.flatten(0, 1)).numpy()
    sizes = np.bincount(parts.ravel(), minlength=len(owner)).astype(np.float64)
    means /= sizes[:, None]
    while True:
        present = np.flatnonzero(sizes)
        small = present[sizes[present] < smallest * groups.size]
        if not len(small) or len(present) == 1:
            break
        part = small[np.argmin(sizes[small])]
        near = touching(parts, part)
        into = near[np.argmax(means[near] @ means[part])]
        means[into] = (sizes[into] * means[into] + sizes[part] * means[part]) / (sizes[into] + sizes[part])
        sizes[into] += sizes[part]
        sizes[part] = 0
        parts[parts == part] = into
    return numbered(owner[parts])


def connected_parts(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(h, w) the connected part of each patch, over its four neighbours, and (P,) the group of each part."""
    parts, owner = np.zeros(groups.shape, np.int64), []
    for group in np.unique(groups):
        found, count = ndimage.label(groups == group)  # pyright: ignore[reportGeneralTypeIssues]
        parts[found > 0] = found[found > 0] - 1 + len(owner)
        owner += [group] * count
    return parts, np.array(owner)


def touching(parts: np.ndarray, part: int) -> np.ndarray:
    """The parts beside one of them, in order."""
    inside = parts == part
    return np.unique(parts[ndimage.binary_dilation(inside) & ~inside])


def numbered(groups: np.ndarray) -> np.ndarray:
    """The same groups, numbered from 0 as they appear, row by row."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].reshape(groups.shape)
