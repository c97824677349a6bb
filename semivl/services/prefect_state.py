"""What the embedded Prefect knows of us: pools, deployments and automations, and runs that lost their process.

python -m semivl.services.prefect_state     makes the pools and deploys prefect.yaml and automations.yaml
"""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from semivl.errors import ServiceError
from semivl.services import schedules
from semivl.services.embedded import GPU_POOL, POOL, WORKER, describe, whole_environment
from semivl.services.environment import environment
from semivl.services.processes import log_path, marked
from semivl.services.restarts import TAG, restart
from semivl.services.web import call
from semivl.settings import ROOT

AUTOMATIONS = ROOT / "automations.yaml"
_VARIABLE = "semivl_deployed"
_UNFINISHED = ["RUNNING", "PENDING", "CANCELLING", "PAUSED"]


def deploy_if_changed() -> bool:
    """Deploys prefect.yaml unless this database has it already; says whether it did.

    Raises:
        ServiceError: SERV004, with the end of what `prefect deploy` said.
    """
    wanted = _fingerprint()
    known = call("GET", _api(f"variables/name/{_VARIABLE}"))
    if known is not None and known["value"] == wanted:
        return False
    log = log_path("deploy")
    with log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=whole_environment(describe(WORKER)) | {"SEMIVL_ROOT": str(ROOT)},
            cwd=ROOT,
        )
    if done.returncode:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        raise ServiceError("SERV004", f"prefect.yaml could not be deployed:\n{end}\n", f"Read {log}.")
    if known is None:
        call("POST", _api("variables/"), {"name": _VARIABLE, "value": wanted})
    else:
        call("PATCH", _api(f"variables/name/{_VARIABLE}"), {"value": wanted})
    return True


def crash_lost_runs() -> int:
    """Marks runs of our pool whose process is gone as crashed, with their subflows; gives their number.

    Those that may be are started again at once, whether or not Prefect's trigger hears of the crash.
    For a moment when no worker runs: only then is a run without a process a lost one.
    """
    living = set(_living_runs())
    pool = {"work_pools": {"name": {"any_": [POOL]}}}
    lost = [run for run in _unfinished({}, pool) if run["id"] not in living]
    parents = [run["id"] for run in lost]
    if parents:
        lost += _unfinished({"parent_flow_run_id": {"any_": parents}}, {})
    for run in lost:
        kind = "CANCELLED" if run["state_type"] == "CANCELLING" else "CRASHED"
        state = {"type": kind, "message": "Its process was gone: the worker or the machine had stopped."}
        call("POST", _api(f"flow_runs/{run['id']}/set_state"), {"state": state, "force": True})
    for run in lost:
        if TAG in run["tags"]:
            restart(run["id"], _ask)
    return len(lost)


def _ask(method: str, path: str, body: Any = None) -> Any:
    return call(method, _api(path), body)


def _unfinished(flow_runs: dict[str, Any], others: dict[str, Any]) -> list[dict[str, Any]]:
    state = {"state": {"type": {"any_": _UNFINISHED}}}
    return call("POST", _api("flow_runs/filter"), {"flow_runs": flow_runs | state, "limit": 200} | others)


def _living_runs() -> Iterator[str]:
    """Ids of the flow runs that have a process here."""
    for process in marked(WORKER):
        try:
            yield process.environ().get("PREFECT__FLOW_RUN_ID", "")
        except psutil.Error:
            continue


def _fingerprint() -> str:
    """Hash of all that decides what is deployed."""
    sources = [ROOT / "prefect.yaml", AUTOMATIONS, *sorted((ROOT / "semivl" / "config").glob("*.py"))]
    sources += sorted((ROOT / "flows").glob("**/*.py")) + sorted((ROOT / "conf").glob("**/*.yaml"))
    known = hashlib.sha256(str(ROOT).encode())
    for path in filter(Path.is_file, sources):
        known.update(f"{path.relative_to(ROOT)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return known.hexdigest()


def _api(path: str) -> str:
    return f"{environment()['PREFECT_API_URL']}/{path}"


def _make_pools() -> None:
    """Both pools, with the template of this Prefect. One that is there with workers of another type stays as it is."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        others = {pool.name for pool in client.read_work_pools() if pool.type != "process"}
        for name in {POOL, GPU_POOL} - others:
            client.create_work_pool(
                WorkPoolCreate(name=name, type="process", base_job_template=template), overwrite=True
            )


def _make_automations() -> None:
    """Those of automations.yaml, in place of what bears their names."""
    import yaml
    from prefect.client.orchestration import get_client
    from prefect.events.schemas.automations import AutomationCore

    with get_client(sync_client=True) as client:
        for described in yaml.safe_load(AUTOMATIONS.read_text())["automations"]:
            for old in client.read_automations_by_name(described["name"]):
                client.delete_automation(old.id)
            client.create_automation(AutomationCore.model_validate(described))


if __name__ == "__main__":
    _make_pools()
    deploy = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(deploy, cwd=ROOT, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(done.returncode)
    _make_automations()
    schedules.refresh()
