"""Source files: what lies in a source, wherever that is: a folder, an S3 prefix, or the tars in either.

Everything above reads a source through `SourceFiles` alone: layouts list it, an ingest reads a sample's bytes. Nothing
is copied. A `SourceFiles` may be pickled and sent to another process or machine.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from semivl.config import Classes, DataConfig
from semivl.data import disk
from semivl.data.bounds import require_allowed
from semivl.data.checks import Files, Limits, Quarantined, name_of
from semivl.data.disk import FileInfo as FileInfo
from semivl.data.mask_ids import class_ids
from semivl.data.sample import Source
from semivl.data.store import Store
from semivl.errors import DataError, StoreError
from semivl.settings import ROOT, settings

_S3 = "s3://"


class SourceFiles(Protocol):
    """The files of one source, by name. `read` raises an OSError or a DataError where a file cannot be read."""

    @property
    def address(self) -> str:
        """The source as users write it."""
        ...

    def names(self, folder: str = "") -> Iterator[FileInfo]:
        """All files below the folder, sorted by name; hidden ones (.DS_Store) are nobody's photos."""
        ...

    def has(self, name: str) -> bool: ...

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """The file's bytes from `start`, `length` of them or as many as there are."""
        ...


def source_folder(config: DataConfig) -> Path:
    """A source on disk as a path; relative ones count from the checkout."""
    return ROOT / Path(config.source).expanduser()


def open_source(config: DataConfig) -> SourceFiles:
    """The source that the settings name. Nothing is read yet.

    Raises:
        DataError: DATA124, it lies where none may.
    """
    from semivl.data.tar_files import TarFiles

    source = str(config.source)
    require_allowed(source)
    files: SourceFiles = LocalFiles(source_folder(config))
    if source.startswith(_S3):
        bucket, _, prefix = source.removeprefix(_S3).partition("/")
        files = S3Files(Store(settings()).of(bucket), f"{prefix.strip('/')}/" if prefix.strip("/") else "")
    return TarFiles(files) if config.layout == "webdataset" else files


def require_within(name: str) -> None:
    """Refuses a name that leads out of the source, DATA013, and one that no file can have."""
    if "\0" in name:
        raise FileNotFoundError(errno.ENOENT, "no file has such a name", name)
    if name.startswith("/") or ".." in name.split("/"):
        raise DataError("DATA013", f"the path {name} leads out of the source.", "Name files within the source.")


