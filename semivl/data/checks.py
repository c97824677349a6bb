"""Checks: what a file must be before it may become a sample. Every fault has a stable code (docs/codes.md).

Cheapest first: the first bytes, the header, the number of pixels, and only then the full decode, once.
A picture is always seen with its EXIF orientation applied; a mask must fit the picture as it is then seen.
"""

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from semivl.config import IGNORE, Classes
from semivl.data.mask_ids import class_ids
from semivl.data.sample import Row, Source, Supervision

if TYPE_CHECKING:
    from PIL import Image

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_OTHERS = {
    b"PK\x03\x04": "a ZIP archive", b"GIF8": "a GIF", b"RIFF": "a WebP or other RIFF file", b"%PDF": "a PDF",
    b"BM": "a BMP", b"II*\x00": "a TIFF", b"MM\x00*": "a TIFF", b"\x00\x00\x00": "an MP4, HEIC or AVIF file",
    b"<": "HTML, XML or SVG", b"\x1f\x8b": "a gzip archive",
}  # fmt: skip
_ORIENTATION = 0x0112
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""EXIF orientation -> PIL's Transpose that undoes it"""


@dataclass(frozen=True)
class Quarantined:
    """A file that is left out: its path relative to the source, the check's code, the reason in words."""

    source: str
    code: str
    reason: str
    bytes: int | None = None
    """size of the file, which is not kept; None where it was not read"""


@dataclass(frozen=True)
class Files:
    """The bytes of one image and its mask, read but not checked. The mask's values are class ids."""

    image: bytes
    mask: bytes | None


@dataclass(frozen=True)
class Checked:
    """A sample that passed. Its row lacks only the place in a shard."""

    files: Files
    ending: Literal["jpg", "png"]
    row: Row


class _CheckError(Exception):
    """A check that failed: the file at fault, the code, the reason."""

    def __init__(self, path: Path, code: str, reason: str) -> None:
        super().__init__(path, code, reason)
        self.quarantined = Quarantined(name_of(path), code, reason)


def check(source: Source, root: Path, classes: Classes, max_pixels: int) -> Checked | Quarantined:
    """The sample, decoded whole once and found good, or the first check that it failed."""
    files = read_files(source, root)
    return files if isinstance(files, Quarantined) else examine(source, files, classes, max_pixels)


def read_files(source: Source, root: Path) -> Files | Quarantined:
    """The bytes of the source's files. Not read further than the first ones where those are of no picture."""
    try:
        image = _read(root, source.image, "DATA001", (_JPEG, _PNG), "DATA002", "neither JPEG nor PNG")
        if source.mask is None:
            return Files(image, None)
        mask = _read(root, source.mask, "DATA008", (_PNG,), "DATA006", "not a PNG of class ids")
        return Files(image, class_ids(mask, source.mask_ids))
    except _CheckError as fault:
        return fault.quarantined


def examine(source: Source, files: Files, classes: Classes, max_pixels: int) -> Checked | Quarantined:
    """The sample of the files' bytes, or the first check that they failed."""
    try:
        picture, orientation = _picture(source.image, files.image, max_pixels)
        pixels, ignored = _mask_counts(source, files.mask, picture.size, classes)
    except _CheckError as fault:
        return fault.quarantined
    sha256 = hashlib.sha256(files.image).hexdigest()
    row = Row(
        key=sha256[:16],
        shard="",
        image_offset=0,
        image_bytes=len(files.image),
        mask_offset=None,
        mask_bytes=None if files.mask is None else len(files.mask),
        sha256=sha256,
        mask_sha256=sha256_of(files.mask),
        phash=_phash(picture),
        width=picture.width,
        height=picture.height,
        orientation=orientation,
        split=source.split,
        supervision=supervision_of(source),
        tags=source.tags,
        caption=source.caption,
        pixels=pixels,
        ignored=ignored,
        brightness=round(float(np.asarray(picture.convert("L")).mean()), 2),
        source=name_of(source.image),
    )
    return Checked(files, "png" if files.image.startswith(_PNG) else "jpg", row)


def sha256_of(data: bytes | None) -> str | None:
    """Hex digest of the bytes, where there are any."""
    return None if data is None else hashlib.sha256(data).hexdigest()


