"""Bytes on their way from and to S3: how long faults are borne, what a put sends, what a get has got so far."""

import base64
import fcntl
import hashlib
import io
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from semivl.data.store_errors import Place, RequestError, too_large, unreachable

_CHUNK = 1 << 18
_LARGEST = 5 << 30
"""bytes that S3 takes in one put"""
_SLOWEST = 10_000
"""bytes a second; a connection that gives less is given up for another"""
_STEP = 64 << 10
"""bytes of an object that count as progress"""
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
_LEAST_TRIES = 3
_jitter = random.SystemRandom()
"""not the seeded one: the ranks of a training would all come back at the same moment"""


class Patience:
    """How long faults that may pass are borne: for `seconds` without progress, of a server that refuses for `refused`.

    Between two tries lies a random time, twice as long at most after each (full jitter), so that the clients of a
    server that is overloaded do not come back at once.
    """

    def __init__(self, seconds: float, refused: float) -> None:
        self.seconds, self.refused = seconds, refused
        self.progressed()

    def progressed(self) -> None:
        """From now on the patience is a fresh one."""
        self._since, self._tries = time.monotonic(), 0

    def bear(self, fault: RequestError) -> None:
        """Waits for the next try.

        Raises:
            StoreError: the fault's, where it does not pass or has lasted too long.
        """
        self._tries += 1
        left = self._since + (self.refused if fault.refused else self.seconds) - time.monotonic()
        if not fault.passes or (left < 0 and (fault.refused or self._tries >= _LEAST_TRIES)):
            raise fault.error from None
        wait = _jitter.uniform(0, min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (self._tries - 1)))
        time.sleep(min(wait, max(left, 0)))


@dataclass(frozen=True)
class Version:
    """What S3 says of an object. Of a part of one, `size` is the part's."""

    etag: str
    size: int
    metadata: dict[str, str]


@dataclass(frozen=True)
class Outgoing:
    """What a put sends: the bytes, or the file that holds them."""

    source: bytes | Path
    place: Place
    known_sha256: str | None = None
    """hex digest of what is to arrive, where it is known: it is not worked out again, and S3 compares all the same"""

    def __post_init__(self) -> None:
        """StoreError STORE009 where S3 takes no object of that size."""
        if self.size > _LARGEST:
            raise too_large(self.place, self.size)

    @cached_property
    def size(self) -> int:
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    @cached_property
    def sha256(self) -> bytes:
        return bytes.fromhex(self.known_sha256) if self.known_sha256 else self._digest("sha256")

    @cached_property
    def md5(self) -> bytes:
        return self._digest("md5")

    def checksum(self, kind: str) -> dict[str, str]:
        """The argument of put_object that S3 compares what arrives with: `sha256`, or `md5` for S3s of old."""
        if kind == "md5":
            return {"ContentMD5": base64.b64encode(self.md5).decode()}
        return {"ChecksumSHA256": base64.b64encode(self.sha256).decode()}

    @contextmanager
    def opened(self) -> Iterator[BinaryIO | bytes]:
        """The body, from its beginning."""
        if isinstance(self.source, bytes):
            yield self.source
            return
        with self.source.open("rb") as file:
            yield file

    def _digest(self, kind: str) -> bytes:
        if isinstance(self.source, bytes):
            return hashlib.new(kind, self.source, usedforsecurity=False).digest()
        with self.source.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).digest()


class Incoming:
    """An object on its way into a file, over as many connections as it takes.

    Every connection but the first goes on where the one before it broke off, and only with the same version of the
    object: S3 compares the ETag, and so do we, for the sake of servers that do not.
    """

    def __init__(self, file: BinaryIO, place: Place, first: int = 0, version: Version | None = None) -> None:
        """`first`: where the part begins that is wanted. `version`: the only one that is wanted; what the file holds
        is the beginning of it."""
        self.file, self.place, self.first, self.wanted = file, place, first, version
        self.version = version
        """None before the first answer"""
        self._farthest = file.tell()

    @property
    def complete(self) -> bool:
        return self.version is not None and self.file.tell() == self.version.size

    def request(self, last: int | None) -> dict[str, str]:
        """The arguments of get_object for what is missing, to the byte `last` or the object's end."""
        begin = self.first + self.file.tell()
        condition = {"IfMatch": self.version.etag} if self.version else {}
        if not begin and last is None:
            return condition
        return condition | {"Range": f"bytes={begin}-{'' if last is None else last}"}

    def take(self, answer: dict[str, Any], seconds: float, progressed: Callable[[], None]) -> None:
        """Writes the body of an answer to the file.

        Raises:
            RequestError: it is of another version, ends early, or brings too little in `seconds` seconds.
        """
        had = self.file.tell()
        if self.version and answer["ETag"] != self.version.etag:
            raise RequestError(unreachable(self.place, "the object was replaced"), passes=True, status=412)
        if had and answer.get("ContentRange", "").split("-")[0] != f"bytes {self.first + had}":
            self.restart()
            raise RequestError(unreachable(self.place, "it gives no parts of objects"), passes=True)
        self.version = Version(answer["ETag"], had + answer["ContentLength"], answer.get("Metadata", {}))
        mark, marked = time.monotonic(), had
        with answer["Body"] as raw:  # the plain stream, whose read1 waits for some bytes, not for all
            while chunk := raw.read1(_CHUNK):
                self.file.write(chunk)
                if time.monotonic() - mark < seconds:
                    continue
                if self.file.tell() - marked < _SLOWEST * seconds:
                    raise RequestError(unreachable(self.place, "the connection is too slow"), passes=True)
                mark, marked = time.monotonic(), self.file.tell()
                if self.advanced():
                    progressed()
        if not self.complete:
            raise RequestError(unreachable(self.place, "the answer ended early"), passes=True)

    def advanced(self) -> bool:
        """Whether there is a good deal more than ever when this was asked before."""
        if self.file.tell() - self._farthest < _STEP:
            return False
        self._farthest = self.file.tell()
        return True

    def restart(self) -> None:
        """Forgets what came and, where any version is wanted, of which it was."""
        self.file.seek(0)
        self.file.truncate()
        self.version = self.wanted

    def sha256(self) -> str:
        """Of what came."""
        self.file.seek(0)
        digest = hashlib.file_digest(self.file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
        self.file.seek(0, io.SEEK_END)
        return digest


@contextmanager
def kept_part(path: Path, etag: str) -> Iterator[tuple[BinaryIO, Path]]:
    """The file beside `path` that holds what came of that version so far, at its end, and its name.

    It belongs to one caller at a time, and outlives its process.
    """
    version = hashlib.sha256(etag.encode()).hexdigest()[:16]
    part = path.with_name(f"{path.name}.{version}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with part.open("ab") as locked:
            fcntl.flock(locked, fcntl.LOCK_EX)
            if not _is_same(locked, part):  # whoever had it has finished meanwhile, and renamed it
                continue
            with part.open("r+b") as file:
                file.seek(0, io.SEEK_END)
                try:
                    yield file, part
                finally:
                    if not file.tell() and _is_same(locked, part):
                        part.unlink()
            return


def _is_same(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
