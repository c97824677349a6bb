"""A run whose process died starts again as the same run: its stages find what is done, and training goes on.

Only runs that carry the tag `restart` do so, and only `retrain.restarts` times: Prefect keeps every state of a run,
which is where the times before are counted.
"""

from datetime import UTC, datetime
from typing import Any, Protocol

from semivl.config import load
from semivl.errors import SemivlError

TAG = "restart"
RESTARTED = "Restarted"
"""name of the state that a run is put into"""


class Ask(Protocol):
    """A call to Prefect's API: method, path and body to the JSON that it answers."""

    def __call__(self, method: str, path: str, body: Any = None) -> Any: ...


def restart(run_id: str, ask: Ask) -> str:
    """Starts the run again where it crashed and may; says what was done.

    It is left alone where it goes on already, ended otherwise, or was started again too often.
    """
    run = ask("GET", f"flow_runs/{run_id}")
    if run["state_type"] != "CRASHED":
        return f"{run['name']} is {run['state_name']}: nothing to do."
    return schedule_again(run, ask) or f"{run['name']} stays crashed: it was started again as often as it may be."


def schedule_again(run: dict[str, Any], ask: Ask, force: bool = False) -> str | None:
    """Schedules the run for now, in words; None where it does not carry the tag or was started again too often."""
    if TAG not in run["tags"]:
        return None
    allowed = _allowed(run["parameters"])
    done = sum(s["name"] == RESTARTED for s in ask("GET", f"flow_run_states/?flow_run_id={run['id']}"))
    if done >= allowed:
        return None
    said = f"Its process died. Started again, {done + 1} of {allowed} times."
    when = {"scheduled_time": datetime.now(UTC).isoformat()}
    state = {"type": "SCHEDULED", "name": RESTARTED, "message": said, "state_details": when}
    ask("POST", f"flow_runs/{run['id']}/set_state", {"state": state, "force": force})
    return f"{run['name']}: {said}"


def _allowed(parameters: dict[str, Any]) -> int:
    """How often the run's experiment lets it be started again; never, where the experiment cannot be used."""
    try:
        return load(parameters["experiment"], parameters.get("overrides")).retrain.restarts
    except (SemivlError, KeyError):
        return 0
