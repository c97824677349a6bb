"""The perceptual hash: imagehash's value, bit for bit, at a third of its cost.

Nearly all of that cost is shrinking the picture to 32 x 32 by Pillow's Lanczos filter. Its arithmetic is on whole
numbers: rows are weighted with 22-bit fractions, rounded to 8 bits, then columns the same way. Doubles hold such sums
exactly, so that the same numbers come out of a matrix product, which processors are better at.
"""

from functools import lru_cache

import numpy as np

from semivl.data.decode import Pixels

_SIDE, _KEPT = 32, 8
_ONE = 1 << 22
"""1 in Pillow's fixed-point weights"""
_GROUPS = 4
"""products a row is cut into: its outer pixels weigh nothing in most of them"""
_BLOCK = 1 << 18
"""pixels that are doubles at a time"""


def phash(grey: Pixels) -> str:
    """16 hex digits, 64 bits, of a grey picture (H, W) uint8 as it is seen: near pictures differ in few bits."""
    from scipy.fftpack import dct

    frequencies = dct(dct(shrunk(grey), axis=0)[:_KEPT], axis=1)[:, :_KEPT]
    in_order = np.sort(frequencies, axis=None)
    middle = len(in_order) // 2
    median = (in_order[middle - 1] + in_order[middle]) / 2  # np.median's, at a third of its cost
    return np.packbits(frequencies > median).tobytes().hex()


def shrunk(grey: Pixels) -> np.ndarray:
    """(H, W) uint8 -> (32, 32) doubles, the whole numbers of Pillow 13's `resize((32, 32), LANCZOS)`.

    Pillow shortens the rows first, from version 13 on the columns of tall pictures; here that never changes again.
    """
    height, width = grey.shape
    if height - _SIDE > max(0, 2 * (width - _SIDE)):
        return _shortened(grey.T).T
    return _shortened(grey)


def _shortened(grey: Pixels) -> np.ndarray:
    """Rows shortened, then columns."""
    height, width = grey.shape
    across = np.empty((height, _SIDE))
    step = max(1, _BLOCK // width)
    for top in range(0, height, step):
        rows = grey[top : top + step].astype(np.float64)
        for first, last, column, weights in _weights(width):
            np.matmul(rows[:, first:last], weights, out=across[top : top + step, column : column + weights.shape[1]])
    across, down = _rounded(across), np.empty((_SIDE, _SIDE))
    for first, last, row, weights in _weights(height):
        np.matmul(weights.T, across[first:last], out=down[row : row + weights.shape[1]])
    return _rounded(down)


def _rounded(sums: np.ndarray) -> np.ndarray:
    """The sums as they are in 8 bits, in their own place."""
    sums += _ONE / 2
    sums *= 1 / _ONE
    np.floor(sums, out=sums)
    np.maximum(sums, 0, out=sums)
    return np.minimum(sums, 255, out=sums)


@lru_cache(maxsize=256)
def _weights(length: int) -> list[tuple[int, int, int, np.ndarray]]:
    """Lanczos weights of `length` pixels for 32, in groups of those 32: first and last pixel, column, (pixels, n)."""
    scale = length / _SIDE
    stretch = max(scale, 1.0)
    centres = (np.arange(_SIDE) + 0.5) * scale
    first = np.maximum((centres - 3 * stretch + 0.5).astype(int), 0)
    last = np.minimum((centres + 3 * stretch + 0.5).astype(int), length)
    pixels = np.arange(length)[:, None]
    distance = (pixels - centres + 0.5) * (1.0 / stretch)
    lanczos = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0.0)
    lanczos[(pixels < first) | (pixels >= last)] = 0.0
    lanczos /= lanczos.sum(axis=0)
    whole = np.trunc(lanczos * _ONE + np.copysign(0.5, lanczos))
    each = _SIDE // _GROUPS
    return [
        (first[c], last[c + each - 1], c, np.ascontiguousarray(whole[first[c] : last[c + each - 1], c : c + each]))
        for c in range(0, _SIDE, each)
    ]