def decode_image(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB as a person sees it: EXIF orientation applied, transparency dropped."""
    return np.asarray(_seen(_open(data, ("JPEG", "PNG")))[0])


def decode_mask(data: bytes) -> np.ndarray:
    """(H, W) uint8 class ids; of a palette PNG the ids, never the colours."""
    return np.asarray(_open(data, ("PNG",)))


def supervision_of(source: Source) -> Supervision:
    """The strongest kind of supervision that the source has."""
    if source.masked:
        return "mask"
    if source.tags:
        return "tags"
    return "caption" if source.caption else "none"


def name_of(path: Path) -> str:
    """The path as text that any reader can take; bytes that are no UTF-8 are escaped."""
    return path.as_posix().encode(errors="backslashreplace").decode()


def _read(root: Path, path: Path, absent: str, starts: tuple[bytes, ...], code: str, wanted: str) -> bytes:
    if path.is_absolute() or ".." in path.parts:
        raise _CheckError(path, "DATA013", "the path leads out of the source folder")
    try:
        if not (root / path).is_file():
            raise _CheckError(path, absent, "there is no such file, though a list, mask or caption names it")
        with (root / path).open("rb") as file:
            start = file.read(16)
            if not start:
                raise _CheckError(path, "DATA009", "the file is empty")
            if not start.startswith(starts):
                raise _CheckError(path, code, f"the content is {_kind(start)}, {wanted}")
            return start + file.read()
    except OSError as error:
        raise _CheckError(path, "DATA001", f"the file cannot be read: {error.strerror or error}") from None


def _kind(start: bytes) -> str:
    known = {_JPEG: "a JPEG", _PNG: "a PNG"} | _OTHERS
    return next((kind for magic, kind in known.items() if start.startswith(magic)), "of no known kind")


def _open(data: bytes, formats: tuple[str, ...]) -> "Image.Image":
    from PIL import Image

    return Image.open(io.BytesIO(data), formats=formats)


def _picture(path: Path, data: bytes, max_pixels: int) -> tuple["Image.Image", int]:
    """The picture as seen, in RGB, and its EXIF orientation."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels is the limit here
            image = _open(data, ("JPEG", "PNG"))
    except Image.DecompressionBombError:
        raise _CheckError(path, "DATA010", "the header promises more pixels than Pillow will decode") from None
    except Exception as error:  # a decoder may raise anything on broken bytes
        raise _CheckError(path, "DATA003", f"the header cannot be read: {error}") from None
    if image.width * image.height > max_pixels:
        raise _CheckError(path, "DATA010", f"{image.width} x {image.height} pixels are more than {max_pixels}")
    try:
        return _seen(image)
    except Exception as error:
        raise _CheckError(path, "DATA003", f"the picture cannot be decoded whole: {error}") from None


def _seen(image: "Image.Image") -> tuple["Image.Image", int]:
    from PIL import Image

    image.load()
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF beside sound pixels: seen as stored
        orientation = 1
    if image.mode.startswith("I"):  # 16 bits a pixel; convert() would cut them off, not scale them
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    image = image.convert("RGB")
    if orientation not in _TURNS:
        return image, 1
    return image.transpose(Image.Transpose(_TURNS[orientation])), orientation


def _mask_counts(
    source: Source, data: bytes | None, size: tuple[int, int], classes: Classes
) -> tuple[tuple[int, ...], int]:
    """Pixels of each class, and those to ignore."""
    if data is None or source.mask is None:
        return (), 0
    depth, kind = (data[24], data[25]) if len(data) > 25 else (0, 0)
    if (depth, kind) != (8, 0) and kind != 3:
        raise _CheckError(
            source.mask, "DATA006", "the PNG holds colours or another depth, not 8-bit ids (palette or grey)"
        )
    try:
        mask = _open(data, ("PNG",))
        if mask.size != size:
            raise _CheckError(
                source.mask,
                "DATA005",
                f"{mask.size[0]} x {mask.size[1]} does not fit the image's {size[0]} x {size[1]}",
            )
        counts = np.bincount(np.asarray(mask).ravel(), minlength=256)
    except _CheckError:
        raise
    except Exception as error:
        raise _CheckError(source.mask, "DATA007", f"the mask cannot be decoded whole: {error}") from None
    unknown = [int(i) for i in np.flatnonzero(counts) if i >= len(classes) and i != IGNORE]
    if unknown:
        raise _CheckError(source.mask, "DATA004", f"ids {unknown} are outside the class map of {len(classes)} classes")
    if counts[IGNORE] == counts.sum():
        raise _CheckError(source.mask, "DATA012", f"every pixel is {IGNORE}, to be ignored")
    return tuple(int(n) for n in counts[: len(classes)]), int(counts[IGNORE])


def _phash(picture: "Image.Image") -> str:
    import imagehash

    return str(imagehash.phash(picture))
