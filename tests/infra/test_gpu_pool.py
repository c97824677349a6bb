"""On Kubernetes the pool semivl-gpu makes jobs that ask for GPUs, and deploying the flows leaves it so."""

import json
import subprocess
import sys
from typing import Any

import pytest

from semivl.services.web import call
from tests.infra import compose
from tests.infra.stack import Stack, new_stack, postgres_programs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(postgres_programs() is None, reason="no Postgres on PATH or below /usr/lib/postgresql"),
]
BASE = compose.FOLDER.parent / "kubernetes" / "base"


def make_pool(stack: Stack, image: str) -> None:
    """As the job `deploy` does before it deploys the flows."""
    command = [sys.executable, BASE / "gpu_pool.py", BASE / "job-template.json"]
    subprocess.run(command, env=stack.environment("deploy") | {"SEMIVL_IMAGE": image}, check=True, timeout=120)


def pool(stack: Stack) -> dict[str, Any]:
    return call("GET", f"{stack.environment('deploy')['PREFECT_API_URL']}/work_pools/semivl-gpu")


def test_pool_of_kubernetes_jobs_stays_one_when_the_flows_are_deployed() -> None:
    with new_stack() as stack:
        stack.up("prefect")
        make_pool(stack, "registry/semivl-worker:1")
        made = pool(stack)
        stack.up("deploy")
        assert pool(stack)["type"] == "kubernetes" and pool(stack)["base_job_template"] == made["base_job_template"]
        address = f"{stack.environment('deploy')['PREFECT_API_URL']}/deployments/name/semivl-train/gpu"
        assert call("GET", address)["work_pool_name"] == "semivl-gpu"
        make_pool(stack, "registry/semivl-worker:2")  # an upgrade
        template = pool(stack)["base_job_template"]
    assert template["variables"]["properties"]["image"]["default"] == "registry/semivl-worker:2"
    assert "nvidia.com/gpu" in json.dumps(template["job_configuration"]["job_manifest"])
