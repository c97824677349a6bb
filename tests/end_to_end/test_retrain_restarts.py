"""A retraining whose process dies is started again by whoever notices, and ends as one that nobody touched."""

import subprocess
import time
import uuid

import pytest

from semivl.config import load
from semivl.data import snapshot
from semivl.data.store import open_store
from semivl.registry.tracking import client
from semivl.services import processes, runs, supervisor
from semivl.services.embedded import WORKER, describe, whole_environment
from semivl.services.restarts import key_of
from semivl.services.web import call
from semivl.settings import home, settings
from semivl.training.bundle import train_key
from tests.kills import kill, kill_run, unbroken_weights, wait_for_checkpoint
from tests.loop import parameters

STEPS = 200
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("services")]


@pytest.fixture
def given() -> dict:
    return parameters(f"t-{uuid.uuid4().hex[:8]}", steps=STEPS)


@pytest.fixture(autouse=True)
def what_ran_runs_again():
    yield
    supervisor.up()


def config_of(given: dict):
    return load(given["experiment"], given["overrides"])


def begun(given: dict):
    """The id of a retraining that is in the midst of its training."""
    run = runs.start("semivl-retrain/local", given)
    wait_for_checkpoint(config_of(given))
    return run


def api(method: str, path: str, body=None):
    return call(method, f"{settings().prefect_api_url}/{path}", body)


def successors(run) -> list[dict]:
    """The runs that were started again for a crashed one."""
    return api("POST", "flow_runs/filter", {"flow_runs": {"idempotency_key": {"any_": [key_of(str(run))]}}})


def wait_for(what, seconds: float = 300):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(1)
    raise AssertionError("it did not come about")


def state(run) -> str:
    return api("GET", f"flow_runs/{run}")["state_type"]


def goes_on(run) -> str:
    """The id of the run that goes on for one that crashes."""
    wait_for(lambda: state(run) == "CRASHED")
    return wait_for(lambda: successors(run), 120)[0]["id"]


def assert_completes(run) -> None:
    wait_for(lambda: state(run) in ("COMPLETED", "FAILED", "CRASHED"))
    assert state(run) == "COMPLETED"


def assert_as_unbroken(given: dict, folder) -> None:
    config = config_of(given)
    version = snapshot.head(open_store(), config.data.dataset)
    key = train_key(config, version)
    found = client().search_runs(["1"], f"tags.`semivl.train_key` = '{key}'")
    assert [run.info.status for run in found] == ["FINISHED"]
    curve = client().get_metric_history(found[0].info.run_id, "train/total")
    assert [point.step for point in curve] == list(range(2, STEPS + 1, 2))
    assert len(client().search_model_versions(f"name = '{config.registered_model}'")) == 1
    trained = (home() / "runs" / key / "model" / "model.safetensors").read_bytes()
    assert trained == unbroken_weights(config, folder, version)


def test_killed_process_is_noticed_by_its_worker_and_started_again(given, tmp_path):
    run = begun(given)
    kill_run(run)
    assert_completes(goes_on(run))
    assert_as_unbroken(given, tmp_path / "unbroken")


def test_run_whose_worker_died_too_is_found_by_its_silence_and_goes_on_elsewhere(given, tmp_path):
    run = begun(given)
    kill("worker")
    wait_for(lambda: state(run) == "CRASHED")
    worker = describe(WORKER)
    command = [part if part != "embedded" else "elsewhere" for part in worker.command]
    marked = whole_environment(worker) | {processes.MARK: WORKER, "SEMIVL_HOME": str(home())}
    with subprocess.Popen(command, env=marked, cwd=home(), start_new_session=True) as elsewhere:
        try:
            assert_completes(goes_on(run))
        finally:
            kill("worker")
            elsewhere.wait(10)
    assert_as_unbroken(given, tmp_path / "unbroken")


def test_semivl_up_starts_again_what_a_power_cut_ended(given, tmp_path):
    run = begun(given)
    kill("worker")
    kill("prefect")
    supervisor.up()
    assert_completes(goes_on(run))
    assert len(successors(run)) == 1
    assert_as_unbroken(given, tmp_path / "unbroken")


def test_run_is_started_again_as_often_as_its_experiment_says_and_no_more(given):
    given["overrides"]["retrain"] = {"restarts": 1}
    run = begun(given)
    kill_run(run)
    second = goes_on(run)
    wait_until_process(second)
    kill_run(second)
    wait_for(lambda: state(second) == "CRASHED", 60)
    time.sleep(30)  # time for the trigger
    assert successors(second) == []


def wait_until_process(run) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for process in processes.marked("worker"):
            try:
                if process.environ().get("PREFECT__FLOW_RUN_ID") == str(run):
                    return
            except Exception:  # it has just ended
                continue
        time.sleep(0.2)


def test_run_that_nobody_may_start_again_is_left_alone(services):
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as prefect:
        found = prefect.read_deployment_by_name("semivl-pipeline/local")
        run = prefect.create_flow_run_from_deployment(found.id, parameters={"experiment": "demo"})
    api("POST", f"flow_runs/{run.id}/set_state", {"state": {"type": "CRASHED"}, "force": True})
    time.sleep(15)
    assert successors(run.id) == []
