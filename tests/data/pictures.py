"""Pictures put together byte by byte: PNGs of chunks, JPEGs of segments, sound or not."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 48, 32
END = b"\xff\xd9"
"""the last marker of a JPEG"""


def pixels(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """(H, W, 3) uint8, smooth colours with some noise."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(40, 216, (4, 4, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return (smooth + random.integers(-20, 21, smooth.shape)).clip(0, 255).astype(np.uint8)


def saved(image: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    body = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(body, kind, **options)
    return body.getvalue()


def chunk(kind: bytes, content: bytes = b"", crc: int = 0) -> bytes:
    """A chunk of a PNG; `crc` is added to its checksum."""
    checksum = (zlib.crc32(kind + content) + crc) & 0xFFFFFFFF
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(
    raw: bytes, width: int = WIDTH, height: int = HEIGHT, depth: int = 8, colours: int = 2, *extra: bytes, interlace=0
) -> bytes:
    """A PNG of filtered rows, with `extra` chunks before its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, interlace))
    pixels = chunk(b"IDAT", zlib.compress(raw, 9))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + chunk(b"IEND")


def rows(values: np.ndarray) -> bytes:
    """The rows of (H, W) or (H, W, C) uint8, each with filter 0."""
    flat = values.reshape(len(values), -1)
    return np.hstack([np.zeros((len(flat), 1), np.uint8), flat]).tobytes()


def interlaced(values: np.ndarray) -> bytes:
    """The seven passes of Adam7, each with its rows."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    parts = [values[y::dy, x::dx] for x, y, dx, dy in passes]
    return b"".join(rows(part) for part in parts if part.size)


def with_chunks(body: bytes, *extra: bytes) -> bytes:
    """The PNG with chunks behind its header."""
    return body[:33] + b"".join(extra) + body[33:]


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segments(body: bytes, *extra: bytes) -> bytes:
    """The JPEG with segments behind its first marker."""
    return body[:2] + b"".join(extra) + body[2:]


def frame_at(body: bytes) -> int:
    """Where the frame header's marker stands in a JPEG of Pillow's."""
    return max(body.find(b"\xff\xc0\x00\x11"), body.find(b"\xff\xc2\x00\x11"), body.find(b"\xff\xc0\x00\x0b"))


def resized(body: bytes, width: int, height: int) -> bytes:
    """The JPEG with another size in its frame header."""
    at = frame_at(body) + 5
    return body[:at] + struct.pack(">HH", height, width) + body[at + 4 :]


def reframed(body: bytes, marker: int, depth: int = 8) -> bytes:
    """The JPEG with another kind of frame header."""
    at = frame_at(body)
    return body[: at + 1] + bytes([marker]) + body[at + 2 : at + 4] + bytes([depth]) + body[at + 5 :]


def many_scans(side: int, scans: int) -> bytes:
    """A grey progressive JPEG, flat, whose every scan makes the decoder walk over all of its blocks again.

    `side`: a multiple of 8, at least 1024, as the code for a run of empty blocks begins at 16384.
    """
    blocks = (side // 8) ** 2
    counts = bytes([1] + [0] * 15)
    frame = segment(0xC2, struct.pack(">BHHBBBB", 8, side, side, 1, 1, 0x11, 0))
    tables = segment(0xDB, bytes([0]) + bytes([1] * 64)) + segment(0xC4, b"\x00" + counts + b"\x00")
    tables += segment(0xC4, b"\x10" + counts + b"\xe0")  # one code: the next 2^14 or more blocks have nothing
    first = segment(0xDA, bytes([1, 1, 0x00, 0, 0, 0])) + bytes(-(-blocks // 8))
    count = -(-blocks // ((1 << 15) - 1))
    runs = [blocks // count + (place < blocks % count) for place in range(count)]
    bits = "".join(f"0{run - (1 << 14):014b}" for run in runs)
    bits += "1" * (-len(bits) % 8)
    stuffed = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\x00")
    again = segment(0xDA, bytes([1, 1, 0x00, 1, 1, 0])) + stuffed
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00" + (
        tables + frame + first + again * scans + END
    )


def exif(entries: bytes, count: int) -> bytes:
    """The TIFF block of EXIF with raw entries in its first directory, which claims to have `count`."""
    return b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", count) + entries
