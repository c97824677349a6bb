"""Run lengths as the annotation tools write them: Label Studio's brush and CVAT's mask.

Label Studio packs the R, G, B, A of a canvas with thi.ng's rle-pack: a stream of bits, the first of a byte its highest.
A head of 32 bits (number of values), 5 (bits of a value, less one) and four times 4 (bits of the four kinds of length,
less one); then pieces: 1 bit (repeated or not), 2 bits (kind of length), the length less one in that many bits, and the
value once, or that many values. The region is where A is not transparent.

CVAT's are plain numbers: pixels outside, inside, outside, ... of the region's box, row by row.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_HEAD = ((32, 0), (5, 1), (4, 1), (4, 1), (4, 1), (4, 1))
"""bits of the numbers that come first, and what is to be added"""
_WORD, _KINDS = 8, (3, 4, 8, 16)
"""bits of a value, and of the four kinds of length that are written"""
_LONGEST = 1 << _KINDS[-1]
_CHANNELS = 4
_OPAQUE = 128
"""a brush's edge is drawn half transparent"""


class RunLengthError(ValueError):
    """Run lengths that are none, or not of a picture of the given size."""


def brush(region: np.ndarray) -> list[int]:
    """The bytes of Label Studio's run lengths of an (H, W) bool region."""
    values, lengths = _runs(region.ravel())
    fields = [(region.size * _CHANNELS, 32), (_WORD - 1, 5), *((bits - 1, 4) for bits in _KINDS)]
    for inside, pixels in zip(values.tolist(), lengths.tolist(), strict=True):
        for length in _pieces(pixels * _CHANNELS):
            kind = next(i for i, bits in enumerate(_KINDS) if length <= 1 << bits)
            fields += [(1, 1), (kind, 2), (length - 1, _KINDS[kind]), (255 * inside, _WORD)]
    text = "".join(format(value, f"0{bits}b") for value, bits in fields)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def from_brush(packed: Any, height: int, width: int) -> np.ndarray:
    """(H, W) bool region of Label Studio's run lengths.

    Raises:
        RunLengthError: they are no bytes, break off, or are of a picture of another size.
    """
    stream = _Bits(packed)
    values, word, *kinds = (stream.number(bits) + extra for bits, extra in _HEAD)
    if word != _WORD:
        raise RunLengthError(f"its values have {word} bits, not {_WORD}")
    if values != height * width * _CHANNELS:
        raise RunLengthError(f"it holds {values} values, not those of {width} x {height} pixels")
    canvas = np.zeros(values, np.uint8)
    done = 0
    while done < values:
        repeated = stream.number(1)
        length = stream.number(kinds[stream.number(2)]) + 1
        if done + length > values:
            raise RunLengthError("it holds more than the picture has")
        canvas[done : done + length] = stream.number(word) if repeated else stream.numbers(word, length)
        done += length
    return canvas.reshape(height, width, _CHANNELS)[..., 3] >= _OPAQUE


def box_runs(region: np.ndarray) -> tuple[list[int], tuple[int, int, int, int]]:
    """CVAT's run lengths of an (H, W) bool region that is not empty, and its box: left, top, width, height."""
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    top, left = int(rows[0]), int(columns[0])
    inner = region[top : rows[-1] + 1, left : columns[-1] + 1]
    values, lengths = _runs(inner.ravel())
    counts = lengths.tolist()
    return ([0, *counts] if values[0] else counts), (left, top, inner.shape[1], inner.shape[0])


def from_box_runs(counts: Sequence[int], box: tuple[int, int, int, int], height: int, width: int) -> np.ndarray:
    """(H, W) bool region of CVAT's run lengths.

    Raises:
        RunLengthError: the box leaves the picture, or the lengths do not fill it.
    """
    left, top, columns, rows = box
    if min(left, top, columns - 1, rows - 1) < 0 or left + columns > width or top + rows > height:
        raise RunLengthError(f"its box {box} leaves the picture of {width} x {height} pixels")
    if any(count < 0 for count in counts) or sum(counts) != columns * rows:
        raise RunLengthError(f"its lengths do not fill its box of {columns} x {rows} pixels")
    inner = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    region = np.zeros((height, width), bool)
    region[top : top + rows, left : left + columns] = inner.reshape(rows, columns)
    return region


def _runs(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and lengths of the runs of a flat array."""
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    return flat[starts].astype(np.int64), np.diff(np.append(starts, len(flat)))


def _pieces(length: int) -> Iterable[int]:
    """A run cut into lengths that can be written."""
    whole, rest = divmod(length, _LONGEST)
    return [*([_LONGEST] * whole), *([rest] if rest else [])]


class _Bits:
    """A stream of bits that ends in a RunLengthError."""

    def __init__(self, packed: Any) -> None:
        try:
            if not isinstance(packed, list):
                raise TypeError
            self._bits = np.unpackbits(np.frombuffer(bytes(packed), np.uint8))
        except (TypeError, ValueError):
            raise RunLengthError("it is no list of bytes") from None
        self._at = 0

    def number(self, bits: int) -> int:
        return int(self.numbers(bits, 1)[0])

    def numbers(self, bits: int, count: int) -> np.ndarray:
        """(count,) numbers of that many bits each."""
        taken = self._bits[self._at : self._at + bits * count]
        if len(taken) < bits * count:
            raise RunLengthError("it breaks off")
        self._at += bits * count
        return taken.reshape(count, bits).astype(np.int64) @ (1 << np.arange(bits - 1, -1, -1, dtype=np.int64))
