"""`semivl schedule` and `semivl retrain`: what starts a retraining, and what becomes of runs that overlap."""

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.events import emit_event

from semivl.services import schedules
from semivl.services.web import call
from semivl.settings import settings
from tests.end_to_end.test_loop import flat
from tests.loop import overrides

SEMIVL = Path(sys.executable).parent / "semivl"
EXPERIMENT = "demo-supervised"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("services")]


@pytest.fixture
def changes() -> dict:
    return overrides(f"t-{uuid.uuid4().hex[:8]}")


@pytest.fixture(autouse=True)
def nothing_scheduled():
    yield
    semivl("schedule", EXPERIMENT, "--off")


def semivl(*words: str, changes: dict | None = None) -> subprocess.CompletedProcess[str]:
    command = [SEMIVL, *words, *(f"-s{key}={value}" for key, value in flat(changes or {}))]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, env={**os.environ, "COLUMNS": "200"})


def api(method: str, path: str, body=None):
    return call(method, f"{settings().prefect_api_url}/{path}", body)


def deployment() -> dict:
    return api("GET", f"deployments/name/{schedules.deployment_of(EXPERIMENT)}")


def runs_of(found: dict) -> list[dict]:
    asked = {"deployments": {"id": {"any_": [found["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
    return api("POST", "flow_runs/filter", asked)


def wait_for(what, seconds: float = 120):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.5)
    raise AssertionError("it did not come about")


def test_bad_schedules_are_refused_with_a_remedy(changes):
    for words, code in (
        (["--every", "often"], "CONF003"),
        (["--every", "0s"], "CONF003"),
        (["--cron", "99 * * * *"], "SERV104"),
        (["--every", "6h", "--off"], "CONF030"),
        (["--every", "6h", "--pool", "nowhere"], "SERV104"),
        ([], "CONF030"),
    ):
        done = semivl("schedule", EXPERIMENT, *words, changes=changes)
        assert (done.returncode, done.stderr.split()[1]) == (2, code), done.stderr
    assert "was on no schedule" in semivl("schedule", EXPERIMENT, "--off").stdout


def test_schedule_reaches_its_deployment_and_is_taken_away_again(changes):
    changes["retrain"] = {"overlap": "cancel"}
    done = semivl("schedule", EXPERIMENT, "--cron", "0 3 * * *", changes=changes)
    assert done.returncode == 0 and "scheduled-demo-supervised" in done.stdout, done.stderr
    made = deployment()
    assert [s["schedule"]["cron"] for s in made["schedules"]] == ["0 3 * * *"]
    assert made["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert made["global_concurrency_limit"]["limit"] == 1
    assert made["parameters"]["overrides"]["model"] == changes["model"]
    assert semivl("schedule", EXPERIMENT, "--every", "6h", changes=changes).returncode == 0
    assert [s["schedule"]["interval"] for s in deployment()["schedules"]] == [6 * 3600]
    assert "no longer on a schedule" in semivl("schedule", EXPERIMENT, "--off").stdout
    assert deployment()["schedules"] == []


def test_drift_and_foreign_snapshots_start_a_run_and_its_own_snapshot_does_not(changes):
    dataset = changes["data"]["dataset"]
    assert semivl("schedule", EXPERIMENT, "--every", "30d", changes=changes).returncode == 0
    resource = {"prefect.resource.id": f"semivl.dataset.{dataset}"}

    def runs() -> list[dict]:
        return [run for run in runs_of(deployment()) if not run["auto_scheduled"]]

    emit_event("semivl.snapshot.committed", resource | {"semivl.retraining": EXPERIMENT})
    emit_event("semivl.drift.found", {"prefect.resource.id": "semivl.dataset.another"})
    emit_event("semivl.drift.found", resource)
    wait_for(lambda: len(runs()) == 1)
    wait_for(lambda: runs()[0]["state_type"] == "COMPLETED", 240)
    emit_event("semivl.snapshot.committed", resource | {"semivl.retraining": "none"})
    wait_for(lambda: len(runs()) == 2)
    second = wait_for(lambda: runs()[1]["state_type"] == "COMPLETED" and runs()[1], 240)
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(second["id"]).state.message.startswith("nothing to do: 0 new images")
    time.sleep(10)  # time for what the first run's own snapshot would have started
    assert len(runs()) == 2


@pytest.mark.parametrize(("overlap", "fates"), [("queue", {"COMPLETED"}), ("cancel", {"COMPLETED", "CANCELLED"})])
def test_overlapping_runs_are_queued_or_cancelled_as_configured(changes, overlap, fates):
    changes |= {"retrain": {"overlap": overlap}}
    changes["train"] |= {"steps": 100}
    assert semivl("schedule", EXPERIMENT, "--every", "30d", changes=changes).returncode == 0
    found = deployment()
    made = [
        api("POST", f"deployments/{found['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"]
        for _ in range(2)
    ]

    def both() -> list[dict]:
        now = [api("GET", f"flow_runs/{run}") for run in made]
        return now if all(run["state_type"] in ("COMPLETED", "CANCELLED", "FAILED") for run in now) else []

    ended = wait_for(both, 300)
    assert {run["state_type"] for run in ended} == fates
    if overlap == "queue":
        first, second = sorted(ended, key=lambda run: run["start_time"])
        assert first["end_time"] <= second["start_time"]


def test_semivl_retrain_prints_the_outcome_and_then_that_nothing_is_to_be_done(changes):
    done = semivl("retrain", EXPERIMENT, changes=changes)
    assert done.returncode == 0, done.stdout + done.stderr
    assert any(line.startswith(f"{EXPERIMENT} ") for line in done.stdout.splitlines())
    again = semivl("retrain", EXPERIMENT, changes=changes)
    assert again.returncode == 0 and "nothing to do: 0 new images" in again.stdout.splitlines()[-1]
