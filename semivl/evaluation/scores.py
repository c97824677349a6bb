"""Scores: what one model reaches on one split of one snapshot, kept per image.

Intersections and unions stay with every image, so that two models can be compared pair by pair later. All scores are
points from 0 to 100; pixels that nobody labelled (255) count nowhere. docs/evaluation.md says what each figure means.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from semivl.config import Record
from semivl.data.sample import Split
from semivl.evaluation.by_strength import ByStrength as ByStrength
from semivl.evaluation.calibration import Bin as Bin
from semivl.evaluation.counting import confusion as confusion
from semivl.evaluation.counting import counts as counts
from semivl.evaluation.counting import iou_points as iou_points
from semivl.evaluation.counting import mean_iou as mean_iou
from semivl.evaluation.latency import Latency as Latency
from semivl.evaluation.slices import Slice as Slice
from semivl.evaluation.split import evaluation_rows as evaluation_rows
from semivl.evaluation.split import predicted_mask as predicted_mask
from semivl.evaluation.split import read_pair as read_pair
from semivl.evaluation.split import split_digest as split_digest

if TYPE_CHECKING:
    import pyarrow as pa


class Scores(Record):
    """One model on one split. A class's score is None where neither truth nor prediction holds it anywhere."""

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
    """share of the labelled pixels that are right"""
    by_strength: ByStrength | None = None
    """None where training masks show every class that training tags name"""
    class_accuracy: dict[str, float | None]
    """share of a class's pixels that are right; None for a class that the truth does not hold"""
    boundary_iou: dict[str, float | None]
    """None for a class without a boundary in truth and prediction"""
    boundary_miou: float
    """plain mean over the classes that have a boundary"""
    ece: float
    """expected calibration error"""
    confidence: float
    """mean probability of the predicted class"""
    reliability: tuple[Bin, ...]
    slices: tuple[Slice, ...]
    latency: tuple[Latency, ...]
    """of one photo at a time"""
    model_bytes: int
    """of the weights' file"""
    ms_per_image: float
    """median over the images of the time from decoded photo to mask while the split is scored: photos predicted
    together share theirs evenly, and a CPU's cores predict several at a time, one each"""
    peak_memory_mib: float
    """of the GPU where one predicts, else of the process"""

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that the mean leaves out, since the split holds them nowhere."""
        return tuple(name for name, value in self.iou.items() if value is None)


class Evaluation(NamedTuple):
    """Scores with what they were computed from."""

    scores: Scores
    per_image: "pa.Table"
    """a row an image, see `semivl.evaluation.evaluate.image_schema`"""
    confusion: np.ndarray
    """(N, N) int64 pixels: a row is the truth, a column the prediction"""

    def of(self, model: str, version: int) -> "Evaluation":
        """The same for that model version."""
        return self._replace(scores=self.scores.model_copy(update={"model": model, "model_version": version}))


def per_class(evaluation: Evaluation) -> "pa.Table":
    """A row a class: its pixels in truth, in prediction and in both, and its scores."""
    import pyarrow as pa

    scores, _, matrix = evaluation
    return pa.table(
        {
            "class": pa.array(list(scores.iou), pa.string()),
            "truth_pixels": pa.array(matrix.sum(1), pa.int64()),
            "predicted_pixels": pa.array(matrix.sum(0), pa.int64()),
            "right_pixels": pa.array(matrix.diagonal(), pa.int64()),
            "iou": pa.array(scores.iou.values(), pa.float64()),
            "accuracy": pa.array(scores.class_accuracy.values(), pa.float64()),
            "boundary_iou": pa.array(scores.boundary_iou.values(), pa.float64()),
        }
    )
