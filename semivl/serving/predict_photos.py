"""The photos that are predicted: a folder, a single file, an S3 prefix, or a split of a snapshot."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from semivl.data.bounds import require_allowed
from semivl.data.cache import ShardCache, read_sample
from semivl.data.checks import Limits, Quarantined
from semivl.data.layouts.folders import is_picture
from semivl.data.names import name_faults
from semivl.data.sample import Row, Source, Split
from semivl.data.snapshot import read
from semivl.data.source_files import LocalFiles, S3Files, SourceFiles, read_raw
from semivl.data.store import Store, open_store
from semivl.errors import DataError
from semivl.settings import home, settings

_SNAPSHOT = re.compile(r"(?P<dataset>[a-z0-9][a-z0-9-]{0,62})@(?P<version>HEAD|[0-9a-f]{16})")


@dataclass(frozen=True)
class Photo:
    """A photo that is to be predicted; not read yet."""

    name: str
    """its path relative to the source; of a snapshot's sample the key"""
    size: int
    """bytes that its file is said to have"""
    fault: Quarantined | None = None
    """why its name alone keeps it out"""
    row: Row | None = None
    """of a snapshot's sample, which was checked at ingest"""

    @property
    def told(self) -> str:
        """The name as any reader can take it; bytes that are no UTF-8 are escaped."""
        return self.name.encode(errors="backslashreplace").decode()


class Photos(Protocol):
    """A source of photos. `read` never raises for what is wrong with one photo."""

    @property
    def address(self) -> str: ...

    def listed(self) -> list[Photo]:
        """All of them, sorted by name."""
        ...

    def read(self, photo: Photo) -> bytes | Quarantined: ...


def open_photos(source: str, split: Split | None, limits: Limits) -> Photos:
    """The photos of `s3://BUCKET/PREFIX`, `DATASET@VERSION` or `DATASET@HEAD`, or a path, relative to where one is.

    Raises:
        DataError: PRED003 there is no such source, DATA124 it lies where none may, DATA201 or DATA202 no such snapshot.
    """
    if source.startswith("s3://"):
        require_allowed(source)
        bucket, _, prefix = source.removeprefix("s3://").partition("/")
        files = S3Files(Store(settings()).of(bucket), f"{prefix.strip('/')}/" if prefix.strip("/") else "")
        return FilePhotos(files, limits)
    path = Path(source).expanduser()
    if path.exists():
        require_allowed(path.resolve())
    if path.is_dir():
        return FilePhotos(LocalFiles(path.resolve()), limits)
    if path.is_file():
        return FilePhotos(LocalFiles(path.resolve().parent), limits, path.name)
    found = _SNAPSHOT.fullmatch(source)
    if not found:
        raise DataError(
            "PRED003",
            f"there is no folder or file {source}, and it names no snapshot.",
            "Give a folder, a photo, s3://BUCKET/PREFIX, or DATASET@VERSION (DATASET@HEAD for the current one).",
        )
    store, version = open_store(), found["version"]
    snapshot = read(store, found["dataset"], None if version == "HEAD" else version)
    cache = ShardCache(store, found["dataset"], home() / "cache" / "shards")
    return SamplePhotos(cache, list(snapshot.rows(split)), f"{found['dataset']}@{snapshot.manifest.version}", split)


@dataclass(frozen=True)
class FilePhotos:
    """The pictures below a folder or a prefix, or the one of them that is named."""

    files: SourceFiles
    limits: Limits
    only: str | None = None

    @property
    def address(self) -> str:
        return f"{self.files.address}/{self.only}" if self.only else self.files.address

    def listed(self) -> list[Photo]:
        if self.only:
            return [Photo(self.only, 0)]
        found = [info for info in self.files.names() if is_picture(info.name)]
        faults = name_faults(info.name for info in found)
        return sorted((Photo(i.name, i.size, faults.get(i.name)) for i in found), key=lambda photo: photo.name)

    def read(self, photo: Photo) -> bytes | Quarantined:
        found = read_raw(self.files, Source(Path(photo.name), None), self.limits)
        return found if isinstance(found, Quarantined) else found.image


@dataclass(frozen=True)
class SamplePhotos:
    """The samples of a snapshot, by their keys."""

    cache: ShardCache
    rows: list[Row]
    snapshot: str
    split: Split | None

    @property
    def address(self) -> str:
        return f"{self.snapshot} {self.split}" if self.split else self.snapshot

    def listed(self) -> list[Photo]:
        return [Photo(row.key, row.image_bytes, row=row) for row in sorted(self.rows, key=lambda row: row.key)]

    def read(self, photo: Photo) -> bytes | Quarantined:
        assert photo.row
        return read_sample(self.cache, photo.row)[0]


def chunks(photos: list[Photo], count: int, size: int) -> Iterator[list[Photo]]:
    """The photos in their order, at most `count` and, but for a single one, `size` bytes at once."""
    chunk, total = [], 0
    for photo in photos:
        if chunk and (len(chunk) == count or total + photo.size > size):
            yield chunk
            chunk, total = [], 0
        chunk.append(photo)
        total += photo.size
    if chunk:
        yield chunk
