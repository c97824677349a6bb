"""Tar files: a source whose images lie in WebDataset tars, each member a file named `shard-000.tar/key.jpg`.

Headers are read when a source is listed, and the small texts beside the images; an image only when it is asked for,
from its place in the tar. That holds on S3 too, where each is a range of the object.
"""

import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from io import SEEK_SET
from itertools import takewhile
from pathlib import PurePosixPath

from semivl.data.source_files import FileInfo, SourceFiles, hidden
from semivl.errors import DataError

TEXTS = (".json", ".txt", ".cls")
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_WINDOW = 8192
"""bytes read at a time on the way from header to header: mostly the next header, and the texts between"""
_LONGEST = 1 << 20
"""bytes of a text, and of an extended header"""
_THREADS = 8
"""tars listed at once; on S3 the time goes into waiting"""
_KEPT = 8
"""tars whose members' places a process remembers"""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a tar: its name in the source, its place in the tar, and what it says if it is a small text."""

    name: str
    offset: int
    size: int
    text: bytes | None


@dataclass(frozen=True, slots=True)
class Tar:
    """A tar's members up to the first fault, and the fault."""

    info: FileInfo
    members: tuple[Member, ...]
    fault: DataError | None


class TarFiles:
    """As SourceFiles, with the tars' members in the place of the tars. A tar with a fault is listed as well: reading
    it raises the fault."""

    def __init__(self, files: SourceFiles) -> None:
        self.files = files
        self._members = lru_cache(_KEPT)(self._read_members)

    def __getstate__(self) -> SourceFiles:
        return self.files

    def __setstate__(self, files: SourceFiles) -> None:
        self.__init__(files)

    @property
    def address(self) -> str:
        return self.files.address

    def names(self, folder: str = "") -> Iterator[FileInfo]:
        infos = list(self.files.names(folder))
        found = [i for i in infos if not is_tar(i.name)]
        for tar in self.tars(infos):
            found += [FileInfo(m.name, m.size, f"{tar.info.stamp}:{m.offset}") for m in tar.members]
            found += [tar.info] if tar.fault else []
        yield from sorted(found, key=lambda info: info.name)

    def tars(self, infos: Iterable[FileInfo]) -> Iterator[Tar]:
        """The tars among the files, each with its members."""
        with ThreadPoolExecutor(_THREADS) as threads:
            yield from threads.map(self._tar, (i for i in infos if is_tar(i.name)))

    def has(self, name: str) -> bool:
        tar, member = _split(name)
        return self.files.has(tar) and (not member or name in self._members(tar))

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        tar, member = _split(name)
        if not member:
            if is_tar(name) and (fault := self._tar(FileInfo(name, 0, "")).fault):
                raise fault
            return self.files.read(name, start, length)
        found = self._members(tar).get(name)
        if found is None:
            raise FileNotFoundError(2, "there is no such member", name)
        left = max(found.size - start, 0)
        return self.files.read(tar, found.offset + start, left if length is None else min(left, length))

    def _read_members(self, tar: str) -> dict[str, Member]:
        return {m.name: m for m in self._tar(FileInfo(tar, 0, "")).members}

    def _tar(self, info: FileInfo) -> Tar:
        members: dict[str, Member] = {}
        fault = None
        try:
            if info.name.lower().endswith(_PACKED):
                raise _fault("DATA118", info.name, "it is compressed", "Unpack it to a plain tar.")
            for member in self._scanned(info.name):
                if member.name in members:
                    raise _fault("DATA119", info.name, f"it holds {member.name} twice", "Keep one of the two.")
                members[member.name] = member
        except DataError as error:
            fault = error
        except OSError as error:
            fault = _fault("DATA118", info.name, f"it cannot be read: {error.strerror}", "Mend its permissions.")
        return Tar(info, tuple(members.values()), fault)

    def _scanned(self, name: str) -> Iterator[Member]:
        """The tar's plain files in their order. DATA118, DATA119 as soon as something is wrong."""
        window = _Window(self.files, name)
        try:
            with tarfile.open(fileobj=window, mode="r:", encoding="utf-8") as tar:  # pyright: ignore[reportArgumentType, reportCallIssue]
                end = 0
                while (found := tar.next()) is not None:
                    if found.size < 0 or tar.offset <= end:
                        raise tarfile.HeaderError("a header with a negative size")
                    end, tar.members = tar.offset, []
                    skipped = found.isdir() or hidden(str(PurePosixPath(found.name)))
                    member = None if skipped else _member(name, found, window)
                    if not window.part(end - 1, 1):
                        raise tarfile.ReadError("it ends within a member")
                    if member:
                        yield member
                # tarfile takes a header that it cannot read for the end, as it does the end of the file
                if window.part(tar.offset, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("there is no end mark where its last whole member ends")
        except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
            raise _fault(
                "DATA118",
                name,
                f"it is cut short or no tar: {error}",
                "Copy it again; it may still grow.",
            ) from None


class _Window:
    """A file of the source as tarfile reads it, a few kilobytes at a time."""

    def __init__(self, files: SourceFiles, name: str) -> None:
        self.files, self.name = files, name
        self._place = self._start = 0
        self._held = b""

    def seek(self, place: int, whence: int = SEEK_SET) -> int:
        assert whence == SEEK_SET
        self._place = place
        return place

    def tell(self) -> int:
        return self._place

    def read(self, length: int) -> bytes:
        found = self.part(self._place, length)
        self._place += len(found)
        return found

    def part(self, start: int, length: int) -> bytes:
        """`length` bytes from `start`, fewer at the end."""
        if length > _LONGEST:
            raise tarfile.HeaderError(f"a header of {length} bytes")
        if not self._start <= start <= start + length <= self._start + len(self._held):
            self._start, self._held = start, self.files.read(self.name, start, max(length, _WINDOW))
        return self._held[start - self._start :][:length]


def is_tar(name: str) -> bool:
    return name.lower().endswith((".tar", *_PACKED))


def _split(name: str) -> tuple[str, str]:
    """The tar and the member that a name leads to; the name itself where it leads into no tar."""
    parts = name.split("/")
    outside = [*takewhile(lambda part: not is_tar(part), parts)]
    return "/".join(parts[: len(outside) + 1]), "/".join(parts[len(outside) + 1 :])


def _member(tar: str, found: tarfile.TarInfo, window: _Window) -> Member:
    """The member with its text where that is small; DATA119 where it is no plain file of the tar."""
    remedy = "Take it out: a tar of samples holds plain files alone."
    if not found.isreg():
        raise _fault("DATA119", tar, f"its member {found.name} is a link or a device", remedy)
    if found.name.startswith("/") or ".." in PurePosixPath(found.name).parts:
        raise _fault("DATA119", tar, f"its member {found.name} leads out of it", remedy)
    small = found.name.lower().endswith(TEXTS) and found.size <= _LONGEST
    text = window.part(found.offset_data, found.size) if small else None
    return Member(f"{tar}/{PurePosixPath(found.name)}", found.offset_data, found.size, text)


def _fault(code: str, tar: str, what: str, remedy: str) -> DataError:
    return DataError(code, f"{tar} cannot be used whole: {what}.", remedy)
