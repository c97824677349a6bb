"""Which images to label next: those the model is unsure of, far from what is labelled and from each other.

Seeding of k-means++ (Arthur and Vassilvitskii, SODA 2007) with the labelled images as centres that are there already.
An image is drawn with a probability in proportion to its uncertainty times its squared distance to the nearest centre,
becomes a centre, and the next is drawn. BADGE (Ash et al., ICLR 2020) draws the same way, with the uncertainty as the
length of a gradient; weighting explicitly is Zhdanov's (arXiv:1901.05954). The greedy choice, core-set's (Sener and
Savarese, ICLR 2018), takes outliers first; a draw takes what stands for many.

Distances are those of unit vectors. No more than the features of all images are in memory: 150 MB for 100,000 of 384.
"""

from typing import NamedTuple

import numpy as np

from semivl.data.near_duplicates import is_flat, near_pairs

NEAR_BITS = 4
"""pictures whose perceptual hashes differ in no more of 64 bits count as the same, as they do in conf/suite"""
_BLOCK = 4096


class Chosen(NamedTuple):
    """An image of the pool that was chosen, in the order of the draw."""

    place: int
    """in the pool"""
    distance: float
    """to the nearest labelled image, 0 to 2; NaN where nothing is labelled"""
    nearest: int | None
    """that image's place among the labelled ones"""


class Choice(NamedTuple):
    """What was chosen of a pool, and how many images of it could not be."""

    chosen: tuple[Chosen, ...]
    near_labelled: int
    """images left out since a labelled picture looks the same"""
    near_chosen: int
    """images left out since one that was chosen looks the same"""


class Images(NamedTuple):
    """What images are compared by."""

    features: np.ndarray
    """(n, D) float32, L2-normalised"""
    hashes: np.ndarray
    """(n,) uint64, perceptual"""


def choose(count: int, pool: Images, uncertainty: np.ndarray, labelled: Images, seed: int) -> Choice:
    """Up to `count` images of the pool, the same for the same seed; fewer where near-duplicates leave no more.

    Args:
        uncertainty: (n,), none negative, larger where the model is less sure.
    """
    distances, nearest = nearest_of(pool.features, labelled.features)
    free = ~_near(pool.hashes, labelled.hashes)
    near_labelled = int((~free).sum())
    gaps = np.where(np.isnan(distances), 1.0, distances) ** 2
    generator = np.random.default_rng(seed)
    chosen: list[Chosen] = []
    while len(chosen) < count and free.any():
        place = _drawn(np.where(free, uncertainty * gaps, 0.0), free, generator)
        free &= ~_alike(pool.hashes, place)
        gap = np.maximum(2 - 2 * (pool.features @ pool.features[place]).astype(np.float64), 0)
        gaps = np.minimum(gaps, gap) if chosen or len(labelled.features) else gap
        chosen.append(Chosen(place, float(distances[place]), int(nearest[place]) if len(labelled.features) else None))
    near_chosen = len(pool.hashes) - near_labelled - len(chosen) - int(free.sum())
    return Choice(tuple(chosen), near_labelled, near_chosen)


def nearest_of(features: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each of (n, D) unit vectors to the nearest of the centres, and its place; NaN and -1 without any."""
    distances = np.full(len(features), np.nan)
    places = np.full(len(features), -1)
    if not len(centres):
        return distances, places
    for first in range(0, len(features), _BLOCK):
        best, where = _nearest_in_blocks(features[first : first + _BLOCK], centres)
        distances[first : first + _BLOCK] = np.sqrt(np.maximum(2 - 2 * best.astype(np.float64), 0))
        places[first : first + _BLOCK] = where
    return distances, places


def _nearest_in_blocks(some: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest cosine and its place."""
    best, where = np.full(len(some), -np.inf, np.float32), np.zeros(len(some), np.int64)
    for first in range(0, len(centres), _BLOCK):
        cosines = some @ centres[first : first + _BLOCK].T
        place = cosines.argmax(1)
        found = cosines[np.arange(len(some)), place]
        where = np.where(found > best, first + place, where)
        best = np.maximum(best, found)
    return best, where


def _drawn(weights: np.ndarray, free: np.ndarray, generator: np.random.Generator) -> int:
    """A place in proportion to its weight; any free one where all weigh nothing."""
    total = np.cumsum(weights if weights.any() else free.astype(np.float64))
    place = int(np.searchsorted(total, generator.random() * total[-1], side="right"))
    return place if place < len(total) and free[place] else int(np.flatnonzero(free)[-1])


def _near(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) bool: one of the others looks the same. Flat pictures look like nothing: their hashes tell nothing."""
    found = np.zeros(len(hashes), bool)
    ours, theirs = np.flatnonzero(~is_flat(hashes)), others[~is_flat(others)]
    for first, _ in near_pairs(hashes[ours], theirs, NEAR_BITS):
        found[ours[first]] = True
    return found


def _alike(hashes: np.ndarray, place: int) -> np.ndarray:
    """(n,) bool: the picture at that place, and those that look the same."""
    same = np.arange(len(hashes)) == place
    if is_flat(hashes[place : place + 1])[0]:
        return same
    return same | (np.bitwise_count(hashes ^ hashes[place]) <= NEAR_BITS)
