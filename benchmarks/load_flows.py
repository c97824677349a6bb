"""What Prefect and its workers bear: flow runs that are submitted at one moment, each accepted once and run once.

For benchmarks.load. The services run, and `environment` is applied, before anything here is called.
"""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

from semivl.services import processes
from semivl.services.embedded import POOL, WORKER, describe, whole_environment
from semivl.services.web import call
from semivl.settings import home, settings

FLOW = "semivl-validate"
"""on a snapshot that is validated it finds that done: what is left is what every flow run costs"""
_END = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
_PAGE = 200
_QUIET = 600.0
"""seconds without any run's end after which the rest is given up"""


@dataclass(frozen=True)
class Submitted:
    """A submission: the run that Prefect made for it, or the fault; seconds since 1970, and until the answer."""

    run: str | None
    fault: str
    at: float
    seconds: float


@dataclass(frozen=True)
class Course:
    """What became of submissions: seconds from each to its states, and what is wrong with them."""

    running: list[float]
    completed: list[float]
    wrong: list[str]


def submit(count: int, parameters: dict[str, Any], wait: timedelta = timedelta()) -> list[Submitted]:
    """Submits that many runs at one moment, each by a client of its own; workers take them after `wait`."""
    from prefect.client.orchestration import get_client
    from prefect.states import Scheduled

    together = Barrier(count)

    def one(number: int) -> Submitted:
        with get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name(f"{FLOW}/local")
            together.wait()
            at, since = time.time(), time.perf_counter()
            try:
                state = Scheduled(scheduled_time=datetime.now(UTC) + wait)
                made = client.create_flow_run_from_deployment(
                    deployment.id, parameters=parameters, state=state, idempotency_key=f"load-{at}-{number}"
                )
            except Exception as error:  # whatever it is, it is to be counted
                return Submitted(None, repr(error), at, time.perf_counter() - since)
            return Submitted(str(made.id), "", at, time.perf_counter() - since)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))


def forget(submitted: list[Submitted]) -> list[str]:
    """Deletes the runs of a burst; what was wrong with them: refused, not there, or there twice."""
    wrong = [one.fault for one in submitted if not one.run]
    there = _runs(min(one.at for one in submitted))
    wrong += _differences(submitted, [run["id"] for run in there])
    for run in there:
        call("DELETE", _api(f"flow_runs/{run['id']}"))
    return wrong


def course(submitted: list[Submitted]) -> Course:
    """Waits until the runs have ended; gives when each ran and was done, and every one that was lost or ran twice."""
    since = min(one.at for one in submitted)
    wrong = [one.fault for one in submitted if not one.run]
    there = _wait(since)
    wrong += _differences(submitted, [run["id"] for run in there])
    wrong += [f"{run['name']} ended as {run['state_name']}" for run in there if run["state_type"] != "COMPLETED"]
    times = {name: [] for name in ("RUNNING", "COMPLETED")}
    for one in submitted:
        states = call("GET", _api(f"flow_run_states/?flow_run_id={one.run}")) if one.run else []
        found = Counter(state["type"] for state in states)
        for name, kept in times.items():
            if found[name] != 1:
                wrong.append(f"run {one.run} was {name} {found[name]} times")
            kept += [_seconds(s["timestamp"]) - one.at for s in states if s["type"] == name][:1]
    wrong += _log_lines([run["id"] for run in there])
    return Course(times["RUNNING"], times["COMPLETED"], wrong)


@contextmanager
def workers(count: int) -> Iterator[None]:
    """That many more workers of the embedded worker's pool, each of one run at a time, until the block ends."""
    environment = whole_environment(describe(WORKER)) | {processes.MARK: WORKER, "SEMIVL_HOME": str(home())}
    started: list[subprocess.Popen[bytes]] = []
    names = [f"load-{number}" for number in range(count)]
    try:
        for name in names:
            command = [
                sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process",
                "--name", name, "--limit", "1", "--install-policy", "never",
            ]  # fmt: skip
            with processes.log_path(name).open("wb") as log:
                started.append(
                    subprocess.Popen(
                        command, env=environment, cwd=home(), stdin=subprocess.DEVNULL, stdout=log,
                        stderr=subprocess.STDOUT, start_new_session=True,
                    )
                )  # fmt: skip
        _wait_until_online(names, started)
        yield
    finally:
        _end(started)


def _end(started: list[subprocess.Popen[bytes]], seconds: float = 20) -> None:
    """Asks the processes to end, and kills those that have not when all had their time."""
    for one in started:
        one.terminate()
    until = time.monotonic() + seconds
    while any(one.poll() is None for one in started) and time.monotonic() < until:
        time.sleep(0.2)
    for one in started:
        one.kill()
        one.wait()


def _wait_until_online(names: list[str], started: list[subprocess.Popen[bytes]], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while True:
        known = call("POST", _api(f"work_pools/{POOL}/workers/filter"), {}) or []
        online = {one["name"] for one in known if one["status"] == "ONLINE"}
        missing = [name for name in names if name not in online]
        if not missing:
            return
        ended = [one.args for one in started if one.poll() is not None]
        if ended or time.monotonic() > until:
            raise RuntimeError(f"{len(missing)} workers did not come up, of which {len(ended)} have ended")
        time.sleep(1)


def _wait(since: float) -> list[dict[str, Any]]:
    """The runs of FLOW since then, once all have ended or for a long time none has."""
    ended, heard = -1, time.monotonic()
    while True:
        there = _runs(since)
        now = sum(run["state_type"] in _END for run in there)
        if now > ended:
            ended, heard = now, time.monotonic()
        if ended == len(there) or time.monotonic() - heard > _QUIET:
            return there
        time.sleep(1)


def _runs(since: float) -> list[dict[str, Any]]:
    """The runs of FLOW that were made since then."""
    made = {"flow_runs": {"expected_start_time": {"after_": datetime.fromtimestamp(since, UTC).isoformat()}}}
    return _pages("flow_runs/filter", made | {"flows": {"name": {"any_": [FLOW]}}, "sort": "ID_DESC"})


def _differences(submitted: list[Submitted], there: list[str]) -> list[str]:
    """Submissions without a run, and runs that nobody submitted or that two submissions have in common."""
    accepted = Counter(one.run for one in submitted if one.run)
    found = Counter(there)
    lost = [f"run {run} is lost" for run in accepted - found]
    doubled = [f"run {run} has {accepted[run]} submissions" for run in accepted if accepted[run] > 1]
    return lost + doubled + [f"run {run} was not submitted" for run in found - accepted]


def _log_lines(ids: list[str]) -> list[str]:
    """Runs that do not say exactly once, in the log that Prefect keeps, that they begin."""
    wanted = {"logs": {"flow_run_id": {"any_": ids}, "level": {"ge_": 20}}, "sort": "TIMESTAMP_ASC"}
    lines = _pages("logs/filter", wanted)
    begun = Counter(line["flow_run_id"] for line in lines if line["message"] == f"{FLOW} begins")
    return [f"run {run} says {begun[run]} times that it begins" for run in ids if begun[run] != 1]


def _pages(path: str, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """All that Prefect has of it."""
    found: list[dict[str, Any]] = []
    while True:
        page = call("POST", _api(path), wanted | {"limit": _PAGE, "offset": len(found)}, seconds=60)
        found += page
        if len(page) < _PAGE:
            return found


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _api(path: str) -> str:
    return f"{settings().prefect_api_url}/{path}"
