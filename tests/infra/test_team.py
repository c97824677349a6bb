"""The team's configuration: every service of compose.yaml runs, on Postgres, and two workers take the loop to its end.

It needs Postgres' programs (Debian: postgresql), which refuse to run as root: started as root, this lets them run as
`nobody` through setpriv (util-linux). It needs wget, which the S3 server's health check calls.
"""

import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from semivl.data.scenes import write_scenes
from semivl.data.store import open_store
from semivl.registry.package import alias_version
from semivl.registry.tracking import client
from tests.conftest import forget_settings
from tests.infra.policies import prefixes
from tests.infra.stack import Stack, new_stack, postgres_programs, unprivileged
from tests.loop import EVALUATION, LABELLED, SIDE, UNLABELLED, parameters

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
_SEMIVL = (
    "SEMIVL_S3_ENDPOINT", "SEMIVL_S3_BUCKET", "SEMIVL_S3_REGION", "SEMIVL_S3_ACCESS_KEY", "SEMIVL_S3_SECRET_KEY",
    "SEMIVL_MLFLOW_URI", "SEMIVL_PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_API_URL",
)  # fmt: skip


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Everything of compose.yaml, with a new .env; gone at the end."""
    if postgres_programs() is None:
        pytest.skip("no Postgres: neither on PATH nor below /usr/lib/postgresql")
    for program in ("wget", *unprivileged()[:1]):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    with new_stack() as made:
        made.up("worker", "worker-gpu")
        yield made


@pytest.fixture
def led_there(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process' settings lead to the team's services, as a worker's do."""
    given = stack.environment("worker")
    for name in _SEMIVL:
        monkeypatch.setenv(name, given[name])
    forget_settings()
    yield
    monkeypatch.undo()
    forget_settings()


def run(stack: Stack, deployment: str, given: dict) -> None:
    """Asks Prefect for a run and waits for its good end."""
    command = [
        sys.executable,
        "-m",
        "prefect",
        "deployment",
        "run",
        deployment,
        "--params",
        json.dumps(given),
        "--watch",
    ]
    caller = stack.environment("worker") | {"PREFECT_HOME": str(stack.folder / "caller")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=caller)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{stack.told()}"


def query(stack: Stack, role: str, database: str, sql: str) -> list[tuple]:
    """What Postgres answers the role of a service, with the password of .env."""
    import psycopg2

    password = stack.settings[f"{role.upper()}_DB_PASSWORD"]
    with (
        psycopg2.connect(
            host="127.0.0.1", port=stack.ports["5432"], user=role, password=password, dbname=database
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(sql)
        return cursor.fetchall()


@pytest.mark.usefixtures("led_there")
def test_loop_ends_with_a_champion_and_the_gpu_pools_worker_finds_the_training_done(stack: Stack) -> None:
    dataset = f"team-{uuid.uuid4().hex[:6]}"
    write_scenes(stack.photos / "scenes", 5, LABELLED, UNLABELLED, EVALUATION, SIDE)
    given = parameters(dataset, source=stack.photos / "scenes")
    run(stack, "semivl-pipeline/local", given)
    assert alias_version(f"semivl-{dataset}", "champion") == 1
    assert not list((stack.folder / "volumes" / "worker-gpu" / "runs").glob("*/model"))
    run(stack, "semivl-train/gpu", given)  # another machine's worker: it shares nothing with the first but the services
    assert {key.split("/")[0] + "/" for key in open_store().list("")} <= prefixes("ingest") | prefixes("training")
    versions = client().search_model_versions(f"name = 'semivl-{dataset}'")
    assert [int(version.version) for version in versions] == [1]
    pools = query(
        stack,
        "prefect",
        "prefect",
        "select distinct p.name from flow_run r join work_queue q "
        "on q.id = r.work_queue_id join work_pool p on p.id = q.work_pool_id where r.state_type = 'COMPLETED'",
    )
    assert sorted(pools) == [("semivl-gpu",), ("semivl-local",)]
    assert query(stack, "mlflow", "mlflow", "select count(*) from model_versions") == [(1,)]


def test_each_database_opens_to_its_own_service_alone(stack: Stack) -> None:
    import psycopg2

    assert query(stack, "prefect", "prefect", "select current_user") == [("prefect",)]
    for role, database in (("prefect", "mlflow"), ("mlflow", "prefect"), ("mlflow", "postgres")):
        with pytest.raises(psycopg2.OperationalError, match="permission denied"):
            query(stack, role, database, "select 1")
    wrong = Stack.__new__(Stack)
    wrong.settings, wrong.ports = stack.settings | {"MLFLOW_DB_PASSWORD": "another"}, stack.ports
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        query(wrong, "mlflow", "mlflow", "select 1")


def test_no_secret_stands_in_a_log(stack: Stack) -> None:
    secrets = [value for name, value in stack.settings.items() if name.endswith(("_PASSWORD", "_SECRET"))]
    assert len(secrets) == 7
    logs = {log.name: log.read_text(errors="replace") for log in stack.folder.glob("*.log")}
    assert {"prefect.log", "mlflow.log", "worker.log", "worker-gpu.log", "deploy.log"} <= set(logs)
    assert [name for name, text in logs.items() if any(secret in text for secret in secrets)] == []
