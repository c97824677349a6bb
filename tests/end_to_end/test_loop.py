"""The whole loop as a user starts it: deployments, run by a worker that is a process of its own."""

import json
import os
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

import pytest

from semivl.data import snapshot
from semivl.data.store import open_store
from semivl.registry.package import alias_version
from semivl.registry.tracking import client
from tests.loop import EVALUATION, LABELLED, UNLABELLED, overrides, parameters

BIN = Path(sys.executable).parent
pytestmark = pytest.mark.usefixtures("services")


@pytest.fixture(scope="module")
def dataset() -> str:
    return f"t-{uuid.uuid4().hex[:8]}"


def prefect_run(deployment: str, given: dict) -> subprocess.CompletedProcess[str]:
    command = [BIN / "prefect", "deployment", "run", deployment, "--params", json.dumps(given), "--watch"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def semivl_run(experiment: str, changes: dict) -> subprocess.CompletedProcess[str]:
    command = [BIN / "semivl", "run", experiment, *(f"-s{key}={value}" for key, value in flat(changes))]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "COLUMNS": "200"})


def flat(changes: dict, before: str = ""):
    for key, value in changes.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", json.dumps(value) if isinstance(value, list) else value


def traces(dataset: str) -> dict:
    """All that the loop leaves behind and that could be there twice."""
    store, model = open_store(), f"semivl-{dataset}"
    kinds = Counter(key.split("/")[2] for key in store.list(f"datasets/{dataset}/") if "/docs/" not in key)
    versions = client().search_model_versions(f"name = '{model}'")
    return {
        "objects": dict(kinds),
        "head": snapshot.head(store, dataset),
        "scores": sorted(store.list(f"scores/v2/{model}/")),
        "decisions": [k for k in store.list(f"decisions/v2/{model}/") if k.endswith(".json")],
        "versions": sorted((int(v.version), v.run_id, v.tags.get("gate.decision")) for v in versions),
        "champion": alias_version(model, "champion"),
    }


def test_loop_ends_with_a_champion_and_a_second_turn_doubles_nothing(dataset):
    done = prefect_run("semivl-pipeline/local", parameters(dataset))
    assert done.returncode == 0, done.stdout + done.stderr
    first = traces(dataset)
    found = snapshot.read(open_store(), dataset)
    assert found.manifest.samples == LABELLED + UNLABELLED + EVALUATION
    assert first["champion"] == 1 and len(first["versions"]) == 1
    assert first["objects"]["snapshots"] == 3 and len(first["decisions"]) == 1
    assert prefect_run("semivl-pipeline/local", parameters(dataset)).returncode == 0
    assert traces(dataset) == first


def test_semivl_run_tells_the_stages_and_prints_table_and_addresses(dataset):
    done = semivl_run("demo", overrides(dataset))
    assert done.returncode == 0, done.stdout + done.stderr
    for stage in ("ingest", "validate", "train", "evaluate", "promote"):
        assert f"semivl-{stage} begins" in done.stdout
    row = next(line.split() for line in done.stdout.splitlines() if line.startswith("demo  "))
    assert row[1:3] == ["semivl", str(LABELLED)]
    after = traces(dataset)
    assert [number for number, _, _ in after["versions"]] == [1, 2]
    assert f"/models/semivl-{dataset}/versions/{after['champion']}" in done.stdout
    assert "report/index.html" in done.stdout


def test_failed_run_ends_semivl_run_with_its_words(dataset):
    given = overrides(dataset, source=Path("/nowhere"))
    done = semivl_run("demo", given)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: DATA101") and "/nowhere" in done.stderr
