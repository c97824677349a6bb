"""An experiment on a schedule: Prefect makes its runs. On a pool without a worker, so that none of them begins."""

import time

from semivl.config import load
from semivl.services import schedules
from semivl.services.embedded import GPU_POOL
from semivl.services.web import call
from semivl.settings import Settings


def test_schedule_makes_runs_and_its_end_leaves_none(services: Settings) -> None:
    changes = {"retrain": {"schedule": "6h", "overlap": "cancel"}}
    schedules.schedule(load("demo", changes), changes, GPU_POOL)
    api = services.prefect_api_url
    made = call("GET", f"{api}/deployments/name/{schedules.deployment_of('demo')}")
    due = {"deployments": {"id": {"any_": [made["id"]]}}, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    until = time.monotonic() + 90
    while not (found := call("POST", f"{api}/flow_runs/filter", due)) and time.monotonic() < until:
        time.sleep(0.5)
    assert found and found[0]["parameters"]["overrides"] == changes
    assert schedules.is_scheduled("demo")
    assert schedules.unschedule("demo") and not schedules.is_scheduled("demo")
    assert call("POST", f"{api}/flow_runs/filter", due) == []
