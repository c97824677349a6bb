"""Agglomerative grouping: neighbouring patches merge while they are alike enough (spec scg.md, 2.1).

Groups are connected by construction, and their number follows from the photo.
"""

import numpy as np
import torch
from torch import Tensor


def agglomerative(features: Tensor, merge_above: float, count: int) -> Tensor:
    """(L,) int64 groups, at most `count`, of unit features (h, w, D).

    Groups merge, the most alike first, while the mean cosine of their adjacent patches is above `merge_above`; where
    more than `count` are left, they go on merging.
    """
    from sklearn.cluster import AgglomerativeClustering  # a second that only this grouper needs
    from sklearn.feature_extraction.image import grid_to_graph

    h, w, _ = features.shape
    flat = features.flatten(0, 1).double().numpy()
    if h * w == 1:
        return torch.zeros(1, dtype=torch.int64)
    tree = AgglomerativeClustering(
        n_clusters=1,  # pyright: ignore[reportArgumentType]
        metric="cosine",
        linkage="average",
        connectivity=grid_to_graph(h, w),
        compute_full_tree=True,  # pyright: ignore[reportArgumentType]
        compute_distances=True,
    ).fit(flat)
    merges = int((tree.distances_ < 1 - merge_above).sum())
    return torch.from_numpy(_after(tree.children_, max(merges, h * w - count)))


def _after(children: np.ndarray, merges: int) -> np.ndarray:
    """(L,) the groups that the first `merges` rows of a tree of merges, (L - 1, 2), leave."""
    leaves = len(children) + 1
    parent = np.arange(leaves + merges)
    for i, pair in enumerate(children[:merges]):
        parent[pair] = leaves + i
    for node in reversed(range(len(parent))):
        parent[node] = parent[parent[node]]
    return parent[:leaves]
