"""Checks: what a file must be before it may become a sample. Every fault has a stable code (docs/codes.md).

Cheapest first: bytes, format, header (pixels, aspect, animation), whole or cut off, and only then the full decode,
once. A picture is always seen with its EXIF orientation applied; a mask must fit the picture as it is then seen.
Phones' pictures with a second picture or a short film behind them pass, as those say so in their header; anything else
behind a picture's end is refused. Texts and colour profiles stay as they are, and are never unpacked here.
"""

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from semivl.config import Classes
from semivl.data.decode import EmptyPictureError, Pixels, decode_grey
from semivl.data.headers import JPEG, PNG, DamagedError, Format, Header, RefusedError, kind_of, read_header
from semivl.data.mask_checks import mask_counts
from semivl.data.phash import phash
from semivl.data.sample import Row, Source, Supervision
from semivl.data.whole import require_whole

if TYPE_CHECKING:
    from semivl.config import DataConfig

_FORMATS: tuple[Format, ...] = ("jpeg", "png")


@dataclass(frozen=True)
class Limits:
    """What a file may be at the most."""

    max_pixels: int = 64_000_000
    max_bytes: int = 64_000_000
    """of an image's file or a mask's"""
    max_aspect: float = 30.0
    """long side by short side"""
    formats: tuple[Format, ...] = _FORMATS

    @classmethod
    def of(cls, config: "DataConfig") -> "Limits":
        """The limits that a source's settings give."""
        return cls(**{f.name: getattr(config, f.name) for f in fields(cls)})


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

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the image; once it is known it goes along to other processes."""
        return hashlib.sha256(self.image).hexdigest()


@dataclass(frozen=True)
class Checked:
    """A sample that passed. Its row lacks only the place in a shard."""

    files: Files
    ending: Literal["jpg", "png"]
    row: Row


def examine(source: Source, files: Files, classes: Classes, limits: Limits) -> Checked | Quarantined:
    """The sample of the files' bytes, or the first check that they failed.

    Nothing but the bytes decides. A decoder that crashes takes the process along: semivl.data.check_pool.

    Raises:
        MemoryError: a file needs more memory than this process may have.
    """
    at, data = source.image, files.image
    try:
        header = _header(data, limits)
        grey = _grey(data, header)
        pixels, ignored = (), 0
        if files.mask is not None:
            at, data = source.mask or source.image, files.mask
            pixels, ignored = mask_counts(data, header.seen, len(classes), limits.max_bytes)
    except RefusedError as fault:
        return Quarantined(name_of(at), fault.code, fault.reason, len(data))
    width, height = header.seen
    row = Row(
        key=files.sha256[:16],
        shard="",
        image_offset=0,
        image_bytes=len(files.image),
        mask_offset=None,
        mask_bytes=None if files.mask is None else len(files.mask),
        sha256=files.sha256,
        mask_sha256=sha256_of(files.mask),
        phash=phash(grey),
        width=width,
        height=height,
        orientation=header.orientation,
        split=source.split,  # pyright: ignore[reportArgumentType] (None: whoever knows the share decides by the key)
        supervision=supervision_of(source),
        tags=source.tags,
        tags_complete=source.tags_complete,
        caption=source.caption,
        pixels=pixels,
        ignored=ignored,
        brightness=round(_sum(grey) / grey.size, 2),
        source=name_of(source.image),
    )
    return Checked(files, "png" if header.format == "png" else "jpg", row)


def _sum(grey: Pixels) -> int:
    """Exact; in 32 bits, where they hold it, at half the cost."""
    return int(grey.sum(dtype=np.uint32 if grey.size < 1 << 24 else np.uint64))


def sha256_of(data: bytes | None) -> str | None:
    """Hex digest of the bytes, where there are any."""
    return None if data is None else hashlib.sha256(data).hexdigest()


def supervision_of(source: Source) -> Supervision:
    """The strongest kind of supervision that the source has."""
    if source.masked:
        return "mask"
    if source.tags or source.tags_complete:
        return "tags"
    return "caption" if source.caption else "none"


def name_of(path: Path) -> str:
    """The path as text that any reader can take."""
    return as_text(path.as_posix())


def as_text(name: str) -> str:
    """The name of a file as text that any reader can take; bytes that are no UTF-8 are escaped."""
    return name if name.isascii() else name.encode(errors="backslashreplace").decode()


def _header(data: bytes, limits: Limits) -> Header:
    """The header of a picture that is whole and within the limits."""
    if not data:
        raise RefusedError("DATA009", "the file is empty")
    if len(data) > limits.max_bytes:
        raise RefusedError("DATA014", f"{len(data)} bytes are more than {limits.max_bytes}")
    if not data.startswith((JPEG, PNG)):
        raise RefusedError("DATA002", f"the content is {kind_of(data[:32])}, neither JPEG nor PNG")
    try:
        header = read_header(data)
        _require_limits(header, limits)
        require_whole(data, header)
    except DamagedError as error:
        raise RefusedError(
            "DATA003", f"the picture cannot be decoded whole: {str(error) or type(error).__name__}"
        ) from None
    return header


def _require_limits(header: Header, limits: Limits) -> None:
    width, height = header.width, header.height
    if header.format not in limits.formats:
        raise RefusedError("DATA002", f"it is a {header.format.upper()}, of which `formats` says nothing")
    if width * height > limits.max_pixels:
        raise RefusedError("DATA010", f"{width} x {height} pixels are more than {limits.max_pixels}")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise RefusedError(
            "DATA015", f"{width} x {height}: one side is more than {limits.max_aspect:g} times the other"
        )
    if header.animated:
        raise RefusedError("DATA016", "it is an animation")
    if header.rare:
        raise RefusedError(
            "DATA024", "it is a JPEG that few programs decode: lossless, arithmetic-coded, or not of 8 bits"
        )


def _grey(data: bytes, header: Header) -> Pixels:
    try:
        return decode_grey(data, header)
    except EmptyPictureError as error:
        raise RefusedError("DATA018", str(error)) from None
    except Exception as error:  # a decoder may raise anything on broken bytes
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            raise MemoryError from None
        if type(error).__name__ == "DecompressionBombError":
            raise RefusedError("DATA010", "the header promises more pixels than Pillow will decode") from None
        raise RefusedError(
            "DATA003", f"the picture cannot be decoded whole: {str(error) or type(error).__name__}"
        ) from None
