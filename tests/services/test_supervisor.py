"""The embedded services: they start once, come back with their data, and leave nothing behind."""

import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from semivl.data.store import open_store
from semivl.errors import ServiceError
from semivl.services import credentials, processes, supervisor
from semivl.services.doctor import doctor
from semivl.services.embedded import NAMES
from semivl.services.web import call
from semivl.settings import ROOT, Settings, home, settings


def pids() -> dict[str, int | None]:
    return {state.name: state.pid for state in supervisor.status() if state.state == "running"}


def test_up_makes_all_services_answer(services: Settings) -> None:
    assert set(pids()) == set(NAMES)
    supervisor.require(*NAMES)


def test_second_up_changes_nothing_and_is_quick(services: Settings) -> None:
    before, began = pids(), time.monotonic()
    supervisor.up()
    assert pids() == before
    assert time.monotonic() - began < 5


def test_services_listen_on_this_machine_alone(services: Settings) -> None:
    open_ports = [
        c.laddr.ip for p in processes.marked(*NAMES) for c in p.net_connections() if c.status == psutil.CONN_LISTEN
    ]
    assert set(open_ports) == {"127.0.0.1"}


def test_credentials_are_for_the_owner_alone_and_stay(services: Settings) -> None:
    path = credentials.path()
    before = path.read_text()
    path.chmod(0o644)
    assert [c.level for c in doctor() if c.name == "credentials"] == ["fail"]
    credentials.ensure()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == before
    assert stat.S_IMODE(home().stat().st_mode) & 0o077 == 0


def test_secret_stays_out_of_commands_and_logs(services: Settings) -> None:
    assert services.s3_secret_key is not None
    secret = services.s3_secret_key.get_secret_value()
    commands = [" ".join(p.cmdline()) for p in processes.marked(*NAMES)]
    logs = [path.read_text(errors="replace") for path in (home() / "logs").iterdir()]
    assert not any(secret in text for text in commands + logs)
    worker = processes.running("worker")
    assert worker is not None and secret not in str(worker.environ())


def test_doctor_finds_nothing_wrong(services: Settings) -> None:
    assert [check for check in doctor() if not check.ok] == []


def test_killed_s3_comes_back_with_its_objects(services: Settings) -> None:
    content = b"kept" * 100_000
    open_store().put("kill/object", content)
    _kill("s3")
    supervisor.up(["s3"])
    assert open_store().get("kill/object") == content


def test_killed_mlflow_comes_back_with_its_runs(services: Settings) -> None:
    made = _mlflow("experiments/create", {"name": "before-the-kill"})
    _kill("mlflow")
    supervisor.up(["mlflow"])
    found = call("GET", f"{services.mlflow_uri}/api/2.0/mlflow/experiments/get?experiment_id={made['experiment_id']}")
    assert found["experiment"]["name"] == "before-the-kill"


def test_killed_prefect_and_worker_come_back_with_deployments(services: Settings) -> None:
    def deployments() -> set[str]:
        found = call("POST", f"{services.prefect_api_url}/deployments/filter", {})
        return {deployment["entrypoint"] for deployment in found}

    before = deployments()
    assert "flows/pipeline.py:pipeline" in before
    _kill("prefect")
    _kill("worker")
    supervisor.up()
    assert deployments() == before


def test_run_without_a_process_is_crashed_by_the_next_up(services: Settings) -> None:
    api = services.prefect_api_url
    found = call("GET", f"{api}/deployments/name/semivl-pipeline/local")
    _kill("worker")
    run = call("POST", f"{api}/deployments/{found['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
    call("POST", f"{api}/flow_runs/{run['id']}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    supervisor.up()
    assert call("GET", f"{api}/flow_runs/{run['id']}")["state_type"] == "CRASHED"


def test_down_ends_everything_that_carries_the_mark(services: Settings) -> None:
    supervisor.up()
    stray = _stray_flow_run()
    began = time.monotonic()
    supervisor.down()
    assert time.monotonic() - began < 20
    assert stray.wait(5) != 0
    assert processes.marked(*NAMES) == []
    assert {state.state for state in supervisor.status()} == {"stopped"}
    with pytest.raises(ServiceError, match="SERV007"):
        supervisor.require("mlflow")


def test_busy_port_is_named_with_its_holder_and_setting() -> None:
    supervisor.down()
    port = int(str(settings().s3_endpoint).rsplit(":", 1)[1]) + 10002  # the volume server's gRPC port
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ServiceError) as caught:
        supervisor.up(["s3"])
    assert caught.value.code == "SERV001"
    assert str(port) in caught.value.what and "python" in caught.value.what
    assert "SEMIVL_S3_PORT" in caught.value.remedy
    assert processes.marked("s3") == []


def test_service_that_ends_at_once_shows_its_log() -> None:
    supervisor.down()
    blocked = home() / "s3" / "data"
    moved = blocked.rename(blocked.with_name("aside"))
    blocked.write_text("a file where a folder belongs")
    try:
        with pytest.raises(ServiceError, match="SERV002") as caught:
            supervisor.up(["s3"])
        assert "s3.log" in caught.value.remedy
    finally:
        blocked.unlink()
        moved.rename(blocked)


def test_recycled_process_id_is_neither_trusted_nor_killed(tmp_path: Path) -> None:
    supervisor.down()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as innocent:
        created = psutil.Process(innocent.pid).create_time()
        processes._record("s3", processes.Recorded(innocent.pid, created, ""))
        assert processes.running("s3") is None
        supervisor.up(["s3"])
        supervisor.down()
        assert innocent.poll() is None
        innocent.kill()


def test_users_own_services_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMIVL_MLFLOW_URI", "https://mlflow.example.org")
    monkeypatch.setenv("SEMIVL_PREFECT_API_URL", "https://prefect.example.org/api")
    monkeypatch.setenv("SEMIVL_S3_ENDPOINT", "https://s3.example.org")
    settings.cache_clear()
    try:
        assert {state.state for state in supervisor.status()} == {"yours"}
        assert settings().s3_secret_key is None  # the embedded S3's key does not go to theirs
        supervisor.up(["mlflow", "prefect", "worker"])
        assert processes.marked(*NAMES) == []
        assert "SECRET" not in credentials.path().read_text()
    finally:
        monkeypatch.undo()
        settings.cache_clear()


def test_unknown_service_is_refused() -> None:
    with pytest.raises(ServiceError, match="SERV005"):
        supervisor.up(["s4"])


def _kill(name: str) -> None:
    process = processes.running(name)
    assert process is not None
    process.kill()
    while processes.running(name) is not None:
        time.sleep(0.05)


def _mlflow(path: str, body: dict[str, str]) -> dict[str, str]:
    return call("POST", f"{settings().mlflow_uri}/api/2.0/mlflow/{path}", body)


def _stray_flow_run() -> subprocess.Popen[bytes]:
    """A process as a killed worker leaves it: marked by its environment alone."""
    worker = processes.running("worker")
    assert worker is not None
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    return subprocess.Popen([sys.executable, "-c", code], env=worker.environ(), cwd=ROOT, start_new_session=True)
