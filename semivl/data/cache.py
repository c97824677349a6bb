"""The shard cache: shards on the local disk by content hash, read by offset.

A shard is downloaded once for a machine, however many processes ask for it; a download that broke off goes on where
it stopped. Its SHA-256 is compared once: a stamp says which file was found good (size, time of change, inode), so
that later processes trust that very file and hash any other anew.

The folder has a bound, and the least recently used shard goes out first. A process that reads a shard keeps it open
and reads on, whoever removes its name; within a minute of reading it notices and lets the disk have the room. Where
the shards that one process learns from are more than the folder may hold, evicting one for another would fetch a
whole shard for nearly every sample. Then the folder keeps what it has, and the samples of the other shards are read
from the store by range.
"""

import errno
import hashlib
import logging
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

from semivl.data.sample import Row, key_of
from semivl.data.shard_folder import ShardFolder
from semivl.data.shards import shard_key
from semivl.data.store import Store
from semivl.errors import DataError

log = logging.getLogger(__name__)
_OPEN = 128
"""shards that a process keeps open; it may usually have 1,024 files"""
_TOUCH_SECONDS = 60.0
_ATTEMPTS = 3
"""downloads of a shard before the store is said to hold a damaged one, and not the line"""
_NONE: frozenset[str] = frozenset()


class OpenShard:
    """A shard that can be read, even when its name is gone; closed when nobody holds it any more."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY)
        self.looked = time.monotonic()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there; EOFError where the file ends before."""
        data = os.pread(self._file, length, offset)
        if len(data) != length:
            raise EOFError
        return data

    def is_removed(self) -> bool:
        return os.fstat(self._file).st_nlink == 0


class ShardCache:
    """The shards of one dataset in a local folder, which any number of processes may share."""

    def __init__(self, store: Store, dataset: str, folder: Path, max_bytes: int | None = None) -> None:
        """`max_bytes` for all that lies in the folder; half of the disk that it leaves free where None."""
        self.store, self.dataset, self.folder = store, dataset, folder
        self._folder = ShardFolder(folder, max_bytes)
        self._forget_all()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_open", "_used", "_refused")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget_all()

    def _forget_all(self) -> None:
        self._open: OrderedDict[str, OpenShard] = OrderedDict()
        self._used: set[str] = set()
        """found good by this process, which does not remove them for others"""
        self._refused: set[str] = set()
        """there was no room for"""

    def path(self, sha256: str) -> Path:
        """The shard's file, whole and with the content that its name promises, whatever has to go for it.

        Raises:
            DataError: DATA207 the shard in the store is damaged, DATA231 the disk is full, DATA232 the cache may
                hold less than this shard.
            StoreError: the store cannot be reached, or has no such shard.
        """
        if not self._fetched(sha256, _NONE):
            size = self.store.size(shard_key(self.dataset, sha256))
            raise _too_small(self.folder, self._folder.allowed(0), size)
        return self._folder.file(sha256)

    def fetch(self, sha256: str, wait: bool = True) -> bool:
        """Whether the shard is here now: False where it would drive out one that this process uses.

        Without `wait`, a shard that somebody is fetching counts as here. Raises as `path`.
        """
        if sha256 in self._refused and not self._folder.file(sha256).is_file():
            return False
        if self._fetched(sha256, self._used, wait):
            return True
        if not self._refused:
            log.warning(
                "the shards of %s are more than %s may hold: the samples of the others are read from the store one by "
                "one. compute.cache_bytes sets its size.", self.dataset, self.folder,
            )  # fmt: skip
        self._refused.add(sha256)
        return False

    def open(self, sha256: str) -> OpenShard | None:
        """The shard, to be read; None where there is no room for it. Raises as `path`."""
        shard = self._open.pop(sha256, None)
        if shard is None or not self._stays(sha256, shard):
            shard = self._opened(sha256)
            if shard is None:
                return None
        self._open[sha256] = shard
        if len(self._open) > _OPEN:
            self._open.popitem(last=False)
        return shard

    def renew(self, sha256: str) -> None:
        """Lets the shard be compared anew: for a reader that found it cut."""
        self._open.pop(sha256, None)
        self._used.discard(sha256)
        self._folder.file(sha256, "ok").unlink(missing_ok=True)

    def _stays(self, sha256: str, shard: OpenShard) -> bool:
        """Notes now and then that an open shard is in use; False where it was removed."""
        now = time.monotonic()
        if now < shard.looked + _TOUCH_SECONDS:
            return True
        shard.looked = now
        if shard.is_removed():
            return False
        self._folder.note_use(sha256)
        return True

    def _opened(self, sha256: str) -> OpenShard | None:
        for _ in range(_ATTEMPTS):
            if not self.fetch(sha256):
                return None
            try:
                shard = OpenShard(self._folder.file(sha256))
            except FileNotFoundError:  # another process needed the room just now
                continue
            self._folder.note_use(sha256)
            return shard
        return None

    def _fetched(self, sha256: str, spared: Set[str], wait: bool = True) -> bool:
        if sha256 in self._used and self._folder.file(sha256).is_file():
            return True
        with self._folder.alone(sha256, wait) as lock:
            if lock is None:
                return True
            if not self._folder.is_good(sha256) and not self._downloaded(sha256, lock, spared):
                return False
        self._used.add(sha256)
        return True

    def _downloaded(self, sha256: str, lock: int, spared: Set[str]) -> bool:
        key, path = shard_key(self.dataset, sha256), self._folder.file(sha256)
        path.unlink(missing_ok=True)
        if not self._folder.reserve(sha256, lock, self.store.size(key) or 0, spared):
            return False
        try:
            for _ in range(_ATTEMPTS):
                self._download(key, path, spared | {sha256})
                if self._folder.is_good(sha256):
                    return True
                self._folder.forget(sha256)
            raise _damaged(self.store.address(key))
        finally:
            self._folder.release(lock)

    def _download(self, key: str, path: Path, spared: Set[str]) -> None:
        while True:
            try:
                self.store.download(key, path)
                return
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                if not self._folder.remove_oldest(spared):
                    raise _full(self.folder, self.store.size(key)) from None


