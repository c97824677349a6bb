"""The flows on real services: what they leave behind, and how they end for what a user did."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prefect.client.orchestration import get_client

from flows.evaluate import evaluate
from flows.ingest import ingest
from flows.promote import promote
from flows.train import train
from flows.validate import validate
from semivl.data import snapshot
from semivl.errors import SemivlError
from semivl.registry.package import model_version
from semivl.registry.tracking import client
from tests.loop import EVALUATION, LABELLED, UNLABELLED, parameters, scenes

pytestmark = pytest.mark.usefixtures("services")


def ended(flow, arguments):
    """The final state of the flow, run in this process, and the id of its run."""
    state = flow(**arguments, return_state=True)
    return state, state.state_details.flow_run_id


def artifacts(run_id) -> dict:
    with get_client(sync_client=True) as client:
        found = client.request(
            "POST", "/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [str(run_id)]}}}
        ).json()
    return {a["key"]: a["data"] for a in found}


def copied(folder: Path) -> Path:
    return Path(shutil.copytree(scenes(), folder))


def test_each_stage_alone_gives_its_record_and_artifacts(store, dataset):
    given = parameters(dataset)
    state, run = ended(ingest, given)
    version = state.result()
    counts = {r["kind"]: r["samples"] for r in json.loads(artifacts(run)[f"counts-{dataset}"])}
    assert counts["train/mask"] == LABELLED and counts["val"] == EVALUATION
    assert counts["train"] == LABELLED + UNLABELLED
    state, run = ended(validate, given)
    assert f"{dataset}@{version} passed" in artifacts(run)[f"validation-{dataset}"]
    state, run = ended(train, given)
    number = state.result()
    assert f"/models/semivl-{dataset}/versions/{number}" in artifacts(run)["model-demo-supervised"]
    state, run = ended(evaluate, given)
    scores = state.result()
    assert (scores.model_version, scores.images, scores.snapshot) == (number, EVALUATION, version)
    assert "report/index.html" in artifacts(run)["report-demo-supervised"]
    state, run = ended(evaluate, given | {"version": "challenger", "split": "train", "snapshot": version})
    assert (state.result().split, state.result().images) == ("train", LABELLED)
    assert state.result().digest != scores.digest and "report-demo-supervised" not in artifacts(run)
    found = model_version(f"semivl-{dataset}", "challenger")
    assert found.tags["semivl.miou"] == f"{scores.miou:.2f}"
    assert found.run_id
    kept = {f.path for f in client().list_artifacts(found.run_id, "scores")}
    assert kept == {f"scores/val-{scores.digest}", f"scores/train-{state.result().digest}"}
    assert [(one.width, one.height) for one in scores.latency] == [(64, 48)]
    state, run = ended(promote, given)
    assert state.result().promoted
    assert "promoted" in artifacts(run)["decision-demo-supervised"]


def test_many_shards_are_built_at_once(store, dataset):
    given = parameters(dataset)
    given["overrides"]["data"]["shard_samples"] = 2
    state, _ = ended(ingest, given)
    manifest = snapshot.read(store, dataset, state.result()).manifest
    assert len(manifest.shards) > 2
    assert manifest.samples == LABELLED + UNLABELLED + EVALUATION


def test_training_refuses_a_snapshot_that_was_not_validated(store, dataset):
    ingest(**parameters(dataset))
    state, _ = ended(train, parameters(dataset))
    assert state.is_failed() and state.message.startswith("DATA301")


def test_broken_files_are_left_out_by_code_and_the_rest_goes_on(store, dataset, tmp_path):
    source = copied(tmp_path / "source")
    images, masks = source / "images", source / "masks"
    cut = images / "unlabelled-00000.jpg"
    cut.write_bytes(cut.read_bytes()[:500])
    with zipfile.ZipFile(images / "unlabelled-00001.jpg", "w") as archive:
        archive.writestr("notes.txt", "no picture")
    Image.fromarray(np.full((64, 64), 77, np.uint8)).save(masks / "labelled-00000.png")
    Image.fromarray(np.zeros((32, 64), np.uint8)).save(masks / "labelled-00001.png")
    state, run = ended(ingest, parameters(dataset, source=source))
    found = snapshot.read(store, dataset, state.result())
    assert found.manifest.samples == LABELLED + UNLABELLED + EVALUATION - 4
    said = artifacts(run)[f"quarantine-{dataset}"]
    for code, name in [
        ("DATA003", "unlabelled-00000"), ("DATA002", "unlabelled-00001"),
        ("DATA004", "labelled-00000"), ("DATA005", "labelled-00001"),
    ]:  # fmt: skip
        assert any(code in line and name in line for line in said.splitlines()), (code, said)


def emptied(source: Path) -> dict:
    shutil.rmtree(source / "images")
    (source / "images").mkdir()
    return {}


def without_folder(source: Path) -> dict:
    shutil.rmtree(source)
    return {}


def misnamed_list(source: Path) -> dict:
    return {"labelled_list": "labeled.txt"}


@pytest.mark.parametrize(
    ("spoil", "code"), [(emptied, "DATA102"), (without_folder, "DATA101"), (misnamed_list, "DATA103")]
)
def test_unusable_source_fails_the_run_with_its_code(store, dataset, tmp_path, spoil, code):
    source = copied(tmp_path / "source")
    given = parameters(dataset, source=source)
    given["overrides"]["data"] |= spoil(source)
    state, run = ended(ingest, given)
    assert state.is_failed() and state.message.startswith(code)
    with get_client(sync_client=True) as client:
        tasks = client.request(
            "POST", "/task_runs/filter", json={"task_runs": {"flow_run_id": {"any_": [str(run)]}}}
        ).json()
    assert [t["run_count"] for t in tasks] == [1]
    assert snapshot.head(store, dataset) is None


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"experiment": "dmeo"}, "CONF001"),
        ({"experiment": "demo", "overrides": {"train": {"steps": 0}}}, "CONF003"),
        ({"experiment": "demo", "overrides": {"method": {"name": "semvil"}}}, "CONF006"),
    ],
)
def test_unusable_experiment_fails_the_run_with_its_code(store, dataset, arguments, code):
    if code == "CONF006":
        arguments = {
            "experiment": "demo",
            "overrides": parameters(dataset)["overrides"] | {"method": {"name": "semvil"}},
        }
        ingest(**arguments)
        validate(**arguments)
    state, _ = ended(train, arguments)
    assert state.is_failed() and state.message.startswith(code)


@pytest.mark.parametrize(
    ("chosen", "code"),
    [({"version": "champion"}, "REG004"), ({"version": "12"}, "REG004"), ({"version": 0}, "REG004")],
)
def test_unknown_version_fails_the_evaluation_with_its_code(store, dataset, chosen, code):
    state, _ = ended(evaluate, parameters(dataset) | chosen)
    assert state.is_failed() and state.message.startswith(code)


def test_a_split_that_there_is_not_is_refused_before_the_run(dataset):
    with pytest.raises(Exception, match="split"):
        evaluate.validate_parameters({"split": "test"})


def test_nothing_to_promote_is_said(store, dataset):
    ingest(**parameters(dataset))
    with pytest.raises(SemivlError, match="REG004"):
        promote(**parameters(dataset))
