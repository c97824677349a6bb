"""The images that a choice is made of: an experiment's unlabelled ones, each with what a model says of it.

What was said is kept on this machine in parts, by the images' keys, so that a run that was stopped goes on where it
was, and another choice by the same version asks it nothing twice. A key stands for the image's bytes.
"""

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from semivl.data.cache import ShardCache, read_sample
from semivl.data.decode import decode_image
from semivl.data.near_duplicates import from_hex
from semivl.data.sample import Row, Supervision
from semivl.data.snapshot import Snapshot
from semivl.errors import LabelError
from semivl.serving.label_choice import Images
from semivl.serving.label_scoring import said

if TYPE_CHECKING:
    from semivl.training.bundle import Predictor

MOST = 10_000
"""images that are scored, of the unlabelled and of the labelled ones each: of more, so many are drawn by the seed"""
_PART = 64
_UNLABELLED: tuple[Supervision, ...] = ("none", "tags", "caption")
Progress = Callable[[int, int], None]
"""called with the images done and all images"""


class Pool(NamedTuple):
    """What there is to choose from, and what is labelled already."""

    rows: list[Row]
    images: Images
    uncertainty: np.ndarray
    """(n,)"""
    unlabelled: int
    """training images without a mask; `rows` are all of them, or a draw"""
    labelled_rows: list[Row]
    labelled: Images
    """features of `labelled_rows`; hashes of every image with a mask, evaluation included"""


def gather(
    predictor: "Predictor",
    snapshot: Snapshot,
    cache: ShardCache,
    folder: Path,
    seed: int,
    most: int,
    progress: Progress,
) -> Pool:
    """The pool of a snapshot, scored.

    Args:
        folder: where this version's words on images are kept.
        most: images that are scored of each kind.

    Raises:
        LabelError: LABEL001 every training image has a mask; LABEL003 the model's output is not finite.
        DataError, StoreError: an image cannot be fetched.
    """
    unlabelled = snapshot.rows(split="train", supervision=_UNLABELLED)
    if not len(unlabelled):
        named = f"{snapshot.manifest.dataset} {snapshot.manifest.version}"
        raise LabelError("LABEL001", f"every training image of {named} has a mask.", "Ingest new images first.")
    masked = snapshot.rows(supervision="mask")
    rows = _draw(unlabelled, most, seed)
    labelled = _draw(snapshot.rows(split="train", supervision="mask"), most, seed)
    known = _Kept(folder)
    known.complete(predictor, cache, [*labelled, *rows], progress)
    uncertainty, features = known.of(rows)
    images = Images(features, _hashes([row.phash for row in rows]))
    of_masked = _hashes([row.phash for row in masked])
    return Pool(rows, images, uncertainty, len(unlabelled), labelled, Images(known.of(labelled)[1], of_masked))


def photo(cache: ShardCache, row: Row) -> np.ndarray:
    """(H, W, 3) uint8."""
    return decode_image(read_sample(cache, row)[0])


class _Kept:
    """What a model's version said of images: uncertainty and feature by key, in .npz files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[float, np.ndarray]] = {}
        for path in sorted(folder.glob("*.npz")):
            with np.load(path) as part:
                values = zip(part["keys"].tolist(), part["uncertainty"].tolist(), part["features"], strict=True)
                self._known |= {key: (unsure, feature) for key, unsure, feature in values}

    def complete(self, predictor: "Predictor", cache: ShardCache, rows: Sequence[Row], progress: Progress) -> None:
        """Asks the model about those that are not known yet."""
        missing = [row for row in rows if row.key not in self._known]
        for first in range(0, len(missing), _PART):
            some = missing[first : first + _PART]
            found = []
            for done, row in enumerate(some, first + 1):
                told = said(predictor, photo(cache, row))
                found.append((told.uncertainty, told.feature))
                progress(len(rows) - len(missing) + done, len(rows))
            self._keep([row.key for row in some], found)

    def of(self, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
        """(n,) uncertainties and (n, D) features."""
        if not rows:
            return np.zeros(0), np.zeros((0, 0), np.float32)
        unsure, features = zip(*(self._known[row.key] for row in rows), strict=True)
        return np.array(unsure), np.stack(features)

    def _keep(self, keys: list[str], found: list[tuple[float, np.ndarray]]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        unsure, features = zip(*found, strict=True)
        body = io.BytesIO()
        np.savez(body, keys=np.array(keys), uncertainty=np.array(unsure), features=np.stack(features))
        path = self._folder / f"{hashlib.sha256(''.join(keys).encode()).hexdigest()[:16]}.npz"
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_bytes(body.getvalue())
        partial.replace(path)
        self._known |= dict(zip(keys, found, strict=True))


def _draw(rows: Sequence[Row], most: int, seed: int) -> list[Row]:
    """All of them, or so many at random, in the order that they have."""
    if len(rows) <= most:
        return list(rows)
    places = np.random.default_rng(seed).choice(len(rows), most, replace=False)
    return [rows[int(place)] for place in sorted(places)]


def _hashes(digits: Sequence[str]) -> np.ndarray:
    return from_hex(np.array([one.encode() for one in digits], "S16"))
