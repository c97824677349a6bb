"""The shard cache: shards on the local disk by content hash, read by offset.

A shard is downloaded once for a machine, however many processes ask for it, and its SHA-256 is compared the
first time that a process uses it.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semivl.data.sample import Row
from semivl.data.shards import shard_key
from semivl.data.store import Store
from semivl.errors import DataError


class ShardCache:
    """The shards of one dataset in a local folder, which any number of processes may share."""

    def __init__(self, store: Store, dataset: str, folder: Path) -> None:
        self.store, self.dataset, self.folder = store, dataset, folder
        self._verified: set[str] = set()

    def path(self, sha256: str) -> Path:
        """The shard's file, whole and with the content that its name promises.

        Raises:
            DataError: DATA207 the shard in the store is damaged.
            StoreError: the store cannot be reached, or has no such shard.
        """
        path = self.folder / f"{sha256}.tar"
        if sha256 in self._verified:
            return path
        with self._alone(sha256):
            if not _holds(path, sha256):
                self.store.download(shard_key(self.dataset, sha256), path)
                if not _holds(path, sha256):
                    path.unlink()
                    raise _damaged(self.store.address(shard_key(self.dataset, sha256)))
        self._verified.add(sha256)
        return path

    def renew(self, sha256: str) -> Path:
        """The shard's file, compared anew: for a reader that found it cut or gone."""
        self._verified.discard(sha256)
        return self.path(sha256)

    @contextmanager
    def _alone(self, sha256: str) -> Iterator[None]:
        """One process at a time; the lock goes with the process that held it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{sha256}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def read_sample(cache: ShardCache, row: Row) -> tuple[bytes, bytes | None]:
    """The image's and the mask's bytes; None for the mask that the sample has not."""
    try:
        return _members(cache.path(row.shard), row)
    except (FileNotFoundError, EOFError):  # somebody emptied the cache's folder, or cut a file, meanwhile
        return _members(cache.renew(row.shard), row)


def _members(path: Path, row: Row) -> tuple[bytes, bytes | None]:
    shard = os.open(path, os.O_RDONLY)
    try:
        image = _pread(shard, row.image_bytes, row.image_offset)
        if row.mask_offset is None or row.mask_bytes is None:
            return image, None
        return image, _pread(shard, row.mask_bytes, row.mask_offset)
    finally:
        os.close(shard)


def _pread(file: int, length: int, offset: int) -> bytes:
    data = os.pread(file, length, offset)
    if len(data) != length:
        raise EOFError
    return data


def _holds(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _damaged(address: str) -> DataError:
    return DataError(
        "DATA207",
        f"{address} is damaged: its content is not what its name says.",
        "Delete it and ingest again.",
    )
