"""Flow runs as the command line sees them: started through a deployment, followed, and their outcome read."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from semivl.errors import ServiceError

PIPELINE = "semivl-pipeline/local"
_PATIENCE = 60.0
"""seconds that Prefect may stay silent while a run is followed"""
_LAST_LINES = 3.0
"""seconds after its end in which a run's last log lines arrive: Prefect sends them every two"""
_BUSY = 503
"""what Prefect's client hands on only after it has tried for a minute"""
_PAGE = 200
"""log lines that Prefect gives at once"""

_OURS = "semivl"
"""loggers whose lines tell how the work goes; the others are Prefect's about itself"""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    completed: bool
    state: str
    message: str


def start(deployment: str, parameters: dict[str, Any]) -> UUID:
    """The id of a new run of FLOW/DEPLOYMENT, which a worker will take; one run, however often it has to be asked for.

    Raises:
        ServiceError: SERV101 Prefect does not answer, SERV102 it knows no such deployment, SERV103 it does
            not take the parameters, SERV105 it is too busy.
    """
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
    from prefect.states import Scheduled

    with client_of() as client:
        try:
            found = client.read_deployment_by_name(deployment)
            return client.create_flow_run_from_deployment(
                found.id, parameters=parameters, state=Scheduled(), idempotency_key=str(uuid4())
            ).id
        except ObjectNotFound:
            raise ServiceError(
                "SERV102", f"Prefect knows no deployment {deployment}.", "Make them with `semivl up`."
            ) from None
        except PrefectHTTPStatusError as error:
            words = " ".join(error.response.text.split())
            if error.response.status_code == _BUSY:
                raise ServiceError("SERV105", f"Prefect is too busy: {words}.", "Try again in a minute.") from None
            raise ServiceError("SERV103", f"Prefect does not take the run: {words}.", "Mend the parameters.") from None


def page(run: UUID) -> str:
    """Prefect's page of the run."""
    return f"{_pages()}/runs/flow-run/{run}"


def runs_page() -> str:
    """Prefect's page of all runs."""
    return f"{_pages()}/runs"


def follow(run: UUID, say: Say, poll: float = 1.0) -> Ended:
    """Waits for the end of the run; says its log lines, and those of the runs beneath it, as they come.

    Raises:
        ServiceError: SERV101 Prefect stays silent for a minute. The run is left alone.
    """
    told: set[str] = set()
    warned = False
    heard = time.monotonic()
    while True:
        try:
            with client_of() as client:
                found = client.read_flow_run(run)
                if found.state and found.state.is_final():
                    time.sleep(_LAST_LINES)
                _tell(client, run, told, say)
            heard = time.monotonic()
        except ServiceError:
            if time.monotonic() - heard > _PATIENCE:
                raise _silent() from None
            found = None
        if found and found.state:
            if found.state.is_final():
                return Ended(found.state.is_completed(), found.state.name, found.state.message or "")
            if found.state.name == "Late" and not warned:
                say("no worker has taken the run yet; `semivl status` shows whether one runs")
                warned = True
        time.sleep(poll)


def outcome(run: UUID) -> dict[str, Any]:
    """The row that semivl-pipeline left as its outcome; empty where it left none."""
    with client_of() as client:
        found = client.request(
            "POST",
            "/artifacts/filter",
            json={"artifacts": {"flow_run_id": {"any_": [str(run)]}, "type": {"any_": ["table"]}}},
        ).json()
    tables = [json.loads(a["data"]) for a in found if str(a["key"]).startswith("outcome-")]
    return tables[-1][0] if tables else {}


def latest(limit: int = 100) -> list[dict[str, Any]]:
    """The newest runs of semivl's flows: flow, experiment, state, start; newest first."""
    with client_of() as client:
        found = client.request(
            "POST",
            "/flow_runs/filter",
            json={
                "sort": "START_TIME_DESC",
                "limit": limit,
                "flow_runs": {"parent_task_run_id": {"is_null_": True}},
            },
        ).json()
        flows = client.request("POST", "/flows/filter", json={}).json()
    flows = {flow["id"]: flow["name"] for flow in flows}
    return [
        {
            "flow": flows.get(run["flow_id"], ""),
            "experiment": run["parameters"].get("experiment", ""),
            "state": run["state_name"],
            "name": run["name"],
            "started": run["start_time"] or "",
            "page": page(run["id"]),
        }
        for run in found
    ]


def _tell(client: Any, run: UUID, told: set[str], say: Say) -> None:
    """Says the lines that are new, by their ids: a line may reach Prefect after a younger one."""
    offset = max(0, len(told) - _PAGE // 2)
    wanted = {"flow_run_id": {"any_": [str(run), *_beneath(client, run)]}, "level": {"ge_": 20}}
    while True:
        lines = client.request(
            "POST",
            "/logs/filter",
            json={"logs": wanted, "sort": "TIMESTAMP_ASC", "limit": _PAGE, "offset": offset},
        ).json()
        for line in lines:
            if line["id"] not in told:
                told.add(line["id"])
                if line["name"].startswith(_OURS):
                    say(line["message"])
        offset += len(lines)
        if len(lines) < _PAGE:
            return


def _beneath(client: Any, run: UUID) -> Iterator[str]:
    found = client.request(
        "POST", "/flow_runs/filter", json={"flow_runs": {"parent_flow_run_id": {"any_": [str(run)]}}}
    ).json()
    return (child["id"] for child in found)


@contextmanager
def client_of() -> Iterator[Any]:
    """Prefect's client; SERV101 where the server does not answer."""
    import httpx
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            yield client
    except (OSError, RuntimeError, httpx.TransportError):
        raise _silent() from None


def _pages() -> str:
    from prefect.settings import get_current_settings

    known = get_current_settings()
    return (known.ui_url or (known.api.url or "").removesuffix("/api")).rstrip("/")


def _silent() -> ServiceError:
    from prefect.settings import get_current_settings

    address = get_current_settings().api.url
    return ServiceError("SERV101", f"Prefect cannot be reached at {address}.", "Start the services with `semivl up`.")
