"""Headers: what the first bytes of a JPEG or PNG promise, read before anything is decoded or unpacked.

A few microseconds a file, in memory that does not grow with what the file claims. Own readers, as those of image
libraries read far more than is needed here: they unpack texts and follow whatever EXIF points at.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
Format = Literal["jpeg", "png"]
_KINDS = {
    JPEG: "a JPEG", PNG: "a PNG", b"PK": "a ZIP archive", b"GIF8": "a GIF", b"%PDF": "a PDF", b"BM": "a BMP",
    b"II*\x00": "a TIFF", b"MM\x00*": "a TIFF", b"II+\x00": "a TIFF", b"MM\x00+": "a TIFF", b"II\xbc": "a JPEG XR",
    b"\xff\x0a": "a JPEG XL", b"\x00\x00\x00\x0cJXL ": "a JPEG XL", b"\x00\x00\x00\x0cjP  ": "a JPEG 2000",
    b"\xff\x4f\xff\x51": "a JPEG 2000", b"8BPS": "a Photoshop file", b"\x00\x00\x01\x00": "an icon",
    b"\x00\x00\x02\x00": "a cursor", b"qoif": "a QOI", b"#?RADIANCE": "a Radiance HDR", b"v/1\x01": "an OpenEXR",
    b"DDS ": "a DDS", b"FLIF": "a FLIF", b"SIMPLE  =": "a FITS", b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file", b"P1": "a PBM", b"P2": "a PGM", b"P3": "a PPM", b"P4": "a PBM", b"P5": "a PGM",
    b"P6": "a PPM", b"<": "HTML, XML or SVG", b"\x1f\x8b": "a gzip archive", b"7z\xbc\xaf": "a 7-Zip archive",
    b"Rar!": "a RAR archive", b"BZh": "a bzip2 archive", b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"\xfd7zXZ": "an xz archive", b"\x7fELF": "a program", b"MZ": "a program", b"version https://git-lfs": "a Git LFS "
    "pointer, not the file itself", b"\x89MNG": "an MNG", b"\x8aMNG": "an MNG", b"\x8bJNG": "a JNG", b"RIFF": "a RIFF "
    "file", b"\x1aE\xdf\xa3": "a Matroska or WebM film", b"\x00\x00\x00": "an MP4, HEIC or AVIF file",
    b"\xff\xd8": "a damaged JPEG", b"\x89PNG": "a PNG that was transferred as text",
}  # fmt: skip
"""How files begin; the first that fits counts."""
_BOXES = {b"avif": "an AVIF", b"avis": "an AVIF", b"heic": "a HEIC", b"heix": "a HEIC", b"mif1": "a HEIC or AVIF"}
_ORIENTATION = 0x0112
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD8)))
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_USUAL_FRAMES = frozenset((0xC0, 0xC1, 0xC2))
_PARTS = (b"MotionPhoto", b"MicroVideo", b"Container:Directory", b"hdrgm:")
"""in the XMP of a phone's picture that has a short film, or a map of its brightness, behind it"""


class DamagedError(ValueError):
    """The bytes are not whole, or not what they begin as; the message goes on from "it cannot be decoded whole: "."""


class RefusedError(Exception):
    """A check that failed: its code and the reason in words."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason


@dataclass(frozen=True)
class Header:
    """What a picture's header says. Sizes are in pixels as stored; an orientation above 4 swaps them when seen."""

    format: Format
    width: int
    height: int
    orientation: int
    """EXIF's, 1 to 8; 1 where it has none or none that can be understood"""
    depth: int
    """bits of one sample"""
    colours: int
    """JPEG: components (1 grey, 3 colours, 4 CMYK); PNG: colour type (0 grey, 2 RGB, 3 palette, 4 and 6 with alpha)"""
    scans: int
    """JPEG: where the first scan's segment begins; PNG: where the first chunk begins"""
    rare: bool = False
    """JPEG: of a kind that few programs decode (lossless, arithmetic coding, 12 bits)"""
    adobe: bool = False
    """JPEG: written as Adobe's programs do, which store CMYK upside down"""
    parts: bool = False
    """JPEG: announces further pictures or a film behind its end"""
    animated: bool = False
    interlaced: bool = False

    @property
    def seen(self) -> tuple[int, int]:
        """Width and height as a viewer shows the picture."""
        return (self.height, self.width) if self.orientation > 4 else (self.width, self.height)


