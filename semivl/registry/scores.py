"""Scores on the shelf: kept in S3 by model version and digest, shown on the version's page in MLflow."""

import io
import re
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.entities import Metric

from semivl.data.store import Store
from semivl.evaluation.scores import Evaluation, Scores
from semivl.registry.package import model_version
from semivl.registry.tracking import client


def save_scores(store: Store, evaluation: Evaluation) -> Scores:
    """Keeps the evaluation; scores.json comes last, so what can be read is whole. The first kept stays."""
    scores = evaluation.scores
    assert scores.model_version is not None, "Evaluation.of names the version"
    folder = _folder(scores.model, scores.model_version, scores.digest)
    table, matrix = io.BytesIO(), io.BytesIO()
    pq.write_table(evaluation.per_image, table)
    np.save(matrix, evaluation.confusion, allow_pickle=False)
    store.put_if_absent(f"{folder}/per_image.parquet", table.getvalue())
    store.put_if_absent(f"{folder}/confusion.npy", matrix.getvalue())
    if store.put_if_absent(f"{folder}/scores.json", scores.model_dump_json(indent=1).encode()):
        return scores
    return Scores.model_validate_json(store.get(f"{folder}/scores.json"))


def read_scores(store: Store, model: str, version: int, digest: str) -> Evaluation | None:
    """What `save_scores` kept for that version on the images of that digest; None where it has not."""
    folder = _folder(model, version, digest)
    if not store.exists(f"{folder}/scores.json"):
        return None
    return Evaluation(
        Scores.model_validate_json(store.get(f"{folder}/scores.json")),
        pq.read_table(pa.BufferReader(store.get(f"{folder}/per_image.parquet"))),
        np.load(io.BytesIO(store.get(f"{folder}/confusion.npy")), allow_pickle=False),
    )


def publish_scores(scores: Scores, report: Path) -> None:
    """Shows the scores on the version's page, and puts report/index.html among its run's artifacts.

    Args:
        report: the file that `write_report` wrote; its name must be index.html.
    """
    assert report.name == "index.html" and scores.model_version is not None
    version = model_version(scores.model, scores.model_version)
    number = str(version.version)
    tags = {
        "semivl.miou": f"{scores.miou:.2f}",
        "semivl.scores_digest": scores.digest,
        "semivl.scores_snapshot": scores.snapshot,
    }
    if version.run_id:
        client().log_artifact(version.run_id, str(report), "report")
        _log_metrics(version.run_id, scores)
    for name, value in tags.items():
        client().set_model_version_tag(scores.model, number, name, value)
    client().update_model_version(scores.model, number, _summary(scores))


def _log_metrics(run_id: str, scores: Scores) -> None:
    """Shows the scores among the run's metrics, once."""
    values = {"miou": scores.miou, "accuracy": scores.accuracy, "ms_per_image": scores.ms_per_image}
    values |= {f"iou/{name}": value for name, value in scores.iou.items() if value is not None}
    named = {re.sub(r"[^\w. /-]", "_", f"{scores.split}/{name}"): value for name, value in values.items()}
    known = client().get_run(run_id).data.metrics
    if any(known.get(name) != value for name, value in named.items()):
        now = int(1000 * time.time())
        client().log_batch(run_id, metrics=[Metric(name, value, now, 0) for name, value in named.items()])


def _summary(scores: Scores) -> str:
    where = f"`{scores.dataset}` snapshot `{scores.snapshot}`"
    lines = [
        f"**{scores.miou:.1f} mIoU** on {scores.images} images of {where}.",
        "",
        "| class | IoU |",
        "|---|---|",
        *(f"| {name} | {'absent' if value is None else f'{value:.1f}'} |" for name, value in scores.iou.items()),
    ]
    return "\n".join(lines)


def _folder(model: str, version: int, digest: str) -> str:
    return f"scores/{model}/{version}/{digest}"
