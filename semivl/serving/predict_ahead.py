"""Ahead: photos are read, checked and decoded while others are predicted, within a bound of pixels.

A thread goes through the chunks in their order. A photo is examined in a process of its own first, as at ingest, so
that a poisonous file costs itself and nothing else; then it is decoded, once there is room for its pixels.
"""

import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from semivl.config import ClassDefinition, Classes
from semivl.data.check_pool import shared_pool
from semivl.data.checks import Checked, Files, Limits, Quarantined
from semivl.data.decode import decode_image
from semivl.data.sample import Source
from semivl.serving.predict_manifest import Entry, Refused
from semivl.serving.predict_photos import Photo, Photos

WORKERS = max(1, min(8, (os.cpu_count() or 2) // 2))
"""processes that check, threads that read and decode"""
_NO_CLASSES = Classes(classes=(ClassDefinition(name="0"), ClassDefinition(name="1")))  # pyright: ignore[reportCallIssue]
"""photos without masks are checked: the class map decides nothing"""
_CHECKED_MEMORY = 12
"""bytes for each of `max_pixels` that a check may need"""
_BATCH_PIXELS = 4_000_000
"""of all photos of a batch"""


class Room:
    """A number of pixels that may be held at once. A photo that is larger than all of it may have it alone."""

    def __init__(self, pixels: int) -> None:
        self._pixels, self._free = pixels, pixels
        self._changed = threading.Condition()
        self.closed = False

    def take(self, pixels: int) -> bool:
        """Waits for room; False once the room is closed."""
        wanted = min(pixels, self._pixels)
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._free >= wanted)
            self._free -= 0 if self.closed else wanted
            return not self.closed

    def give_back(self, pixels: int) -> None:
        with self._changed:
            self._free += min(pixels, self._pixels)
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()


@dataclass
class Batch:
    """Photos of one size that are predicted together."""

    chunk: "Chunk"
    photos: list[tuple[Photo, str]]
    """with the SHA-256 of their bytes"""
    pixels: int
    """of each"""
    decoded: list[Future[np.ndarray]] = field(default_factory=list)


@dataclass
class Chunk:
    """A run of photos, and what is already known of them."""

    photos: list[Photo]
    rows: dict[str, Entry]
    """of those that were done before, or are refused"""
    reused: int


Known = Callable[[Sequence[Photo]], dict[str, Entry]]


class Ahead:
    """The chunks with their batches, in order. A context manager: when it is left, no thread stays."""

    def __init__(self, photos: Photos, chunks: Iterator[list[Photo]], known: Known, limits: Limits, batch: int,
                 room: Room, seconds: float) -> None:  # fmt: skip
        """
        Args:
            known: rows of photos that an earlier run has done, which stand where the bytes are still the same
            batch: photos of one size that are predicted together at the most
            seconds: of CPU that checking one photo may take
        """
        self._photos, self._chunks, self._known, self._batch, self._room = photos, chunks, known, batch, room
        self._pool = shared_pool(_NO_CLASSES, limits, WORKERS, _CHECKED_MEMORY * limits.max_pixels, seconds)
        self._threads = ThreadPoolExecutor(WORKERS, "ahead")
        self._ready: queue.Queue[Chunk | Batch | BaseException | None] = queue.Queue(maxsize=256)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Iterator[Chunk | Batch]:
        self._thread.start()
        return self._arriving()

    def __exit__(self, *_: object) -> None:
        self._room.close()
        while self._thread.is_alive():
            _drain(self._ready)
            self._thread.join(timeout=0.05)
        self._threads.shutdown(cancel_futures=True)

    def _arriving(self) -> Iterator[Chunk | Batch]:
        while (item := self._ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def _run(self) -> None:
        try:
            for photos in self._chunks:
                if self._room.closed or not self._prepared(photos):
                    return
            self._ready.put(None)
        except BaseException as error:  # whoever predicts is told, whatever it is
            self._ready.put(error)

    def _prepared(self, photos: list[Photo]) -> bool:
        """Puts a chunk, then its batches; False where nobody wants them any more."""
        known = self._known(photos)
        read = dict(zip(photos, self._threads.map(lambda photo: self._read(photo, known), photos), strict=True))
        rows = {photo.told: found for photo, found in read.items() if isinstance(found, Entry)}
        chunk = Chunk(photos, rows, sum(row.refused is None for row in rows.values()))
        sizes: dict[tuple[int, int], list[tuple[Photo, str, bytes]]] = {}
        for photo, size, sha256, body in self._sound(chunk, read):
            sizes.setdefault(size, []).append((photo, sha256, body))
        batches = [
            (pixels, alike[first : first + count])
            for pixels, alike in ((width * height, alike) for (width, height), alike in sizes.items())
            for count in [max(1, min(self._batch, _BATCH_PIXELS // pixels))]
            for first in range(0, len(alike), count)
        ]
        self._ready.put(chunk)
        return all(self._decoding(chunk, pixels, alike) for pixels, alike in batches)

    def _decoding(self, chunk: Chunk, pixels: int, alike: list[tuple[Photo, str, bytes]]) -> bool:
        if not self._room.take(pixels * len(alike)):
            return False
        batch = Batch(chunk, [(photo, sha256) for photo, sha256, _ in alike], pixels)
        batch.decoded = [self._threads.submit(decode_image, body) for _, _, body in alike]
        self._ready.put(batch)
        return True

    def _read(self, photo: Photo, known: dict[str, Entry]) -> Entry | tuple[str, bytes]:
        """The row that stands or refuses, else the photo's SHA-256 and its bytes."""
        row = known.get(photo.told)
        if photo.fault:
            return refusal(photo, photo.fault, None)
        if row and photo.row and row.sha256 == photo.row.sha256:
            return row
        body = self._photos.read(photo)
        if isinstance(body, Quarantined):
            return refusal(photo, body, None)
        sha256 = hashlib.sha256(body).hexdigest()
        return row if row and row.sha256 == sha256 else (sha256, body)

    def _sound(
        self, chunk: Chunk, read: dict[Photo, Entry | tuple[str, bytes]]
    ) -> Iterator[tuple[Photo, tuple[int, int], str, bytes]]:
        """The photos that may be decoded, with width and height; the others become rows of the chunk."""
        new = {photo: found for photo, found in read.items() if not isinstance(found, Entry)}
        for photo, (sha256, body) in new.items():
            if photo.row:
                yield photo, (photo.row.width, photo.row.height), sha256, body
        unseen = [photo for photo in new if not photo.row]
        pairs = ((Source(Path(photo.name), None), Files(new[photo][1], None)) for photo in unseen)
        for photo, found in zip(unseen, self._pool.examine(pairs), strict=True):
            sha256, body = new[photo]
            if isinstance(found, Checked):
                yield photo, (found.row.width, found.row.height), sha256, body
            else:
                chunk.rows[photo.told] = refusal(photo, found, sha256)


def refusal(photo: Photo, fault: Quarantined, sha256: str | None) -> Entry:
    """The row of a photo that is not predicted."""
    return Entry(name=photo.told, sha256=sha256, refused=Refused(code=fault.code, reason=fault.reason))


def _drain(waiting: queue.Queue) -> None:
    while not waiting.empty():
        waiting.get_nowait()
