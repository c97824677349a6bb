"""Starts, stops and watches the embedded services.

`up` starts what does not run and leaves the rest alone; `down` stops everything that carries our mark, also
what a crash left behind. Data survive both, and SIGKILL too: SeaweedFS' files and the SQLite databases are
whole at every moment, so a server that does not end in time is killed.
"""

import fcntl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from semivl.data.store import Store
from semivl.errors import SemivlError, ServiceError, StoreError
from semivl.services import credentials, processes
from semivl.services.embedded import (
    MLFLOW,
    NAMES,
    PREFECT,
    S3,
    WORKER,
    Service,
    describe,
    is_yours,
    own_address,
    whole_environment,
)
from semivl.services.ports import require_free
from semivl.services.prefect_state import crash_lost_runs, deploy_if_changed
from semivl.services.progress import Progress, progress
from semivl.services.web import answers, call
from semivl.settings import home, settings

PATIENCE = 180.0
"""Seconds that a service may take to start; a cold disk and a busy machine included."""
GRACE = 4.0
"""Seconds that a service has to end by itself."""
_PROBE = "services/probe"


@dataclass(frozen=True)
class ServiceState:
    """How one service is: running (answers), starting (runs, does not answer yet), stopped, yours."""

    name: str
    state: Literal["running", "starting", "stopped", "yours"]
    address: str
    pid: int | None
    log: str


def up(only: Iterable[str] | None = None) -> None:
    """Starts the embedded services that are wanted and do not run, and waits until they are of use.

    Raises:
        ServiceError: SERV001 a port is busy, SERV002 a service ended, SERV003 one does not answer,
            SERV004 prefect.yaml cannot be deployed, SERV005 there is no such service, SERV006 not installed,
            SERV008 a service answers with an error.
    """
    names = _ordered(only)
    with _alone(), progress() as told:
        credentials.ensure()
        wanted = [describe(name) for name in names if not is_yours(name)]
        starting = [s for s in wanted if _needs_start(s)]
        for service in starting:
            processes.stop(service.name, GRACE)
        for service in starting:
            require_free(service.title, service.ports, service.setting)
        servers = [s for s in wanted if s.name != WORKER]
        for service in servers:
            if service in starting:
                _start(service)
        _wait(servers, told, quiet=not starting)
        if S3 in names:
            _wait_for_bucket(told, fresh=S3 in [s.name for s in starting])
        for service in wanted:
            if service.name == WORKER:
                _start_worker(service, service in starting, told)


def down() -> None:
    """Stops the worker, what its flow runs left behind, the servers, and S3 last."""
    with _alone(), progress() as told:
        running = [n for n in NAMES if processes.marked(n)]
        for name in (WORKER, MLFLOW, PREFECT, S3):
            if name not in running:
                continue
            told.waiting(f"stopping {name}")
            processes.stop(name, GRACE)
            if name == WORKER:
                with suppress(ServiceError):  # without Prefect the next `up` does it
                    crash_lost_runs()
        if running:
            told.done("stopped " + ", ".join(running))


def status() -> list[ServiceState]:
    """How each service is now."""
    return [_state(name) for name in NAMES]


def require(*names: str) -> None:
    """Raises ServiceError SERV007 for the first of the embedded services that does not run."""
    for state in map(_state, _ordered(names)):
        if state.state in ("stopped", "starting"):
            raise ServiceError("SERV007", f"{state.name} is {state.state} ({state.address}).", "Start it: semivl up.")


def is_healthy(service: Service) -> bool:
    """Whether the service is of use now; a worker is when Prefect has heard of it since it began."""
    if service.name != WORKER:
        return answers(service.health)
    known = processes.recorded(WORKER)
    try:
        found = call("POST", service.health, {}, seconds=5) or []
    except ServiceError:
        return False
    online = [w["last_heartbeat_time"] for w in found if w["status"] == "ONLINE"]
    beats = [datetime.fromisoformat(heard).timestamp() for heard in online]
    return known is not None and max(beats, default=0) > known.created


def _ordered(only: Iterable[str] | None) -> list[str]:
    chosen = set(NAMES if only is None else only)
    for name in sorted(chosen - set(NAMES)):
        raise ServiceError("SERV005", f"there is no service {name}.", f"Known: {', '.join(NAMES)}.")
    return [name for name in NAMES if name in chosen]


def _needs_start(service: Service) -> bool:
    """Whether it does not run, or runs with settings that have changed since."""
    known = processes.recorded(service.name)
    return processes.running(service.name) is None or known is None or known.recipe != service.recipe


def _start(service: Service) -> None:
    processes.start(service.name, service.command, whole_environment(service), service.recipe)


def _start_worker(worker: Service, start: bool, told: Progress) -> None:
    told.waiting("deploying the flows")
    if deploy_if_changed():
        told.done("flows deployed")
    if start:
        crash_lost_runs()
        _start(worker)
    _wait([worker], told, quiet=not start)


def _wait(services: list[Service], told: Progress, quiet: bool) -> None:
    """Until all of them are of use."""
    waiting, deadline = list(services), time.monotonic() + PATIENCE
    while waiting:
        for service in [s for s in waiting if is_healthy(s)]:
            waiting.remove(service)
            if not quiet:
                told.done(f"{service.title} is up: {service.address}")
        for service in waiting:
            if processes.running(service.name) is None:
                raise _failed("SERV002", service, "ended while it started")
        if waiting and time.monotonic() > deadline:
            raise _failed("SERV003", waiting[0], f"has not answered for {PATIENCE:.0f} s")
        if waiting:
            told.waiting("waiting for " + ", ".join(s.title for s in waiting))
            time.sleep(0.1)


def _wait_for_bucket(told: Progress, fresh: bool) -> None:
    """Until the bucket is there and, of an S3 that has just begun, gives back what it holds.

    It answers before it has found its volumes again: reads of what was there before fail until then.
    """
    store, deadline = Store(settings()), time.monotonic() + PATIENCE
    while True:
        try:
            store.ensure_bucket()
            if fresh:
                if store.exists(_PROBE):
                    store.get(_PROBE)
                store.put(_PROBE, b"written at every start")
                store.get(_PROBE)
            return
        except StoreError as error:
            if not fresh or error.code == "STORE002" or time.monotonic() > deadline:
                raise
        told.waiting("waiting for S3 to find its objects")
        time.sleep(0.2)


def _failed(code: str, service: Service, what: str) -> ServiceError:
    end = processes.log_tail(service.name)
    log = processes.log_path(service.name)
    return ServiceError(
        code, f"{service.title} {what}; its log ends:\n{end}\n", f"Read {log}, then: semivl down, semivl up."
    )


def _state(name: str) -> ServiceState:
    log = str(processes.log_path(name))
    if is_yours(name):
        return ServiceState(name, "yours", own_address(name), None, "")
    try:
        service = describe(name)
    except SemivlError as error:
        return ServiceState(name, "stopped", str(error), None, log)
    process = processes.running(name)
    if process is None:
        return ServiceState(name, "stopped", service.address, None, log)
    return ServiceState(name, "running" if is_healthy(service) else "starting", service.address, process.pid, log)


@contextmanager
def _alone() -> Iterator[None]:
    """One `up` or `down` at a time; a second one waits for the first."""
    folder = home() / "services"
    home().mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