def read_sample(cache: ShardCache, row: Row) -> tuple[bytes, bytes | None]:
    """The image's and the mask's bytes; None for the mask that the sample has not. Raises as `ShardCache.path`."""
    shard = cache.open(row.shard)
    if shard is None:
        return _from_store(cache, row)
    try:
        return _members(shard.read, row)
    except EOFError:  # somebody cut the file
        cache.renew(row.shard)
        shard = cache.open(row.shard)
        return _members(shard.read, row) if shard else _from_store(cache, row)


def _members(read: Callable[[int, int], bytes], row: Row) -> tuple[bytes, bytes | None]:
    image = read(row.image_offset, row.image_bytes)
    if row.mask_offset is None or row.mask_bytes is None:
        return image, None
    return image, read(row.mask_offset, row.mask_bytes)


def _from_store(cache: ShardCache, row: Row) -> tuple[bytes, bytes | None]:
    """The sample's bytes alone, compared with the hashes that its row knows."""
    key = shard_key(cache.dataset, row.shard)
    for _ in range(_ATTEMPTS):
        image, mask = _members(lambda offset, length: cache.store.get(key, offset, length), row)
        told = row.mask_sha256  # rows that came from another process may not know it
        if key_of(image) == row.key and (not mask or not told or hashlib.sha256(mask).hexdigest() == told):
            return image, mask
    raise _damaged(cache.store.address(key))


def _damaged(address: str) -> DataError:
    return DataError(
        "DATA207",
        f"{address} is damaged: its content is not what its name says.",
        "Delete it and ingest again.",
    )


def _full(folder: Path, size: int | None) -> DataError:
    free = shutil.disk_usage(folder).free
    return DataError(
        "DATA231",
        f"the disk of {folder} is full: {free:,} bytes are free, and a shard needs {size or 0:,}.",
        "Make room there, lower compute.cache_bytes, or let SEMIVL_HOME name a folder on a larger disk.",
    )


def _too_small(folder: Path, allowed: int, size: int | None) -> DataError:
    return DataError(
        "DATA232",
        f"{folder} may hold {allowed:,} bytes, less than a single shard of {size or 0:,}.",
        "Raise compute.cache_bytes, or make room on the disk.",
    )
