"""Prediction: every photo of a source becomes a mask, and a row of the manifest; a bad photo a row with a code.

    semivl predict photos masks --model semivl-scenes@champion

Photos are read, checked and decoded ahead (semivl.serving.predict_ahead), predicted here, and written behind by other
threads; pixels on their way are bounded. Masks are those of photos as a viewer shows them, EXIF orientation applied.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from pydantic import Field

from semivl import __version__
from semivl.config import Record
from semivl.data.checks import Limits
from semivl.errors import DataError
from semivl.evaluation.overlay import mask_png, overlay
from semivl.serving.finished import Model
from semivl.serving.predict_ahead import WORKERS, Ahead, Batch, Chunk, Room
from semivl.serving.predict_answer import Answer, answers, picture, run_lengths, shares
from semivl.serving.predict_manifest import Entry, Header, Manifest, categories, is_foreign
from semivl.serving.predict_outputs import Outputs
from semivl.serving.predict_photos import Photo, Photos, chunks

_CHUNK, _CHUNK_BYTES = 64, 64 << 20
_ROOM = 64_000_000
"""pixels decoded or not yet written, 3 bytes each before and 2 after prediction"""

Progress = Callable[[int, int], None]
"""called with the photos done and all photos"""


class PredictSettings(Record):
    """What is written for each photo, and what a photo may be."""

    confidence: bool = Field(False, description="also an 8-bit PNG of every pixel's probability, 255 = certain")
    overlays: bool = Field(False, description="also a JPEG of the photo tinted in the colours of its classes")
    rle: bool = Field(False, description="also COCO's run lengths of each class, in the photo's row")
    coco: bool = Field(False, description="also coco.json, a COCO data set of all masks; implies rle")
    batch: int = Field(1, ge=1, le=64, description="photos of equal size predicted together")
    max_pixels: int = Field(64_000_000, ge=1, description="photos with more pixels are refused")
    file_seconds: float = Field(20, gt=0, description="CPU seconds that checking one photo may take")


class Summary(NamedTuple):
    """What a run has done."""

    photos: int
    predicted: int
    reused: int
    """masks of an earlier run that still stand"""
    refused: dict[str, int]
    """photos that were refused, by code"""
    seconds: float


def predict(
    model: Model, photos: Photos, outputs: Outputs, settings: PredictSettings, progress: Progress | None = None
) -> Summary:
    """Predicts what is not predicted yet; ends with the same bytes as a run that was never killed.

    Raises:
        DataError: PRED006 the output cannot be written, PRED007 it holds files of somebody else, PRED008 the source
            holds no photo.
    """
    begun = time.perf_counter()
    if settings.coco:
        settings = settings.model_copy(update={"rle": True})
    listed = photos.listed()
    if not listed:
        raise DataError("PRED008", f"{photos.address} holds no photo.", "Name a folder with pictures in it.")
    foreign = is_foreign(outputs)
    if foreign:
        raise DataError(
            "PRED007",
            f"{outputs.address} holds files of somebody else, such as {foreign}.",
            "Name an empty output, or that of an earlier run.",
        )
    manifest = Manifest(outputs, header_of(model, photos, settings))
    work = _Work(model, outputs, settings, stems(listed), manifest, len(listed), progress)
    limits = Limits(max_pixels=settings.max_pixels)
    known = lambda chunk: work.standing(manifest.known(chunk))  # noqa: E731
    parts = chunks(listed, _CHUNK, _CHUNK_BYTES)
    ahead = Ahead(photos, parts, known, limits, settings.batch, work.room, settings.file_seconds)
    with work.writers, ahead as arriving:
        for item in arriving:
            if isinstance(item, Chunk):
                work.begin(item)
            else:
                work.predict(item)
        work.end()
    manifest.finish(settings.coco)
    return Summary(len(listed), work.predicted, work.reused, dict(work.refused), time.perf_counter() - begun)


def header_of(model: Model, photos: Photos, settings: PredictSettings) -> Header:
    predictor = model.predictor
    own = settings.model_dump(mode="json") | {"device": predictor.device.type}
    return Header(
        semivl=__version__,
        model=model.name,
        version=model.version,
        weights=model.weights,
        source=photos.address,
        settings=own | {"evaluation": predictor.evaluation.model_dump(mode="json")},
        categories=categories(predictor.classes),
    )


def stems(photos: Sequence[Photo]) -> dict[str, str]:
    """What a photo's files are called, by its name: without its ending, where no other photo is called so."""
    short = {photo.told: str(PurePosixPath(photo.told).with_suffix("")) for photo in photos}
    times = Counter(short.values())
    return {name: stem if times[stem] == 1 else name for name, stem in short.items()}


