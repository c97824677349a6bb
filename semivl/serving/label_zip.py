"""Zips from elsewhere: every member is looked at before one is read, and nothing is ever unpacked to the disk."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from semivl.errors import LabelError
from semivl.serving.label_drawn import bad_file

MOST_MEMBERS = 500_000
MOST_BYTES = 4 << 30
"""of all members together, unpacked"""
MOST_RATIO = 1100
"""bytes that one packed byte may become: deflate makes at most 1032 of it, other methods far more"""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip, whose members are safe to read.

    Raises:
        LabelError: LABEL004 it is none, or damaged; LABEL009 a member leads out of it, is locked, or grows too large.
    """
    try:
        with zipfile.ZipFile(path) as file:
            _require_safe(path, file.infolist())
            yield file
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise bad_file(path, f"the zip is damaged ({error})") from None


def _require_safe(path: Path, members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MOST_MEMBERS:
        raise _unsafe(path, f"it has {len(members):,} members, more than {MOST_MEMBERS:,}")
    total = 0
    for member in members:
        windows, posix = PureWindowsPath(member.filename), PurePosixPath(member.filename)
        if posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
            raise _unsafe(path, f"{member.filename!r} leads out of it")
        if member.external_attr >> 28 == 0xA:
            raise _unsafe(path, f"{member.filename!r} is a symbolic link")
        if member.flag_bits & 0x1:
            raise _unsafe(path, f"{member.filename!r} is locked with a password")
        if member.compress_type not in _METHODS:
            raise _unsafe(path, f"{member.filename!r} is packed by another method than deflate")
        total += member.file_size
        if total > MOST_BYTES or member.file_size > MOST_RATIO * max(member.compress_size, 1):
            raise _unsafe(path, f"{member.filename!r} would grow to {member.file_size:,} bytes, of {total:,} so far")


def _unsafe(path: Path, why: str) -> LabelError:
    return LabelError("LABEL009", f"{path} is not opened: {why}.", "Export it from the tool again, unlocked.")
