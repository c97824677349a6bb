"""Scores on the shelf: kept in S3 by model version and digest, shown on the version's page in MLflow."""

import io
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.entities import Metric
from pydantic import ValidationError

from semivl.data.sample import Split
from semivl.data.store import Store
from semivl.evaluation.calibration import reliability_plot
from semivl.evaluation.scores import Evaluation, Scores, per_class
from semivl.registry.package import model_version
from semivl.registry.tracking import client, tag_version

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

SCORES = "scores.json"


def save_scores(store: Store, evaluation: Evaluation) -> Scores:
    """Keeps the evaluation; scores.json comes last, so what can be read is whole. The first kept stays.

    What another release kept and this one cannot read is replaced.
    """
    scores = evaluation.scores
    assert scores.model_version is not None, "Evaluation.of names the version"
    folder = _folder(scores.model, scores.model_version, scores.digest)
    if kept := _read(store, folder):
        return kept
    put = store.put if store.exists(f"{folder}/{SCORES}") else store.put_if_absent
    matrix = io.BytesIO()
    np.save(matrix, evaluation.confusion, allow_pickle=False)
    put(f"{folder}/per_image.parquet", _parquet(evaluation.per_image))
    put(f"{folder}/per_class.parquet", _parquet(per_class(evaluation)))
    put(f"{folder}/confusion.npy", matrix.getvalue())
    put(f"{folder}/{SCORES}", scores.model_dump_json(indent=1).encode())
    return _read(store, folder) or scores


def read_scores(store: Store, model: str, version: int, digest: str) -> Evaluation | None:
    """What `save_scores` kept for that version on the images of that digest; None where it has not."""
    folder = _folder(model, version, digest)
    scores = _read(store, folder)
    if scores is None:
        return None
    return Evaluation(
        scores,
        pq.read_table(pa.BufferReader(store.get(f"{folder}/per_image.parquet"))),
        np.load(io.BytesIO(store.get(f"{folder}/confusion.npy")), allow_pickle=False),
    )


def _read(store: Store, folder: str) -> Scores | None:
    """The scores there; None where nothing is, or what another release wrote."""
    found = store.get_with_etag(f"{folder}/{SCORES}")
    if found is None:
        return None
    try:
        return Scores.model_validate_json(found[0])
    except ValidationError:
        return None


def is_published(version: "ModelVersion", split: Split, digest: str) -> bool:
    """Whether the version's page shows its scores on these images."""
    return version.tags.get(_tag(split, "scores_digest")) == digest


def publish_scores(evaluation: Evaluation) -> None:
    """Shows the scores on the version's page, and puts tables and plot among its run's artifacts.

    Those on the training split have tags of their own, and leave the description to the evaluation split's.
    """
    scores = evaluation.scores
    assert scores.model_version is not None
    version = model_version(scores.model, scores.model_version)
    if version.run_id:
        _log_tables(version.run_id, evaluation)
        _log_metrics(version.run_id, scores)
    tags = {"miou": f"{scores.miou:.2f}", "scores_snapshot": scores.snapshot, "scores_digest": scores.digest}
    tag_version(scores.model, scores.model_version, {_tag(scores.split, n): value for n, value in tags.items()})
    if scores.split == "val":
        client().update_model_version(scores.model, str(scores.model_version), _summary(scores))


def _tag(split: Split, name: str) -> str:
    return f"semivl.{name}" if split == "val" else f"semivl.{split}_{name}"


def _log_tables(run_id: str, evaluation: Evaluation) -> None:
    """The scores of every image and class as Parquet, and how well confidence is calibrated as a picture."""
    scores = evaluation.scores
    files = {
        "per_image.parquet": _parquet(evaluation.per_image),
        "per_class.parquet": _parquet(per_class(evaluation)),
        SCORES: scores.model_dump_json(indent=1).encode(),
        "reliability.png": reliability_plot(scores.reliability),
    }
    with tempfile.TemporaryDirectory() as place:
        for name, body in files.items():
            (Path(place) / name).write_bytes(body)
        client().log_artifacts(run_id, place, f"scores/{scores.split}-{scores.digest}")


def _log_metrics(run_id: str, scores: Scores) -> None:
    """Shows the scores among the run's metrics, once."""
    whole = ("miou", "accuracy", "boundary_miou", "ece", "confidence", "ms_per_image", "peak_memory_mib")
    values: dict[str, float | None] = {name: getattr(scores, name) for name in whole}
    values["model_bytes"] = float(scores.model_bytes)
    if by := scores.by_strength:
        values |= {"miou_strong": by.strong_miou, "miou_weak": by.weak_miou, "miou_harmonic": by.harmonic}
    for kind in ("iou", "class_accuracy", "boundary_iou"):
        values |= {f"{kind}/{name}": value for name, value in getattr(scores, kind).items()}
    values |= {f"latency_ms/{one.width}x{one.height}": one.ms for one in scores.latency}
    named = {re.sub(r"[^\w. /-]", "_", f"{scores.split}/{k}"): v for k, v in values.items() if v is not None}
    known = client().get_run(run_id).data.metrics
    if any(known.get(name) != value for name, value in named.items()):
        now = int(1000 * time.time())
        client().log_batch(run_id, metrics=[Metric(name, value, now, 0) for name, value in named.items()])


def _summary(scores: Scores) -> str:
    where = f"`{scores.dataset}` snapshot `{scores.snapshot}`"
    lines = [
        f"**{scores.miou:.1f} mIoU** on {scores.images} images of {where}; boundary mIoU {scores.boundary_miou:.1f}, "
        f"accuracy {scores.accuracy:.1f}, calibration error {scores.ece:.1f}.{_by_strength(scores)}",
        "",
        "| class | IoU |",
        "|---|---|",
        *(f"| {name} | {'absent' if value is None else f'{value:.1f}'} |" for name, value in scores.iou.items()),
    ]
    return "\n".join(lines)


def _by_strength(scores: Scores) -> str:
    """A sentence, where some classes are known by tags alone."""
    by = scores.by_strength
    if by is None:
        return ""
    strong, weak, both = ("-" if v is None else f"{v:.1f}" for v in (by.strong_miou, by.weak_miou, by.harmonic))
    return f" mIoU of classes with masks {strong}, of classes known by tags alone {weak}, harmonic mean {both}."


def _parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def _folder(model: str, version: int, digest: str) -> str:
    return f"scores/v2/{model}/{version}/{digest}"