@dataclass
class _Work:
    """The photos on their way: begun as chunks, predicted in batches, their files written by other threads."""

    model: Model
    outputs: Outputs
    settings: PredictSettings
    stems: dict[str, str]
    manifest: Manifest
    total: int
    progress: Progress | None
    room: Room = field(default_factory=lambda: Room(_ROOM))
    writers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(WORKERS, "write"))
    predicted: int = 0
    reused: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    _begun: deque[tuple[Chunk, list[Future[Entry]]]] = field(default_factory=deque)
    _done: int = 0

    def standing(self, known: dict[str, Entry]) -> dict[str, Entry]:
        """Of rows that an earlier run made, those whose files are still called so."""
        return {name: row for name, row in known.items() if not row.mask or row.mask == _mask(self.stems[name])}

    def begin(self, chunk: Chunk) -> None:
        self._begun.append((chunk, []))
        self.reused += chunk.reused
        self.refused.update(row.refused.code for row in chunk.rows.values() if row.refused)
        self._tell(len(chunk.rows))
        self._put_finished()

    def predict(self, batch: Batch) -> None:
        """Predicts the batch, which is of the newest chunk, and has its files written."""
        decoded = [future.result() for future in batch.decoded]
        batch.decoded.clear()
        begun = time.perf_counter()
        found = answers(self.model.predictor, decoded)
        ms = round(1000 * (time.perf_counter() - begun) / len(found), 2)
        for (photo, sha256), pixels, answer in zip(batch.photos, decoded, found, strict=True):
            future = self.writers.submit(self._written, photo, sha256, pixels, answer, ms)
            future.add_done_callback(lambda _: self.room.give_back(batch.pixels))
            self._begun[-1][1].append(future)
        self.predicted += len(found)
        self._tell(len(found))
        self._put_finished()

    def end(self) -> None:
        self._put_finished(wait=True)

    def _put_finished(self, wait: bool = False) -> None:
        """Puts the parts of the chunks that are done, in their order; of all chunks with `wait`."""
        while self._begun:
            chunk, futures = self._begun[0]
            missing = len(chunk.photos) - len(chunk.rows) - len(futures)
            if not wait and (missing or not all(future.done() for future in futures)):
                return
            rows = chunk.rows | {row.name: row for row in (future.result() for future in futures)}
            self.manifest.put(chunk.photos, (rows[photo.told] for photo in chunk.photos))
            self._begun.popleft()

    def _written(self, photo: Photo, sha256: str, pixels: np.ndarray, answer: Answer, ms: float) -> Entry:
        """A thread: the photo's files are written; its row."""
        stem = self.stems[photo.told]
        files = {_mask(stem): mask_png(answer.mask)}
        confidence_map = f"confidence/{stem}.png" if self.settings.confidence else None
        tinted = f"overlays/{stem}.jpg" if self.settings.overlays else None
        if confidence_map:
            files[confidence_map] = picture(answer.confidence, "PNG")
        if tinted:
            files[tinted] = picture(overlay(pixels, answer.mask), "JPEG", quality=90)
        for name, body in files.items():
            self.outputs.put(name, body)
        return Entry(
            name=photo.told,
            source=photo.row.source if photo.row else None,
            sha256=sha256,
            width=answer.mask.shape[1],
            height=answer.mask.shape[0],
            mask=_mask(stem),
            confidence_map=confidence_map,
            overlay=tinted,
            mean_confidence=answer.mean_confidence,
            classes=shares(answer.mask, self.model.predictor.classes.names),
            rle=run_lengths(answer, self.model.predictor.classes.names) if self.settings.rle else None,
            ms=ms,
        )

    def _tell(self, more: int) -> None:
        self._done += more
        if self.progress and more:
            self.progress(self._done, self.total)


def _mask(stem: str) -> str:
    return f"masks/{stem}.png"
