"""Decode: pixels of sound files, by the fastest decoder whose pixels equal Pillow's (benchmarks/decode.py).

Strict: a file that is cut off or damaged raises, and is never shown grey below the cut. What is seen is what a viewer
shows: EXIF orientation applied, transparent pixels on white, 16 bits scaled to 8, CMYK as RGB by the plain formula
(the colour profile left aside, as it is for every picture here). Of a mask the ids are given, never the colours.
"""

import io
import struct
import warnings
import zlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semivl.data.headers import PNG, DamagedError, Header, chunks, read_header
from semivl.data.whole import require_rows

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]
MOST_PIXELS = 178_956_970
"""Pillow refuses more in any picture"""


class EmptyPictureError(ValueError):
    """Every pixel is transparent."""


def decode_image(data: bytes) -> Pixels:
    """(H, W, 3) uint8 RGB as a person sees it.

    Raises:
        ValueError, OSError: the bytes are no JPEG or PNG, not whole, or promise more than MOST_PIXELS.
    """
    header = read_header(data)
    if header.width * header.height > MOST_PIXELS:
        raise DamagedError(f"the header promises {header.width} x {header.height} pixels")
    pixels = _jpeg(data, "RGB") if _is_plain(header) else np.asarray(rgb(_loaded(data, header)))
    return turned(pixels, header.orientation)


def decode_grey(data: bytes, header: Header) -> Pixels:
    """(H, W) uint8, the picture as it is seen, in grey; what the checks look at.

    A JPEG's grey is the luma that it stores: all of its bytes are decoded, and no colours made of them.

    Raises:
        MemoryError: it needs more memory than there is.
        EmptyPictureError: every pixel is transparent.
        Exception: whatever a decoder raises on broken bytes.
    """
    grey = _jpeg(data, "GRAY")[..., 0] if _is_plain(header) else np.asarray(rgb(_loaded(data, header)).convert("L"))
    return turned(grey, header.orientation)


def decode_mask(data: bytes) -> Pixels:
    """(H, W) uint8 class ids; of a palette PNG the ids, never the colours.

    Raises:
        ValueError, OSError: the bytes are no PNG, or not whole.
    """
    ids = _unfiltered(data)
    if ids is not None:
        return ids
    header = read_header(data)
    if header.format != "png":
        raise DamagedError("the content is a JPEG, not a PNG of class ids")
    return np.asarray(_loaded(data, header))


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """(H, W, ...) pixels as stored -> as seen under an EXIF orientation of 1 to 8."""
    if orientation == 1:
        return pixels
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def rgb(image: "Image.Image") -> "Image.Image":
    """The picture in RGB, as stored; what is transparent lets white through.

    Raises:
        EmptyPictureError: nothing but white would be left.
    """
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits a pixel; convert() would cut them off, not scale them
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    least, most = alpha.getextrema()
    if most == 0:
        raise EmptyPictureError("every pixel is transparent")
    if least == 255:
        return image.convert("RGB")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=alpha)
    return white


def _is_plain(header: Header) -> bool:
    """A JPEG in grey or three colours, of 8 bits: not CMYK."""
    return header.format == "jpeg" and header.colours in (1, 3) and header.depth == 8


def _jpeg(data: bytes, colours: str) -> Pixels:
    import simplejpeg

    return simplejpeg.decode_jpeg(data, colours, fastdct=False, fastupsample=False, strict=True)


def _loaded(data: bytes, header: Header) -> "Image.Image":
    """The JPEG or PNG as Pillow stores it; whoever calls has looked at the number of pixels."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
    except UnidentifiedImageError:
        raise DamagedError("no decoder takes its header") from None
    image.load()
    last_row = image.crop((0, image.height - 1, image.width, image.height))
    # Pillow leaves rows that are not there at 0 and says nothing; counting them costs half as much as decoding
    if header.format == "png" and (header.interlaced or not last_row.getbbox()):
        require_rows(data, header)
    if image.mode == "CMYK" and not header.adobe:  # Pillow takes all CMYK for Adobe's
        return image.point(lambda ink: 255 - ink)
    return image


def _unfiltered(png: bytes) -> Pixels | None:
    """(H, W) ids of a PNG in which every row is stored as it is, the usual way for palettes; None of any other.

    Twice as fast as a PNG library, which copies every row several times.
    """
    if not png.startswith(PNG) or len(png) < 33:
        return None
    width, height, depth, colours, _, _, interlace = struct.unpack_from(">IIBBBBB", png, 16)
    if depth != 8 or colours not in (0, 3) or interlace or not 0 < width * height <= MOST_PIXELS:
        return None
    packed = b"".join([png[start:end] for kind, start, end in chunks(png) if kind == b"IDAT"])
    unpacker = zlib.decompressobj()
    try:
        rows = unpacker.decompress(packed, height * (width + 1))
    except zlib.error:
        return None
    if not unpacker.eof or len(rows) != height * (width + 1):
        return None
    table = np.frombuffer(rows, np.uint8).reshape(height, width + 1)
    return None if table[:, 0].any() else np.ascontiguousarray(table[:, 1:])
