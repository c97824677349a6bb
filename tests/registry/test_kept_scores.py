"""Kept scores are whole or not there, and MLflow shows them once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semivl.config import Config
from semivl.data.snapshot import Manifest
from semivl.data.store import Store
from semivl.evaluation.scores import Evaluation, Scores
from semivl.registry.package import model_version, register
from semivl.registry.scores import is_published, publish_scores, read_scores, save_scores
from semivl.registry.tracking import client, report_address, run_address, version_address
from tests.conftest import forget_settings


def evaluation(scores: Scores) -> Evaluation:
    return Evaluation(scores, pa.table({"key": ["a"], "iou": [0.5]}), np.arange(4).reshape(2, 2))


def kept_key(model: str) -> str:
    return f"scores/v2/{model}/1/d1/scores.json"


def test_scores_come_back_as_they_were_kept(store: Store, config: Config, scored: Callable[..., Scores]) -> None:
    kept = evaluation(scored(1, 42.0))
    assert save_scores(store, kept) == kept.scores
    found = read_scores(store, config.registered_model, 1, "d1")
    assert found and found.scores == kept.scores and found.per_image.equals(kept.per_image)
    assert np.array_equal(found.confusion, kept.confusion)
    assert read_scores(store, config.registered_model, 2, "d1") is None


def test_the_scores_kept_first_stay(store: Store, scored: Callable[..., Scores]) -> None:
    first = save_scores(store, evaluation(scored(1, 42.0)))
    assert save_scores(store, evaluation(scored(1, 43.0))) == first


def test_scores_cut_short_are_not_seen(store: Store, config: Config, scored: Callable[..., Scores]) -> None:
    save_scores(store, evaluation(scored(1, 42.0)))
    store.delete(kept_key(config.registered_model))  # it would have come last
    assert read_scores(store, config.registered_model, 1, "d1") is None
    save_scores(store, evaluation(scored(1, 42.0)))
    assert read_scores(store, config.registered_model, 1, "d1")


def test_scores_that_another_release_kept_are_made_again(
    store: Store, config: Config, scored: Callable[..., Scores]
) -> None:
    old = scored(1, 42.0).model_dump_json(exclude={"reliability"})
    store.put(kept_key(config.registered_model), old.encode())
    assert read_scores(store, config.registered_model, 1, "d1") is None
    new = save_scores(store, evaluation(scored(1, 43.0)))
    found = read_scores(store, config.registered_model, 1, "d1")
    assert new.miou == 43.0 and found and found.scores == new


def test_the_versions_page_shows_the_scores(
    config: Config, manifest: Manifest, run_id: str, bundle: Path, scored: Callable[..., Scores], tmp_path: Path
) -> None:
    version = register(run_id, bundle, config, manifest)
    for _ in range(2):
        publish_scores(evaluation(scored(version, 42.0)))
    found = model_version(config.registered_model, version)
    assert found.tags["semivl.miou"] == "42.00" and found.tags["semivl.scores_digest"] == "d1"
    assert "42.0 mIoU" in str(found.description) and "| class 1 | absent |" in str(found.description)
    names = {Path(f.path).name for f in client().list_artifacts(run_id, "scores/val-d1")}
    assert names == {"per_image.parquet", "per_class.parquet", "scores.json", "reliability.png"}
    fetched = client().download_artifacts(run_id, "scores/val-d1", str(tmp_path))
    classes = pq.read_table(Path(fetched) / "per_class.parquet").to_pylist()
    assert classes[0] == {
        "class": "class 0", "truth_pixels": 1, "predicted_pixels": 2, "right_pixels": 0,
        "iou": 42.0, "accuracy": 50.0, "boundary_iou": 20.0,
    }  # fmt: skip
    metrics = client().get_run(run_id).data.metrics
    assert metrics["val/miou"] == 42.0 and metrics["val/ece"] == 5.0 and metrics["val/boundary_miou"] == 20.0


def test_scores_on_training_masks_leave_those_of_the_evaluation_on_the_page(
    config: Config, manifest: Manifest, run_id: str, bundle: Path, scored: Callable[..., Scores]
) -> None:
    version = register(run_id, bundle, config, manifest)
    publish_scores(evaluation(scored(version, 42.0)))
    publish_scores(evaluation(scored(version, 90.0, "d2").model_copy(update={"split": "train"})))
    found = model_version(config.registered_model, version)
    assert found.tags["semivl.miou"] == "42.00" and found.tags["semivl.train_miou"] == "90.00"
    assert is_published(found, "val", "d1") and is_published(found, "train", "d2")
    assert "42.0 mIoU" in str(found.description)


def test_addresses_lead_to_mlflows_pages(mlflow_server: str) -> None:
    assert version_address("a model", 3) == f"{mlflow_server}/#/models/a%20model/versions/3"
    assert run_address("r1").startswith(f"{mlflow_server}/#/experiments/") and run_address("r1").endswith("/runs/r1")
    assert report_address("r1").endswith("/runs/r1/artifacts/report/index.html")


def test_addresses_lead_to_the_page_that_a_browser_reaches(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMIVL_MLFLOW_PAGE", "https://mlflow.example.org/")
    forget_settings()
    assert version_address("m", 3) == "https://mlflow.example.org/#/models/m/versions/3"
    assert run_address("r1").startswith("https://mlflow.example.org/#/experiments/")
    monkeypatch.undo()
    forget_settings()
