"""The folder of the shard cache: whose turn it is, what was used when, and what has to go.

Beside `SHA256.tar` lie `SHA256.ok`, which says which file was found good, `SHA256.tar.VERSION.part`, a download that
may go on, and `SHA256.lock`: held by the process that fetches or compares the shard, changed at the time of its last
use, and saying how many bytes a download under way will need. Any number of processes may share the folder.
"""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_LOCK, _HASH = "lock", 64
_RECENT_NS = 2_000_000_000
"""a file changed so shortly ago might be changed again within the same tick of the clock, and bears no stamp yet"""


@dataclass
class _Kept:
    """A shard in the folder, or under way to it."""

    bytes: int = 0
    coming: int = 0
    used: int = 0


class ShardFolder:
    """Files of shards by SHA-256, at most `max_bytes` of them; where None, half of the disk that they leave free."""

    def __init__(self, path: Path, max_bytes: int | None) -> None:
        self.path, self.max_bytes = path, max_bytes

    def file(self, sha256: str, kind: str = "tar") -> Path:
        return self.path / f"{sha256}.{kind}"

    @contextmanager
    def alone(self, sha256: str, wait: bool = True) -> Iterator[int | None]:
        """The shard's lock, for one process or thread at a time; it goes with the process that held it.

        Without `wait`, None where somebody else has it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.file(sha256, _LOCK), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            yield lock if _taken(lock, wait) else None
        finally:
            os.close(lock)

    def note_use(self, sha256: str) -> None:
        """What was used last goes last."""
        now = time.time_ns()  # finer than the clock that the file system would take
        with suppress(FileNotFoundError):  # somebody emptied the folder
            os.utime(self.file(sha256, _LOCK), ns=(now, now))

    def is_good(self, sha256: str) -> bool:
        """Whether the file has the content that its name promises: by its stamp, else by hashing it."""
        file, stamp = self.file(sha256), self.file(sha256, "ok")
        try:
            status = file.stat()
            told = f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"
            if stamp.is_file() and stamp.read_text() == told:
                return True
            with file.open("rb") as opened:
                if hashlib.file_digest(opened, "sha256").hexdigest() != sha256:
                    return False
        except FileNotFoundError:
            return False
        if time.time_ns() - status.st_mtime_ns > _RECENT_NS:
            stamp.write_text(told)
        return True

    def forget(self, sha256: str) -> None:
        """Removes the shard; whoever has it open reads on. Its lock has to be held."""
        for file in self.path.glob(f"{sha256}.*"):
            if file.suffix != f".{_LOCK}":
                file.unlink(missing_ok=True)

    def reserve(self, sha256: str, lock: int, size: int, spared: Set[str]) -> bool:
        """Whether there is room for a shard of that size, made by removing the least recently used.

        Those `spared` stay. The lock of the shard has to be held, and holds the room until `release`.
        """
        with self._everything():
            kept = self._kept()
            kept.pop(sha256, None)
            held = sum(k.bytes + k.coming for k in kept.values())
            allowed = self.allowed(held)
            if size + sum(k.bytes + k.coming for name, k in kept.items() if name in spared or k.coming) > allowed:
                return False
            for name in sorted(kept, key=lambda name: kept[name].used):
                if held + size <= allowed:
                    break
                if name not in spared and self._removed(name):
                    held -= kept[name].bytes
            if held + size <= allowed:
                os.pwrite(lock, str(size).encode(), 0)
            return held + size <= allowed

    def release(self, lock: int) -> None:
        """The download is over: what it brought counts by itself."""
        os.ftruncate(lock, 0)

    def remove_oldest(self, spared: Set[str]) -> bool:
        """Removes the least recently used shard; False where none may go."""
        with self._everything():
            kept = self._kept()
            oldest = sorted((n for n in kept if kept[n].bytes and n not in spared), key=lambda n: kept[n].used)
            return any(self._removed(name) for name in oldest)

    def allowed(self, held: int) -> int:
        """The bytes that the shards may have, where they have `held` now."""
        if self.max_bytes is not None:
            return self.max_bytes
        return (shutil.disk_usage(self.path).free + held) // 2

    def _kept(self) -> dict[str, _Kept]:
        """What lies in the folder or is on its way there."""
        kept: dict[str, _Kept] = {}
        for entry in os.scandir(self.path):
            name, _, kind = entry.name.partition(".")
            if len(name) != _HASH:
                continue
            try:
                status = entry.stat()
            except FileNotFoundError:  # a part that became a shard just now: the lock tells its size
                continue
            shard = kept.setdefault(name, _Kept())
            if kind != _LOCK:
                shard.bytes += status.st_size
                continue
            shard.used = status.st_mtime_ns
            shard.coming = self._coming(name) if status.st_size else 0
        for shard in kept.values():
            shard.coming = max(0, shard.coming - shard.bytes)
        return {name: shard for name, shard in kept.items() if shard.bytes or shard.coming}

    def _coming(self, sha256: str) -> int:
        """Bytes that are on their way; a killed download's are not."""
        with self.alone(sha256, wait=False) as free:
            if free is not None:
                self.release(free)
                return 0
        return int(self.file(sha256, _LOCK).read_text() or 0)

    def _removed(self, sha256: str) -> bool:
        """Removes a shard that nobody is fetching."""
        with self.alone(sha256, wait=False) as lock:
            if lock is None:
                return False
            self.forget(sha256)
            return True

    @contextmanager
    def _everything(self) -> Iterator[None]:
        """One process at a time counts and removes."""
        with self.alone("room"):
            yield


def _taken(lock: int, wait: bool) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
