"""Scores that spread over the affinity graph of one photo (Wang and Tu, CVPR 2012; spec transfer.md, 2.4).

The graph's nodes are superpixels or cells of 4 x 4 pixels, its edges join nodes that touch. Scores run along edges
whose ends look alike and lie equally in the foreground. All of it is small and sparse: numpy and scipy on the CPU.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from semivl.config import Record

Floats = NDArray[np.floating]
CELL = 4
"""side in pixels of a node, where nodes are cells"""


class DiffusionSettings(Record):
    """How class scores spread over a photo; all of it reconstructed, since the paper's own maths could not be read."""

    form: Literal["restart", "series"] = Field(
        "restart",
        description="restart: S = alpha P S + (1 - alpha) S0, again and again; series: (1 + P + ... + P^steps) D^-1 S0",
    )
    alpha: float = Field(0.97, gt=0, lt=1, description="share that comes from the neighbours; form restart")
    steps: int = Field(80, ge=1, description="50 to 100 for restart, about 20 for series")
    nodes: Literal["superpixels", "cells"] = Field("superpixels", description="SLIC's, or cells of 4 x 4 pixels")
    node_area: float = Field(312.5, ge=1, description="pixels of a superpixel: 312.5 gives 600 on 500 x 375")
    reach: Literal[1, 2] = Field(1, description="2: neighbours of neighbours are neighbours too")
    foreground_width: float = Field(0.15, gt=0, description="difference in foreground that lets 1/e through")
    colour_width: float = Field(10.0, gt=0, description="standard deviation in Lab; that of features is their median")


class Graph(NamedTuple):
    """The affinities of a photo's nodes."""

    node: NDArray[np.intp]
    """(H, W) node of each pixel, from 0 to K - 1"""
    weights: sparse.csr_array
    """(K, K) symmetric, zero on the diagonal"""


def graph(image: Floats, foreground: Floats, features: Floats, settings: DiffusionSettings) -> Graph:
    """The photo's graph.

    Args:
        image: (H, W, 3) in [0, 1].
        foreground: (H, W) probability of the foreground.
        features: (H, W, F) of any scale: distances are divided by their median over the edges.
    """
    from skimage.color import rgb2lab

    node = superpixels(image, settings.node_area) if settings.nodes == "superpixels" else cells(*foreground.shape)
    pairs = neighbours(node, settings.reach)
    described = (node_means(v, node) for v in (foreground[..., None], rgb2lab(image), features))
    of_foreground, of_colour, of_features = (np.linalg.norm(m[pairs[0]] - m[pairs[1]], axis=1) for m in described)
    width = np.median(of_features) if len(of_features) else 0.0
    unlike = of_foreground / settings.foreground_width + of_colour**2 / (2 * settings.colour_width**2)
    if width > 0:
        unlike = unlike + of_features**2 / (2 * width**2)
    count = int(node.max()) + 1
    half = sparse.coo_array((np.exp(-unlike), (pairs[0], pairs[1])), shape=(count, count)).tocsr()
    return Graph(node, sparse.csr_array(half + half.T))


def superpixels(image: Floats, area: float) -> NDArray[np.intp]:
    """(H, W) SLIC's superpixels of about `area` pixels each, numbered from 0 without gaps."""
    from skimage.segmentation import slic  # for training alone: a finished model does without scikit-image

    count = max(1, round(image.shape[0] * image.shape[1] / area))
    found = slic(image, n_segments=count, compactness=10.0, start_label=0, channel_axis=-1)
    return np.unique(found, return_inverse=True)[1].reshape(found.shape)


def cells(height: int, width: int) -> NDArray[np.intp]:
    """(H, W) cells of 4 x 4 pixels, those at the far border cut short."""
    rows, columns = np.arange(height) // CELL, np.arange(width) // CELL
    return rows[:, None] * (columns[-1] + 1) + columns[None, :]


def neighbours(node: NDArray[np.intp], reach: int) -> NDArray[np.intp]:
    """(2, E) pairs of nodes that touch, the smaller first, each once; with reach 2 those two steps apart too."""
    down = np.stack([node[:-1].ravel(), node[1:].ravel()])
    across = np.stack([node[:, :-1].ravel(), node[:, 1:].ravel()])
    pairs = np.concatenate([down, across], axis=1)
    pairs = pairs[:, pairs[0] != pairs[1]]
    count = int(node.max()) + 1
    touch = sparse.coo_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=(count, count)).tocsr()
    touch = touch + touch.T
    if reach == 2:
        touch = touch + touch @ touch
    upper = sparse.triu(touch, k=1).tocoo()
    return np.stack([upper.coords[0], upper.coords[1]]).astype(np.intp)


def node_means(values: Floats, node: NDArray[np.intp]) -> Floats:
    """(K, C) mean over each node's pixels of values (H, W, C)."""
    flat, count = node.ravel(), int(node.max()) + 1
    sizes = np.bincount(flat, minlength=count)
    sums = [np.bincount(flat, weights=v, minlength=count) for v in values.reshape(flat.size, -1).T]
    return np.stack(sums, axis=1) / sizes[:, None]


def diffused(weights: sparse.csr_array, seeds: Floats, settings: DiffusionSettings) -> Floats:
    """(K, C) scores after spreading seeds (K, C) >= 0 over the graph; a node without neighbours keeps to itself."""
    degrees = np.asarray(weights.sum(axis=1)).ravel()
    share = 1 / np.where(degrees > 0, degrees, 1.0)
    transition = sparse.csr_array(sparse.diags_array(share) @ weights)
    if settings.form == "restart":
        scores = seeds
        for _ in range(settings.steps):
            scores = settings.alpha * (transition @ scores) + (1 - settings.alpha) * seeds
        return scores
    # W <- W P + 1 from W = 1, then W D^-1 S0: Horner's rule needs no matrix of all pairs
    first = share[:, None] * seeds
    scores = first
    for _ in range(settings.steps):
        scores = transition @ scores + first
    return scores