def kind_of(start: bytes) -> str:
    """What a file that begins so is, for users to read: "a GIF"; "of no known kind"."""
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "a WebP"
    if start[4:8] == b"ftyp":
        return _BOXES.get(start[8:12], "an MP4, HEIC or AVIF file")
    return next((kind for magic, kind in _KINDS.items() if start.startswith(magic)), "of no known kind")


def read_header(data: bytes) -> Header:
    """The header of a JPEG or PNG.

    Raises:
        DamagedError: there is none, it breaks off, or it contradicts itself.
    """
    try:
        if data.startswith(JPEG):
            return _jpeg(data)
        if data.startswith(PNG):
            return _png(data)
    except (struct.error, IndexError):
        raise DamagedError("the header breaks off") from None
    raise DamagedError(f"the content is {kind_of(data[:32])}, neither JPEG nor PNG")


def chunks(data: bytes, at: int = len(PNG)) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a PNG up to IEND: kind, where its content begins, and where that ends.

    Raises:
        DamagedError: a chunk reaches beyond the file's end, or there is no IEND.
    """
    kind = b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise DamagedError("it breaks off before its end (IEND)")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            raise DamagedError(f"it breaks off within a chunk ({kind.decode('latin1')!r})")
        yield kind, at + 8, end
        at = end + 4


def _jpeg(data: bytes) -> Header:
    frame, usual, orientation, adobe, parts, scans = b"", True, None, False, False, 0
    for marker, start, end in _segments(data):
        scans = start - 4
        if marker in _FRAMES:
            if frame:
                raise DamagedError("it has two frame headers")
            frame, usual = data[start:end], marker in _USUAL_FRAMES
        elif marker == 0xE1 and data.startswith(b"Exif\x00", start):
            orientation = orientation or _orientation(data[start + 6 : end])
        elif marker == 0xE1:
            parts = parts or any(data.find(name, start, end) >= 0 for name in _PARTS)
        elif marker == 0xE2:
            parts = parts or data.startswith(b"MPF\x00", start)
        elif marker == 0xEE:
            adobe = adobe or data.startswith(b"Adobe", start)
    if not frame:
        raise DamagedError("it has no frame header")
    depth, height, width, components = struct.unpack_from(">BHHB", frame)
    if not width or not height:
        raise DamagedError(f"the header gives its size as {width} x {height}")
    return Header(
        "jpeg", width, height, orientation or 1, depth, components, scans,
        rare=not usual or depth != 8, adobe=adobe, parts=parts,
    )  # fmt: skip


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The segments of a JPEG up to the first scan's: marker, where the content begins, and where it ends."""
    at, marker = 2, 0
    while marker != 0xDA:
        if data[at] != 0xFF:
            raise DamagedError("there are bytes between its segments that belong to none")
        marker = data[at + 1]
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in (0xD8, 0xD9):
            raise DamagedError("it ends before it holds any picture")
        (length,) = struct.unpack_from(">H", data, at + 2)
        if length < 2:
            raise DamagedError("a segment of the header has an impossible length")
        yield marker, at + 4, at + 2 + length
        at += 2 + length


def _png(data: bytes) -> Header:
    length, kind = struct.unpack_from(">I4s", data, len(PNG))
    if kind != b"IHDR" or length != 13:
        raise DamagedError("it does not begin with its header (IHDR)")
    width, height, depth, colours, _, _, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    if not 0 < width < 2**31 or not 0 < height < 2**31:
        raise DamagedError(f"the header gives its size as {width} x {height}")
    orientation, animated, palette = 1, False, False
    for kind, start, end in chunks(data):
        palette = palette or kind == b"PLTE"
        if kind == b"eXIf":
            orientation = _orientation(data[start:end].removeprefix(b"Exif\x00\x00"))
        animated = animated or kind == b"acTL"
    if colours == 3 and not palette:
        raise DamagedError("it has no palette, which its header speaks of")
    return Header("png", width, height, orientation, depth, colours, 8, animated=animated, interlaced=interlace != 0)


def _orientation(tiff: bytes) -> int:
    """The orientation that EXIF's first directory gives, looked up and nothing else followed; 1 where it is broken."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
            if tag == _ORIENTATION:
                (value,) = struct.unpack_from(f"{order}{'I' if kind == 4 else 'H'}", tiff, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:  # broken EXIF beside sound pixels: seen as stored
        pass
    return 1