@dataclass(frozen=True)
class LocalFiles:
    """A folder on disk. Links are followed as long as they stay in it."""

    root: Path

    @property
    def address(self) -> str:
        return str(self.root)

    @cached_property
    def _real(self) -> str:
        return os.path.realpath(self.root)

    @cached_property
    def _folders(self) -> dict[str, str]:
        return {}

    def names(self, folder: str = "") -> Iterator[FileInfo]:
        """As SourceFiles. A link to a folder is listed as a file, which reading it refuses: nothing is left out unseen.

        Raises:
            DataError: DATA101 there is no such source; DATA112 a folder cannot be listed; DATA013 the folder lies
                elsewhere.
        """
        yield from self.infos(self.paths(folder))

    def paths(self, folder: str = "") -> Iterator[str]:
        """As `names`, the names alone: nothing is asked about the files."""
        if not self.root.is_dir():
            raise DataError("DATA101", f"there is no folder {self.root}.", "Mend `source` in the experiment's data.")
        if (self.root / folder).is_dir():
            self._place(folder)
        yield from disk.below(str(self.root / folder), f"{folder}/" if folder else "")

    def infos(self, names: Iterable[str]) -> Iterator[FileInfo]:
        """What is to be known of the files; of what is not there nothing comes."""
        return disk.infos(str(self.root), names)

    def has(self, name: str) -> bool:
        try:
            return Path(self._place(name)).is_file()
        except (DataError, OSError):
            return False

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        # a pipe in a photo's place must not block, so that it is opened without waiting for a writer
        handle = os.open(self._place(name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            told = os.fstat(handle)
            if not stat.S_ISREG(told.st_mode):
                raise FileNotFoundError(errno.ENOENT, "it is no file", name)
            return disk.part(handle, start, told.st_size if length is None else min(length, told.st_size))
        finally:
            os.close(handle)

    def _folder(self, folder: str) -> str:
        """Where the folder really lies; looked up once, as thousands of files lie in one."""
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(f"{self._real}/{folder}")
        return self._folders[folder]

    def _place(self, name: str) -> str:
        """Where the file really lies, all links followed."""
        require_within(name)
        folder, slash, last = name.rpartition("/")
        place = f"{self._folder(folder)}/{last}" if slash else f"{self._real}/{last}"
        if not last or os.path.islink(place):  # noqa: PTH114 (Path is five times slower)
            place = os.path.realpath(place)
        if place != self._real and not place.startswith(os.path.join(self._real, "")):  # noqa: PTH118
            raise DataError(
                "DATA013",
                f"{name} is a link that leads out of the source folder {self.root}.",
                "Set `source` to the folder that holds the files, or move them into it.",
            )
        return place


@dataclass(frozen=True)
class S3Files:
    """The objects of a bucket below a prefix, which is empty or ends in a slash."""

    store: Store
    prefix: str

    @property
    def address(self) -> str:
        return self.store.address(self.prefix).rstrip("/")

    def names(self, folder: str = "") -> Iterator[FileInfo]:
        """As SourceFiles. Sorted here, since not every S3 lists in the order of whole names.

        Raises:
            DataError: DATA101 there is no such bucket.
            StoreError: S3 does not answer, or refuses.
        """
        found = []
        try:
            for listed in self.store.listed(f"{self.prefix}{folder}/" if folder else self.prefix):
                name = listed.key.removeprefix(self.prefix)
                if not name.endswith("/") and not hidden(name):  # some tools make an object a/ for each folder
                    found.append(FileInfo(name, listed.size, listed.etag.strip('"')))
        except StoreError as error:
            if error.code != "STORE004":
                raise
            raise DataError(
                "DATA101", f"there is no bucket {self.store.bucket}.", "Mend `source` in the experiment's data."
            ) from None
        yield from sorted(found, key=lambda info: info.name)

    def has(self, name: str) -> bool:
        try:
            require_within(name)
        except (DataError, OSError):
            return False
        return self.store.exists(self.prefix + name)

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """As SourceFiles. Bytes that semivl put are compared with what was put where all of them are read."""
        require_within(name)
        key = self.prefix + name
        size = self.store.size(key) if start == 0 else None
        if start == 0 and size is None:
            raise _absent(name)
        if size is not None and (length is None or size <= length):
            return self.store.get(key)
        try:
            return self.store.get(key, start, length)
        except StoreError as error:
            if error.code == "STORE003":
                raise _absent(name) from None
            if error.code == "STORE005" and (self.store.size(key) or 0) <= start:
                return b""  # S3 refuses a range that begins at the end, where a file gives nothing
            raise


def read_files(files: SourceFiles, source: Source, classes: Classes, limits: Limits) -> Files | Quarantined:
    """The bytes of the source's image and mask, the mask as class ids. Each is read whole, once.

    Raises:
        StoreError: S3 does not answer; not what is wrong with one object.
    """
    raw = read_raw(files, source, limits)
    return raw if isinstance(raw, Quarantined) else with_class_ids(source, raw, classes, limits)


def read_raw(files: SourceFiles, source: Source, limits: Limits) -> Files | Quarantined:
    """As `read_files`, with the mask as the source has it: nothing is decoded."""
    image = _read(files, source.image, "DATA001", limits)
    if isinstance(image, Quarantined) or source.mask is None:
        return image if isinstance(image, Quarantined) else Files(image, None)
    mask = _read(files, source.mask, "DATA008", limits)
    return mask if isinstance(mask, Quarantined) else Files(image, mask)


def with_class_ids(source: Source, raw: Files, classes: Classes, limits: Limits) -> Files | Quarantined:
    """The files of `read_raw` with the mask as class ids, for which it is decoded or drawn."""
    if not source.masked:
        return raw
    try:
        mask = class_ids(raw.mask, source.mask_ids, source.annotation, classes, limits.max_pixels)
    except DataError as error:
        size = None if raw.mask is None else len(raw.mask)
        return Quarantined(name_of(source.mask or source.image), error.code, error.what, size)
    return raw if mask is raw.mask else Files(raw.image, mask)


def _read(files: SourceFiles, path: Path, absent: str, limits: Limits) -> bytes | Quarantined:
    """The file's bytes, one more than there may be at the most."""
    try:
        data = files.read(path.as_posix(), 0, limits.max_bytes + 1)
    except DataError as error:
        return Quarantined(name_of(path), error.code, error.what)
    except OSError as error:
        if error.errno in (*disk.GONE, errno.EISDIR):
            reason = "there is no such file, though a list, mask or caption names it"
            return Quarantined(name_of(path), absent, reason)
        return Quarantined(name_of(path), "DATA001", f"the file cannot be read: {error.strerror or error}")
    except StoreError as error:
        if error.code != "STORE007":
            raise
        return Quarantined(name_of(path), "DATA001", f"the file cannot be read: {error.what}")
    return data or Quarantined(name_of(path), "DATA009", "the file is empty", 0)


def _absent(name: str) -> OSError:
    return FileNotFoundError(errno.ENOENT, "there is no such object", name)


def hidden(name: str) -> bool:
    """Whether the name, or a folder in it, begins with a dot: left alone, as an editor's or a system's own."""
    return "/." in f"/{name}" and any(p.startswith(".") and p != ".." for p in name.split("/"))
