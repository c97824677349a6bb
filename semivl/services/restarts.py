"""A run whose process died is started again as a new run, whose stages find what is done: training goes on.

Only runs that carry the tag `restart` are, and only `retrain.restarts` times: the new run's tags count them. It is a
new run because a worker that still holds the place of the old one ends when it gets that again (Prefect 3.8). The
crashed run's id makes the new one unique, however many notice the crash.
"""

from typing import Any, Protocol

from semivl.config import load
from semivl.errors import SemivlError

TAG = "restart"
_COUNTED = "restarted:"


class Ask(Protocol):
    """A call to Prefect's API: method, path and body to the JSON that it answers."""

    def __call__(self, method: str, path: str, body: Any = None) -> Any: ...


def restart(run_id: str, ask: Ask) -> str:
    """Starts the run again where it crashed and may be; says what was done."""
    run = ask("GET", f"flow_runs/{run_id}")
    if run["state_type"] != "CRASHED":
        return f"{run['name']} is {run['state_name']}: nothing to do."
    if TAG not in run["tags"] or not run["deployment_id"]:
        return f"{run['name']} does not carry the tag `{TAG}`: it stays crashed."
    before, allowed = restarts_of(run["tags"]), _allowed(run["parameters"])
    if before >= allowed:
        return f"{run['name']} was started again {before} times, which is as often as it may be: it stays crashed."
    tags = [tag for tag in run["tags"] if not tag.startswith(_COUNTED)]
    again = {
        "state": {"type": "SCHEDULED", "message": f"Goes on for run {run_id}, whose process died."},
        "parameters": run["parameters"],
        "tags": [*tags, f"{_COUNTED}{before + 1}"],
        "idempotency_key": key_of(run_id),
    }
    ask("POST", f"deployments/{run['deployment_id']}/create_flow_run", again)
    return f"{run['name']}: its process died. Started again, {before + 1} of {allowed} times."


def key_of(run_id: str) -> str:
    """The idempotency key of the run that goes on for a crashed one."""
    return f"restart-{run_id}"


def restarts_of(tags: list[str]) -> int:
    """How often a run with these tags was started again before."""
    return max((int(tag.removeprefix(_COUNTED)) for tag in tags if tag.startswith(_COUNTED)), default=0)


def _allowed(parameters: dict[str, Any]) -> int:
    """How often the run's experiment lets it be started again; never, where the experiment cannot be used."""
    try:
        return load(parameters["experiment"], parameters.get("overrides")).retrain.restarts
    except (SemivlError, KeyError):
        return 0
