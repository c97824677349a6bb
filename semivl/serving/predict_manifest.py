"""The manifest of predictions: a header, a row a photo, and the parts that make a killed run go on.

    predictions.jsonl     the header, then a row a photo by name; put last, so that with it everything is there
    timings.jsonl         milliseconds of each photo that this run predicted; the one thing that no two runs share
    coco.json             on request: all masks as a COCO data set
    progress/             what a run that goes on has done; gone at the end

Photos are done in chunks, in the order of their names, and a chunk counts once its part is put. A run that was killed
does the chunk that it was in again, whole, so that it sends the same photos through the network together, and ends
with the same bytes as one that was not.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from semivl.config import Classes, Record
from semivl.serving.predict_outputs import Outputs
from semivl.serving.predict_photos import Photo

MANIFEST, TIMINGS, COCO, PROGRESS = "predictions.jsonl", "timings.jsonl", "coco.json", "progress"
_HEADER, _BEFORE = f"{PROGRESS}/header.json", f"{PROGRESS}/before.jsonl"


class Category(Record):
    """A class as COCO writes it; `id` is the value in the masks, and `name` the class's."""

    id: int
    name: str


class Header(Record):
    """What made the predictions. Another header makes all of them anew."""

    semivl: str
    model: str
    version: int | None
    weights: str
    source: str
    settings: dict[str, Any]
    categories: tuple[Category, ...]

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


class Refused(Record):
    """Why a photo was not predicted: a code of docs/codes.md, and the reason in words."""

    code: str
    reason: str


class Entry(Record):
    """A photo's row. Sizes and masks are those of the photo as it is seen, EXIF orientation applied."""

    name: str
    source: str | None = None
    """of a snapshot's sample: where it came from"""
    sha256: str | None = None
    """of the photo's bytes; None where it could not be read"""
    refused: Refused | None = None
    width: int | None = None
    height: int | None = None
    mask: str | None = None
    confidence_map: str | None = None
    overlay: str | None = None
    mean_confidence: float | None = None
    """in points"""
    classes: dict[str, float] | None = None
    """points of the pixels that each class has, of those that are there"""
    rle: dict[str, dict[str, Any]] | None = None
    """COCO's compressed run lengths of each class"""
    ms: float | None = None
    """from the decoded photo to its mask; photos that are predicted together share it equally"""

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(name for name in (self.mask, self.confidence_map, self.overlay) if name)

    def line(self) -> str:
        return self.model_dump_json(exclude_none=True) + "\n"


def categories(classes: Classes) -> tuple[Category, ...]:
    return tuple(Category(id=number, name=name) for number, name in enumerate(classes.names))


