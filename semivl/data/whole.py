"""Whole: whether a JPEG or PNG has all of itself and nothing else, which decoders do not tell.

Decoders stop at the last pixel: what is missing, damaged or added behind it goes unnoticed, and a text of a few
bytes may unpack to gigabytes in the next program that opens the file.
"""

import re
import zlib

from semivl.data.headers import JPEG, PNG, DamagedError, Header, RefusedError, chunks, kind_of

MOST_TEXT = 1 << 20
"""bytes that texts and colour profile of a PNG may unpack to; Pillow refuses a picture with more in one of them"""
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""in a scan; 0xFF 0x00 is a plain byte there, and 0xD0 to 0xD7 restart the decoder"""
_PADDING = b"\x00\r\n "
_SAMSUNG = b"SEFT"
"""ends what Samsung's cameras put behind a picture"""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""samples of a pixel by PNG's colour type"""
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""where each pass of an interlaced PNG begins, and its steps: x, y, across, down"""
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")


def require_whole(data: bytes, header: Header) -> None:
    """Nothing where the file is whole.

    Raises:
        DamagedError: it is cut off, or its checksums do not fit.
        RefusedError: DATA017 something else follows the picture, DATA019 its texts unpack to far more than texts need.
    """
    end = _jpeg_end(data, header.scans) if header.format == "jpeg" else _png_end(data)
    if end == len(data):
        return
    rest = data[end:].lstrip(_PADDING)
    if not rest.strip(b"\xff") or data.endswith(_SAMSUNG):
        return
    if header.parts and (rest.startswith(JPEG) or b"ftyp" in rest[:8]):
        return
    raise RefusedError(
        "DATA017", f"{len(rest)} bytes that are no part of the picture follow its end: {kind_of(rest[:32])}"
    )


def require_rows(png: bytes, header: Header) -> None:
    """Raises DamagedError where the pixel data of a PNG hold fewer rows than its header says."""
    passes = _ADAM7 if header.interlaced else [(0, 0, 1, 1)]
    sizes = [(-(-(header.width - x) // dx), -(-(header.height - y) // dy)) for x, y, dx, dy in passes]
    bits = _CHANNELS[header.colours] * header.depth
    missing = sum(height * (1 + -(-width * bits // 8)) for width, height in sizes if width > 0 and height > 0)
    unpacker = zlib.decompressobj()
    for kind, start, end in chunks(png):
        packed = png[start:end] if kind == b"IDAT" else b""
        while packed and missing > 0:
            missing -= len(unpacker.decompress(packed, 1 << 16))
            packed = unpacker.unconsumed_tail
    if missing > 0:
        raise DamagedError("its pixel data end before its last row")


def _jpeg_end(data: bytes, at: int) -> int:
    """Where the end-of-image marker ends."""
    end = data.find(b"\xff\xd9", at) + 2
    if end == len(data):  # nearly every file; else it may stand within a table between two scans
        return end
    while marker := _MARKER.search(data, at):
        if data[marker.start() + 1] == 0xD9:
            return marker.end()
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
    raise DamagedError("it has no end-of-image marker, as if it were cut off")


def _png_end(data: bytes) -> int:
    """Where IEND ends; every chunk's checksum compared on the way."""
    view, end, room = memoryview(data), len(PNG), MOST_TEXT
    for kind, start, end in chunks(data):
        if zlib.crc32(view[start - 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise DamagedError(f"the checksum of a chunk ({kind.decode('latin1')!r}) does not fit")
        if kind[:1].isupper() and kind not in _CRITICAL:
            raise DamagedError(f"it holds a chunk of no known kind ({kind.decode('latin1')!r}) that decoders must know")
        if kind in (b"zTXt", b"iTXt", b"iCCP"):
            room -= _unpacked(kind, data[start:end], room)
    return end + 4


def _unpacked(kind: bytes, chunk: bytes, room: int) -> int:
    """Bytes that the chunk's text or profile unpacks to."""
    _, _, rest = chunk.partition(b"\x00")
    if kind == b"iTXt":
        if not rest.startswith(b"\x01"):
            return 0
        rest = rest.partition(b"\x00")[2].partition(b"\x00")[2].partition(b"\x00")[2]
    else:
        rest = rest[1:]
    unpacker = zlib.decompressobj()
    try:
        unpacked = len(unpacker.decompress(rest, max(room, 1)))
    except zlib.error:  # a text that nobody can read does no harm
        return 0
    if unpacker.unconsumed_tail:
        raise RefusedError("DATA019", f"its texts or its colour profile unpack to more than {MOST_TEXT} bytes")
    return unpacked
