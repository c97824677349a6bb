"""What is counted in an image, and the table that keeps it: a row an image."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from semivl.data.sample import Row
from semivl.evaluation.counting import counts, mean, mean_iou, points

if TYPE_CHECKING:
    import pyarrow as pa


class Counted(NamedTuple):
    """What was counted in I images; the fields of one image, or of a sum, lack the dimension I."""

    confusion: np.ndarray
    """(I, N, N) pixels by truth (row) and prediction (column)"""
    boundary_intersections: np.ndarray
    """(I, N) pixels that the bands of truth and prediction have in common"""
    boundary_unions: np.ndarray
    pixels: np.ndarray
    """(I, BINS) labelled pixels of each bin of confidence"""
    right: np.ndarray
    """(I, BINS) those predicted right"""
    confidence: np.ndarray
    """(I, BINS) sum of their confidence"""

    def image(self, place: int) -> "Counted":
        """Of one of the images."""
        return Counted(*(part[place] for part in self))

    def total(self, times: Sequence[int]) -> "Counted":
        """The sum over the images, each as often as `times` says."""
        return Counted(*(np.tensordot(np.array(times), part, 1) for part in self))

    def plus(self, other: "Counted") -> "Counted":
        """The sum of two sums."""
        return Counted(*(a + b for a, b in zip(self, other, strict=True)))


def image_schema() -> "pa.Schema":
    """The columns of per_image.parquet; lists have a number for every class."""
    import pyarrow as pa

    numbers = pa.list_(pa.int64())
    return pa.schema(
        [
            ("key", pa.string()),
            ("source", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("brightness", pa.float64()),
            ("tags", pa.list_(pa.string())),
            ("rarest_class", pa.string()),
            ("pixels", pa.int64()),
            ("iou", pa.float64()),
            ("accuracy", pa.float64()),
            ("boundary_iou", pa.float64()),
            ("confidence", pa.float64()),
            ("ms", pa.float64()),
            ("intersections", numbers),
            ("unions", numbers),
            ("boundary_intersections", numbers),
            ("boundary_unions", numbers),
        ]
    )


def image_record(row: Row, counted: Counted, ms: float, rarest: str | None) -> dict[str, object]:
    """An image's row. Its `iou` and `boundary_iou` are means over the classes that occur in it, None without any.

    Args:
        counted: of this image alone.
        rarest: the rarest rare class that it holds, see `slices.rarest_classes`.
    """
    intersections, unions = counts(counted.confusion)
    pixels = int(counted.confusion.sum())
    return {
        "key": row.key,
        "source": row.source,
        "width": row.width,
        "height": row.height,
        "brightness": row.brightness,
        "tags": list(row.tags),
        "rarest_class": rarest,
        "pixels": pixels,
        "iou": mean_iou(counted.confusion),
        "accuracy": float(100 * intersections.sum() / pixels) if pixels else None,
        "boundary_iou": mean(points(counted.boundary_intersections, counted.boundary_unions)),
        "confidence": float(100 * counted.confidence.sum() / pixels) if pixels else None,
        "ms": ms,
        "intersections": intersections.tolist(),
        "unions": unions.tolist(),
        "boundary_intersections": counted.boundary_intersections.tolist(),
        "boundary_unions": counted.boundary_unions.tolist(),
    }


def image_table(records: Iterable[dict[str, object]]) -> "pa.Table":
    """The table of these rows."""
    import pyarrow as pa

    return pa.Table.from_pylist(list(records), schema=image_schema())