class Manifest:
    """The manifest of one output while a run is writing it."""

    def __init__(self, outputs: Outputs, header: Header) -> None:
        """Takes what an earlier run with the same header has done as known.

        The caller has made sure that the output is empty or of an earlier run (`is_foreign`).
        """
        self._outputs, self._header = outputs, header
        self._there = set(outputs.names())
        if MANIFEST in self._there:
            self._set_aside()
        outputs.put(_HEADER, header.model_dump_json().encode())
        self._before = self._earlier()
        self._parts: list[str] = []

    def known(self, chunk: Sequence[Photo]) -> dict[str, Entry]:
        """Rows of the chunk's photos that are done, all files of them there, by name."""
        part = self._outputs.get(self._part(chunk)) if self._part(chunk) in self._there else None
        rows = {row.name: row for row in map(_entry, part.splitlines())} if part else self._before
        found = {photo.told: rows[photo.told] for photo in chunk if photo.told in rows}
        return {name: row for name, row in found.items() if self._there.issuperset(row.files)}

    def put(self, chunk: Sequence[Photo], rows: Iterable[Entry]) -> None:
        """Keeps the chunk's rows, after all their files; chunks are given in their order."""
        name = self._part(chunk)
        self._outputs.put(name, "".join(row.line() for row in rows).encode())
        self._parts.append(name)

    def finish(self, coco: bool) -> None:
        """Puts the manifest, removes the files of photos that are no more, and what the run left of itself."""
        lines, timings, images, kept = [self._header.model_dump_json() + "\n"], [], CocoDataset(self._header), set()
        for row in self._rows():
            lines.append(row.model_copy(update={"ms": None}).line())
            kept |= set(row.files)
            if row.ms is not None:
                timings.append(json.dumps({"name": row.name, "ms": row.ms}) + "\n")
            if coco:
                images.add(row)
        self._outputs.put(TIMINGS, "".join(timings).encode())
        if coco:
            self._outputs.put(COCO, images.as_json().encode())
        else:
            self._outputs.delete(COCO)
        self._outputs.put(MANIFEST, "".join(lines).encode())
        for name in {name for row in _rows_of(self._outputs.get(_BEFORE)) for name in row.files} - kept:
            self._outputs.delete(name)
        for name in list(self._outputs.names(PROGRESS)):
            self._outputs.delete(name)

    def _set_aside(self) -> None:
        """The finished manifest stops being one: from now on its files are overwritten."""
        whole = self._outputs.get(MANIFEST)
        if whole and _BEFORE not in self._there:
            self._outputs.put(_BEFORE, whole)
        self._outputs.delete(MANIFEST)

    def _earlier(self) -> dict[str, Entry]:
        body = self._outputs.get(_BEFORE) or b""
        same = body.startswith(self._header.model_dump_json().encode() + b"\n")
        return {row.name: row for row in _rows_of(body)} if same else {}

    def _part(self, chunk: Sequence[Photo]) -> str:
        names = "\n".join(photo.told for photo in chunk)
        digest = hashlib.sha256(f"{self._header.digest}\n{names}".encode()).hexdigest()
        return f"{PROGRESS}/{digest[:24]}.jsonl"

    def _rows(self) -> Iterator[Entry]:
        for name in self._parts:
            yield from map(_entry, (self._outputs.get(name) or b"").splitlines())


def is_foreign(outputs: Outputs) -> str | None:
    """A file that lies in an output which no run has written to; None where there is none."""
    found = list(outputs.names())
    ours = MANIFEST in found or _HEADER in found
    return None if ours or not found else min(found)


def _entry(line: bytes) -> Entry:
    return Entry.model_validate_json(line)


def _rows_of(manifest: bytes | None) -> list[Entry]:
    """The rows behind the header; none of a file that somebody else wrote or cut."""
    try:
        return [_entry(line) for line in (manifest or b"").splitlines()[1:]]
    except ValidationError:
        return []


class CocoDataset:
    """Images, categories and annotations of the masks; the annotations by themselves are valid COCO results."""

    def __init__(self, header: Header) -> None:
        self._categories = header.categories
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, row: Entry) -> None:
        """A photo that has run lengths; one that was refused is no image of the data set."""
        from pycocotools import mask as runs

        if row.rle is None:
            return
        number, ids = len(self._images) + 1, {category.name: category.id for category in self._categories}
        self._images.append({"id": number, "file_name": row.name, "width": row.width, "height": row.height})
        for name, coded in row.rle.items():
            segmentation: Any = {"size": coded["size"], "counts": coded["counts"]}
            self._annotations.append({
                "id": len(self._annotations) + 1,
                "image_id": number,
                "category_id": ids[name],
                "segmentation": segmentation,
                "area": int(runs.area(segmentation)),
                "bbox": [float(side) for side in runs.toBbox(segmentation)],
                "iscrowd": 0,
                "score": coded["score"],
            })  # fmt: skip

    def as_json(self) -> str:
        kinds = [category.model_dump() for category in self._categories]
        whole = {"images": self._images, "categories": kinds, "annotations": self._annotations}
        return json.dumps(whole, separators=(",", ":"), ensure_ascii=False)
