"""Pictures that look alike: pairs of 64-bit perceptual hashes that differ in few bits, found without comparing all.

Multi-index hashing (Norouzi, Punjani and Fleet, CVPR 2012): a hash is cut into three pieces. Of two hashes that
differ in at most d bits, at least one piece differs in at most its share of d - 2 bits, so that it is enough to look up
every piece that near in a table of the pieces, and to count the bits of what is found there. Exact; time grows with the
number of hashes and of pairs, not with its square.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

_PIECES = 3
"""of 21 and 22 bits: a table of the pieces stays in a processor's cache, and its cells hold few of a million hashes"""
_STEP = 1 << 22
"""candidates that are compared at once, which bounds the memory"""
_FLAT_BITS = 24
"""a hash of 64 coefficients against their median sets 32 bits, unless coefficients are equal, as they are in pictures
with next to nothing in them: with fewer bits than this, at least nine equal the median"""
Pairs = tuple[np.ndarray, np.ndarray]


def near_pairs(left: np.ndarray, right: np.ndarray, distance: int) -> Iterator[Pairs]:
    """Every pair of hashes, one of each side, that differ in at most `distance` bits, in parts as they are found.

    Args:
        left: (N,) uint64.
        right: (M,) uint64, of which the table is made: the larger side.
        distance: bits, 0 to 64.

    Yields:
        (K,) places in `left` and (K,) places in `right`; each pair once.
    """
    shares = _shares(distance)
    pieces = list(zip(_pieces(left), _pieces(right), shares, strict=True))
    for place, (ours, theirs, share) in enumerate(pieces):
        for first, second in _lookups(ours, theirs, share):
            near = np.bitwise_count(left[first] ^ right[second]) <= distance
            first, second = first[near], second[near]
            for earlier, others, radius in pieces[:place]:  # what an earlier piece found is not given again
                new = np.bitwise_count(earlier[first] ^ others[second]) > radius
                first, second = first[new], second[new]
            if len(first):
                yield first, second


def near_pairs_within(hashes: np.ndarray, distance: int) -> Iterator[Pairs]:
    """Every pair of the (N,) uint64 hashes that differ in at most `distance` bits, the earlier place first."""
    for first, second in near_pairs(hashes, hashes, distance):
        forward = first < second
        if forward.any():
            yield first[forward], second[forward]


def from_hex(digits: np.ndarray) -> np.ndarray:
    """(N,) uint64 of (N,) S16: hashes as 16 hex digits."""
    codes = np.frombuffer(digits.tobytes(), np.uint8).reshape(len(digits), 8, 2)
    halves = np.where(codes >= ord("a"), codes - (ord("a") - 10), codes - ord("0")).astype(np.uint8)
    whole = halves[..., 0] << 4 | halves[..., 1]
    return whole.view(">u8").astype(np.uint64).reshape(-1)


def is_flat(hashes: np.ndarray) -> np.ndarray:
    """(N,) bool: the picture has so little in it (one colour, an even gradient) that its hash tells nothing of it."""
    return np.bitwise_count(hashes) < _FLAT_BITS


def _shares(distance: int) -> list[int]:
    """Bits in which each piece may differ; together distance - 2, so that all cannot be exceeded at once."""
    spare = distance - _PIECES + 1
    return [max(-1, (spare + place) // _PIECES) for place in range(_PIECES)]


def _pieces(hashes: np.ndarray) -> list[np.ndarray]:
    """Three (N,) int32 of every third bit each: neighbouring bits go together in photos, and would crowd the cells."""
    pieces = []
    for start in range(_PIECES):
        piece = np.zeros(len(hashes), np.int32)
        for place, bit in enumerate(range(start, 64, _PIECES)):
            piece |= (hashes >> np.uint64(bit) & np.uint64(1)).astype(np.int32) << place
        pieces.append(piece)
    return pieces


def _lookups(ours: np.ndarray, theirs: np.ndarray, radius: int) -> Iterator[Pairs]:
    """Places of pieces that differ in at most `radius` bits, at most _STEP or one of ours at once."""
    if radius < 0 or not len(ours) or not len(theirs):
        return
    cells = np.zeros((1 << 22) + 1, np.int32)
    np.cumsum(np.bincount(theirs, minlength=1 << 22), out=cells[1:])
    there = np.argsort(theirs, kind="stable").astype(np.int32)
    here = np.argsort(ours, kind="stable").astype(np.int32)
    sorted_ours = ours[here]  # in order, so that neighbours are looked up in neighbouring cells
    for bits in range(radius + 1):
        for flipped in combinations(range(22), bits):
            cell = sorted_ours ^ np.int32(sum(1 << bit for bit in flipped))
            start, count = cells[cell], cells[cell + 1] - cells[cell]
            asked = np.flatnonzero(count)
            yield from _expanded(here[asked], start[asked], count[asked], there)


def _expanded(here: np.ndarray, start: np.ndarray, count: np.ndarray, there: np.ndarray) -> Iterator[Pairs]:
    """Each of ours with every one of its cell."""
    ends = np.cumsum(count, dtype=np.int64)
    first = 0
    while first < len(here):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + _STEP, side="right")))
        counts = count[first:last]
        offsets = np.repeat(start[first:last] - (ends[first:last] - counts - before), counts)
        yield np.repeat(here[first:last], counts), there[offsets + np.arange(len(offsets))]
        first = last
