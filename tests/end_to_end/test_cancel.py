"""`prefect flow-run cancel` of a training on a real worker: its steps are kept, and the next run goes on from them."""

import subprocess
import sys
import time
import uuid

import psutil
import pytest

from semivl.config import Config, load
from semivl.data import quality, snapshot
from semivl.data.ingest import ingest
from semivl.data.store import open_store
from semivl.registry.tracking import client
from semivl.services import processes, runs
from semivl.services.web import call
from semivl.settings import home, settings
from semivl.training.bundle import train_key
from semivl.training.checkpoint import newest_whole, step_of
from tests.kills import environment, unbroken_weights, wait_for_checkpoint
from tests.loop import parameters

STEPS = 400
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
CASES = {
    "one process, beneath a pipeline": ("semivl-pipeline/local", {}),
    "two ranks of torchrun": ("semivl-train/local", {"launch": "torchrun", "processes": 2}),
}
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("services"), pytest.mark.timeout(1200)]


@pytest.mark.parametrize(("deployment", "launch"), CASES.values(), ids=CASES)
def test_cancelled_training_keeps_its_steps_and_goes_on_as_if_unbroken(deployment, launch, tmp_path):
    given = parameters(f"t-{uuid.uuid4().hex[:8]}", steps=STEPS)
    given["overrides"]["compute"] |= launch
    config = load(given["experiment"], given["overrides"])
    key = validated(config)
    folder = home() / "runs" / key
    run = runs.start(deployment, given)
    wait_for_checkpoint(config)
    cancel(run)
    ended = final_state(run)
    assert ended == "CANCELLED"
    assert none_left(run), "a process of the training lives on"
    assert states_beneath(run) <= {"COMPLETED", "CANCELLED"}
    kept = newest_whole(folder)
    assert kept and 10 <= step_of(kept) < STEPS
    assert [one.info.status for one in mlflow_runs(key)] == ["SCHEDULED"]
    assert any(f"/{kept.name}/" in name for name in open_store().list(f"checkpoints/{key}/"))

    again = runs.follow(runs.start(deployment, given), lambda _: None)
    assert again.completed, again
    (tracked,) = mlflow_runs(key)
    assert tracked.info.status == "FINISHED"
    curve = client().get_metric_history(tracked.info.run_id, "train/total")
    assert sorted(point.step for point in curve) == sorted({*range(2, STEPS + 1, 2)})
    trained = (folder / "model" / "model.safetensors").read_bytes()
    assert trained == unbroken_weights(config, tmp_path / "unbroken")


def validated(config: Config) -> str:
    """The train key of the training on a snapshot that is made and validated now."""
    ingest(config.data, config.classes)
    store = open_store()
    found = snapshot.read(store, config.data.dataset)
    quality.require_valid(store, found, quality.validate(store, found, config.suite) and config.suite)
    return train_key(config, found.manifest.version)


def cancel(run) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "flow-run", "cancel", str(run)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def final_state(run, seconds: float = 120) -> str:
    """How Prefect says that the run ended."""
    until = time.monotonic() + seconds
    while (state := state_of(run)) not in FINAL:
        assert time.monotonic() < until, f"the run is {state}"
        time.sleep(0.2)
    return state


def state_of(run) -> str:
    return call("GET", f"{settings().prefect_api_url}/flow_runs/{run}")["state_type"]


def states_beneath(run) -> set[str]:
    """How Prefect says that the runs beneath it ended."""
    beneath = {"flow_runs": {"parent_flow_run_id": {"any_": [str(run)]}}}
    found = call("POST", f"{settings().prefect_api_url}/flow_runs/filter", beneath)
    return {one["state_type"] for one in found}


def none_left(run, seconds: float = 20) -> bool:
    """Whether all processes of the run end; the run's own has yet to send its last lines to Prefect."""
    until = time.monotonic() + seconds
    while processes_of(run) and time.monotonic() < until:
        time.sleep(0.2)
    return not processes_of(run)


def processes_of(run) -> list[psutil.Process]:
    """What runs of the flow run: its process, its ranks and their helpers."""
    found = processes.marked("worker")
    return [
        p
        for p in found
        if environment(p).get("PREFECT__FLOW_RUN_ID") == str(run) and p.status() != psutil.STATUS_ZOMBIE
    ]


def mlflow_runs(key: str) -> list:
    return client().search_runs(["1"], f"tags.`semivl.train_key` = '{key}'")
