"""Evaluation: photos of one size are predicted together while the next are decoded, and counted where they are."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from semivl.config import Classes, EvaluationConfig
from semivl.data.cache import ShardCache
from semivl.data.sample import Row, Split
from semivl.data.snapshot import Snapshot
from semivl.errors import RegistryError
from semivl.evaluation.boundary import band_counts
from semivl.evaluation.by_strength import by_strength, weak_classes
from semivl.evaluation.calibration import expected_error, reliability, tallies
from semivl.evaluation.counting import by_name, confusions, iou_points, mean, mean_iou, points
from semivl.evaluation.latency import forget_peak, latencies, peak_memory_mib
from semivl.evaluation.per_image import Counted, image_record, image_table
from semivl.evaluation.scores import Evaluation, Scores
from semivl.evaluation.slices import rarest_classes, slices
from semivl.evaluation.split import (
    Pair,
    T,
    as_images,
    evaluation_rows,
    groups,
    read_ahead,
    read_pair,
    split_digest,
    times_counted,
)
from semivl.evaluation.window import answers

if TYPE_CHECKING:
    import pyarrow as pa

    from semivl.training.bundle import Predictor

Progress = Callable[[int, int], None]
"""called with the images done and all images"""


def evaluate(
    predictor: "Predictor",
    snapshot: Snapshot,
    cache: ShardCache,
    split: Split = "val",
    progress: Progress | None = None,
    latency_sizes: Sequence[tuple[int, int]] = (),
) -> Evaluation:
    """The model's scores on the split's masks.

    Args:
        latency_sizes: widths and heights at which the cost of one photo is measured.

    Raises:
        RegistryError: REG002 the model knows other classes, REG003 the split has no labelled pixel.
        DataError: a shard is damaged.
        StoreError: a shard cannot be fetched.
    """
    _require_same_classes(predictor.classes, snapshot.manifest.classes)
    rows = evaluation_rows(snapshot, split)
    forget_peak(predictor.device)
    table, total = _counted(predictor, snapshot, rows, cache, progress)
    peak = peak_memory_mib(predictor.device)
    if not total.confusion.any():
        raise RegistryError(
            "REG003",
            f"split {split} of {snapshot.manifest.dataset} {snapshot.manifest.version} has no labelled pixel.",
            "Label evaluation images, then ingest.",
        )
    scores = Scores(
        dataset=snapshot.manifest.dataset,
        snapshot=snapshot.manifest.version,
        split=split,
        digest=split_digest(snapshot, split),
        images=len(rows),
        slices=slices(rows, table),
        latency=latencies(predictor, latency_sizes),
        model_bytes=predictor.model_bytes,
        ms_per_image=float(np.median(table["ms"].to_numpy())),
        peak_memory_mib=peak,
        **_of_whole(total, snapshot.manifest.classes.names, weak_classes(snapshot)),
    )
    return Evaluation(scores, table, total.confusion)


def _counted(
    predictor: "Predictor", snapshot: Snapshot, rows: Sequence[Row], cache: ShardCache, progress: Progress | None
) -> tuple["pa.Table", Counted]:
    """The table with a row an image, in the order of `rows`, and the counts of them all."""
    times = times_counted(rows, predictor.evaluation.repeat_to_multiple_of)
    rarest = dict(zip((row.key for row in rows), rarest_classes(snapshot, rows), strict=True))
    records: dict[str, dict] = {}
    total: Counted | None = None
    for group, counted, ms in counted_groups(predictor, rows, partial(read_pair, cache)):
        for image, row in enumerate(group):
            records[row.key] = image_record(row, counted.image(image), ms / len(group), rarest[row.key])
            if progress:
                progress(len(records), len(rows))
        several = counted.total([times[row.key] for row in group])
        total = several if total is None else total.plus(several)
    assert total is not None
    return image_table(records[row.key] for row in rows), total


def counted_groups(
    predictor: "Predictor", rows: Sequence[T], read: Callable[[T], Pair]
) -> Iterator[tuple[list[T], Counted, float]]:
    """The rows in groups of photos predicted together, what was counted in them, and the milliseconds that took.

    A CPU's cores get a group each, where torch would put all of them to work on every step of one: no core waits for
    another. The windows of a batch are dealt among them, so that memory stays what one batch takes.
    """
    workers = 1 if predictor.device.type == "cuda" else torch.get_num_threads()
    config = predictor.evaluation
    config = config.model_copy(update={"batch": max(1, config.batch // workers)})
    ahead = read_ahead(groups(rows, config), read)
    if workers == 1:
        for group, pairs in ahead:
            yield group, *count(predictor, pairs, config)
        return
    waiting: deque[tuple[list[T], Future[tuple[Counted, float]]]] = deque()
    with ThreadPoolExecutor(workers, "predict", torch.set_num_threads, (1,)) as pool:
        try:
            for group, pairs in ahead:
                waiting.append((group, pool.submit(count, predictor, pairs, config)))
                if len(waiting) > workers:
                    first, counted = waiting.popleft()
                    yield first, *counted.result()
            for first, counted in waiting:
                yield first, *counted.result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(workers)  # the pool's threads have changed it for those that are made from now on


@torch.inference_mode()
def count(predictor: "Predictor", pairs: Sequence[Pair], config: EvaluationConfig) -> tuple[Counted, float]:
    """What there is to count in photos of one size with their masks, and the milliseconds that predicting them took."""
    classes, device = len(predictor.classes), predictor.device
    begun = time.perf_counter()
    answer = answers(predictor.logits, as_images([photo for photo, _ in pairs], device), config)
    if answer.mask.is_cuda:
        torch.cuda.synchronize(device)
    ms = 1000 * (time.perf_counter() - begun)
    truth = torch.from_numpy(np.stack([mask for _, mask in pairs])).to(device)
    parts = (
        confusions(truth, answer.mask, classes),
        *band_counts(truth, answer.mask, classes),
        *tallies(truth, answer.mask, answer.confidence),
    )
    return Counted(*(part.cpu().numpy() for part in parts)), ms


def _require_same_classes(model: Classes, data: Classes) -> None:
    if model.names != data.names:
        raise RegistryError(
            "REG002",
            f"the model knows {', '.join(model.names)}; the snapshot has {', '.join(data.names)}.",
            "Give the new class map a model of its own (model: ...).",
        )


def _of_whole(total: Counted, names: Sequence[str], weak: Sequence[str]) -> dict:
    """The scores that are made of the whole split's counts, by field of `Scores`; `weak` classes have no masks."""
    matrix, pixels = total.confusion, int(total.confusion.sum())
    boundary = points(total.boundary_intersections, total.boundary_unions)
    iou = by_name(names, iou_points(matrix))
    bins = reliability(total.pixels, total.right, total.confidence)
    return {
        "pixels": pixels,
        "miou": mean_iou(matrix),
        "iou": iou,
        "by_strength": by_strength(iou, weak),
        "accuracy": float(100 * matrix.trace() / pixels),
        "class_accuracy": by_name(names, points(matrix.diagonal(), matrix.sum(1))),
        "boundary_iou": by_name(names, boundary),
        "boundary_miou": mean(boundary) or 0.0,
        "ece": expected_error(bins),
        "confidence": float(100 * total.confidence.sum() / pixels),
        "reliability": bins,
    }
