"""Mask checks: a PNG of 8-bit class ids, whole, of the picture's size, with ids that the class map knows.

Palette or 8-bit grey, interlaced or not, few bits in the palette, a palette with transparent colours: the ids are what
counts, and they are read alike. Colours, alpha and other depths are refused, as nothing says which ids they mean.
"""

import numpy as np

from semivl.config import IGNORE
from semivl.data.decode import Pixels, decode_mask
from semivl.data.headers import PNG, Header, RefusedError, kind_of, read_header
from semivl.data.whole import require_whole

_GREY, _PALETTE = 0, 3


def mask_counts(data: bytes, size: tuple[int, int], classes: int, max_bytes: int) -> tuple[tuple[int, ...], int]:
    """Pixels of each class, and those to ignore, of a mask for a picture seen in the size (width, height).

    Raises:
        RefusedError: DATA004 unknown ids, DATA005 another size, DATA006 no PNG of ids, DATA007 damaged, DATA009 empty,
            DATA012 nothing but ignore, DATA014 too many bytes, DATA016 an animation.
    """
    if not data:
        raise RefusedError("DATA009", "the file is empty")
    if len(data) > max_bytes:
        raise RefusedError("DATA014", f"{len(data)} bytes are more than {max_bytes}")
    if not data.startswith(PNG):
        raise RefusedError("DATA006", f"the content is {kind_of(data[:32])}, not a PNG of class ids")
    try:
        header = read_header(data)
        _require_ids(header, size)
        require_whole(data, header)
        counts = _counted(decode_mask(data))
    except RefusedError:
        raise
    except Exception as error:  # a decoder may raise anything on broken bytes
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            raise MemoryError from None
        raise RefusedError(
            "DATA007", f"the mask cannot be decoded whole: {str(error) or type(error).__name__}"
        ) from None
    unknown = [int(i) for i in np.flatnonzero(counts) if i >= classes and i != IGNORE]
    if unknown:
        raise RefusedError("DATA004", f"ids {unknown} are outside the class map of {classes} classes")
    if counts[IGNORE] == counts.sum():
        raise RefusedError("DATA012", f"every pixel is {IGNORE}, to be ignored")
    return tuple(int(n) for n in counts[:classes]), int(counts[IGNORE])


def _require_ids(header: Header, size: tuple[int, int]) -> None:
    if header.colours != _PALETTE and (header.colours, header.depth) != (_GREY, 8):
        raise RefusedError("DATA006", "the PNG holds colours or another depth, not 8-bit ids (palette or grey)")
    if (header.width, header.height) != size:
        raise RefusedError(
            "DATA005", f"{header.width} x {header.height} does not fit the image's {size[0]} x {size[1]}"
        )
    if header.animated:
        raise RefusedError("DATA016", "it is an animation")


def _counted(ids: Pixels) -> np.ndarray:
    """(256,) pixels of each id; by runs of equal pixels, of which a mask has few: four times as fast as one by one."""
    flat = ids.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]), flat.size - 1)
    return np.bincount(flat[ends], np.diff(ends, prepend=-1), minlength=256).astype(np.int64)
