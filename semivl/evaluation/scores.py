"""Scores: what one model reaches on one split of one snapshot, kept per image.

Intersections and unions stay with every image, so that two models can be compared pair by pair later. IoU and
mIoU are points from 0 to 100; pixels that nobody labelled (255) count nowhere.
"""

import hashlib
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from semivl.config import IGNORE, Classes, Record
from semivl.data.cache import ShardCache, read_sample
from semivl.data.decode import decode_image, decode_mask
from semivl.data.sample import Row, Split
from semivl.data.snapshot import Snapshot
from semivl.errors import RegistryError
from semivl.evaluation.window import segment

if TYPE_CHECKING:
    import pyarrow as pa

    from semivl.training.bundle import Predictor

Progress = Callable[[int, int], None]
"""called with the images done and all images"""


class Scores(Record):
    """One model on one split. `iou` is None for a class that neither truth nor prediction holds anywhere."""

    model: str = ""
    model_version: int | None = None
    dataset: str
    snapshot: str
    split: Split
    digest: str
    """hash of the evaluated samples, their masks and the class map: scores with the same digest compare"""
    images: int
    pixels: int
    """labelled pixels"""
    miou: float
    """plain mean over the classes that occur"""
    iou: dict[str, float | None]
    accuracy: float
    """share of the labelled pixels that are right, in points"""
    ms_per_image: float
    """median time from the decoded photo to its mask"""
    peak_memory_mib: float
    """of the GPU where one predicts, else of the process"""
    ece: float = 0.0
    """expected calibration error in points"""
    model_bytes: int = 0
    """of the model's files"""

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that the mean leaves out, since the split holds them nowhere."""
        return tuple(name for name, value in self.iou.items() if value is None)


class Evaluation(NamedTuple):
    """Scores with what they were computed from."""

    scores: Scores
    per_image: "pa.Table"
    """key, source, width, height, iou (mean over the image's classes), ms, intersections, unions"""
    confusion: np.ndarray
    """(N, N) int64 pixels: a row is the truth, a column the prediction"""

    def of(self, model: str, version: int) -> "Evaluation":
        """The same for that model version."""
        return self._replace(scores=self.scores.model_copy(update={"model": model, "model_version": version}))


def confusion(truth: Tensor, prediction: Tensor, classes: int) -> Tensor:
    """(N, N) int64 pixels by truth (row) and prediction (column); those with truth 255 do not count."""
    code = truth.flatten().to(torch.int32) * classes + prediction.flatten()
    # Counting the ignored pixels too, in rows of their own, takes a tenth of the time that picking the others out does.
    return torch.bincount(code, minlength=(IGNORE + 1) * classes)[: classes * classes].reshape(classes, classes)


def counts(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union of every class, (N,) each, in pixels."""
    intersections = matrix.diagonal()
    return intersections, matrix.sum(0) + matrix.sum(1) - intersections


def iou_points(matrix: np.ndarray) -> np.ndarray:
    """(N,) IoU of every class in points; NaN for a class that occurs in neither truth nor prediction."""
    intersections, unions = counts(matrix)
    return np.where(unions > 0, 100 * intersections / np.maximum(unions, 1), np.nan)


def evaluation_rows(snapshot: Snapshot, split: Split) -> list[Row]:
    """The samples of the split that have a mask, by key.

    Raises:
        RegistryError: REG003 there is none.
    """
    rows = sorted((r for r in snapshot.rows(split=split) if r.mask_offset is not None), key=lambda r: r.key)
    if not rows:
        raise RegistryError(
            "REG003",
            f"snapshot {snapshot.manifest.version} of {snapshot.manifest.dataset} has no mask in {split}.",
            "Name images with masks in data.evaluation_list, then ingest.",
        )
    return rows


def split_digest(snapshot: Snapshot, split: Split = "val") -> str:
    """Sixteen hex digits that stand for the evaluated samples, their masks and the class map."""
    lines = [f"{r.sha256} {r.mask_sha256}" for r in evaluation_rows(snapshot, split)]
    return hashlib.sha256("\n".join([*snapshot.manifest.classes.names, *lines]).encode()).hexdigest()[:16]


def predicted_mask(predictor: "Predictor", photo: np.ndarray) -> np.ndarray:
    """(H, W) uint8 class ids of an (H, W, 3) uint8 photo."""
    image = torch.from_numpy(photo.copy()).permute(2, 0, 1).float() / 255
    with torch.inference_mode():
        mask = segment(predictor.logits, image, len(predictor.classes), predictor.evaluation)
    return mask.cpu().numpy()


def evaluate(
    predictor: "Predictor",
    snapshot: Snapshot,
    cache: ShardCache,
    split: Split = "val",
    progress: Progress | None = None,
) -> Evaluation:
    """The model's scores on the split's masks.

    Raises:
        RegistryError: REG002 the model knows other classes, REG003 the split has no labelled pixel.
        DataError: a shard is damaged.
        StoreError: a shard cannot be fetched.
    """
    _require_same_classes(predictor.classes, snapshot.manifest.classes)
    rows = evaluation_rows(snapshot, split)
    n = len(predictor.classes)
    total = np.zeros((n, n), dtype=np.int64)
    times = _times_counted(rows, predictor.evaluation.repeat_to_multiple_of)
    records = []
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    for done, row in enumerate(rows, start=1):
        photo, truth = read_pair(cache, row)
        begun = time.perf_counter()
        mask = predicted_mask(predictor, photo)
        ms = 1000 * (time.perf_counter() - begun)
        matrix = confusion(torch.from_numpy(truth.copy()), torch.from_numpy(mask), n).numpy()
        total += matrix * times[row.key]
        records.append(_record(row, matrix, ms))
        if progress:
            progress(done, len(rows))
    return Evaluation(_scores(snapshot, split, total, records), _table(records), total)


def _times_counted(rows: Sequence[Row], multiple: int) -> Counter[str]:
    """How often each sample counts in the whole: once, and the first by name again until the number divides."""
    whole = -(-len(rows) // multiple) * multiple
    by_name = sorted(rows, key=lambda row: row.source)
    return Counter(row.key for row in islice(cycle(by_name), whole))


def read_pair(cache: ShardCache, row: Row) -> tuple[np.ndarray, np.ndarray]:
    """The sample's photo (H, W, 3) and mask (H, W), both uint8."""
    image, mask = read_sample(cache, row)
    assert mask is not None, row.key
    return decode_image(image), decode_mask(mask)


def _require_same_classes(model: Classes, data: Classes) -> None:
    if model.names != data.names:
        raise RegistryError(
            "REG002",
            f"the model knows {', '.join(model.names)}; the snapshot has {', '.join(data.names)}.",
            "Give the new class map a model of its own (model: ...).",
        )


def _record(row: Row, matrix: np.ndarray, ms: float) -> dict[str, object]:
    intersections, unions = counts(matrix)
    return {
        "key": row.key,
        "source": row.source,
        "width": row.width,
        "height": row.height,
        "iou": mean_iou(matrix),
        "ms": ms,
        "intersections": intersections.tolist(),
        "unions": unions.tolist(),
    }


def mean_iou(matrix: np.ndarray) -> float | None:
    """Mean IoU in points over the classes that occur; None where nothing is labelled."""
    values = iou_points(matrix)
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _table(records: Iterable[dict[str, object]]) -> "pa.Table":
    import pyarrow as pa

    schema = pa.schema(
        [
            ("key", pa.string()),
            ("source", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("iou", pa.float64()),
            ("ms", pa.float64()),
            ("intersections", pa.list_(pa.int64())),
            ("unions", pa.list_(pa.int64())),
        ]
    )
    return pa.Table.from_pylist(list(records), schema=schema)


def _scores(snapshot: Snapshot, split: Split, total: np.ndarray, records: list[dict]) -> Scores:
    manifest = snapshot.manifest
    mean = mean_iou(total)
    if mean is None:
        raise RegistryError(
            "REG003",
            f"split {split} of {manifest.dataset} {manifest.version} has no labelled pixel.",
            "Label evaluation images, then ingest.",
        )
    return Scores(
        dataset=manifest.dataset,
        snapshot=manifest.version,
        split=split,
        digest=split_digest(snapshot, split),
        images=len(records),
        pixels=int(total.sum()),
        miou=mean,
        iou={
            name: None if np.isnan(value) else float(value)
            for name, value in zip(manifest.classes.names, iou_points(total), strict=True)
        },
        accuracy=float(100 * total.trace() / total.sum()),
        ms_per_image=float(np.median([r["ms"] for r in records])),
        peak_memory_mib=_peak_memory_mib(),
    )


def _peak_memory_mib() -> float:
    if torch.cuda.is_available() and (used := torch.cuda.max_memory_allocated()):
        return used / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
