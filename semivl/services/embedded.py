"""What the embedded services are: command, environment, ports and sign of health of each."""

import hashlib
import json
import os
import sys
from dataclasses import dataclass

from semivl.errors import ServiceError
from semivl.services.environment import clean, environment, tool
from semivl.services.ports import HOST, ports, s3_ports
from semivl.settings import Settings, home, settings, users

S3, PREFECT, MLFLOW, WORKER = "s3", "prefect", "mlflow", "worker"
NAMES = (S3, PREFECT, MLFLOW, WORKER)
"""In the order in which they start; they stop the other way round."""
POOL, GPU_POOL = "semivl-local", "semivl-gpu"


@dataclass(frozen=True)
class Service:
    """How to run one service."""

    name: str
    title: str
    command: tuple[str, ...]
    address: str
    health: str  # answers once the service is of use
    ports: tuple[int, ...]
    setting: str
    environment: dict[str, str]

    @property
    def recipe(self) -> str:
        """Hash of what the process is started with: another recipe needs another process."""
        decisive = {k: v for k, v in self.environment.items() if k.lower() != "no_proxy"}  # the shell's
        return hashlib.sha256(json.dumps([self.command, decisive], sort_keys=True).encode()).hexdigest()


def is_yours(name: str) -> bool:
    """Whether the user's own settings say where this service is, so that the embedded one stays away."""
    setting = {S3: "s3_endpoint", MLFLOW: "mlflow_uri"}.get(name, "prefect_api_url")
    own = users(Settings)
    return setting in own.model_fields_set and (name == S3 or getattr(own, setting) is not None)


def own_address(name: str) -> str:
    """The address that the user gave for it."""
    now = settings()
    given = {S3: now.s3_endpoint or f"AWS S3, {now.s3_region}", MLFLOW: now.mlflow_uri}
    return given.get(name, now.prefect_api_url) or ""


def describe(name: str) -> Service:
    """The embedded service of that name, as the settings of now make it."""
    return {S3: _s3, PREFECT: _prefect, MLFLOW: _mlflow, WORKER: _worker}[name]()


def whole_environment(service: Service) -> dict[str, str]:
    """The process' environment: this one's without what would mislead it, then the service's own."""
    inherited = clean(dict(os.environ))
    if not is_yours(S3):
        inherited = {k: v for k, v in inherited.items() if not k.startswith("AWS_")}
    inherited["PATH"] = os.pathsep.join([str(tool("weed").parent), inherited.get("PATH", os.defpath)])
    return inherited | service.environment


def _s3() -> Service:
    first = ports().s3_port
    address = f"http://{HOST}:{first}"
    binary = tool("weed")
    if not binary.is_file():
        raise ServiceError(
            "SERV006", f"the S3 server is not installed: there is no {binary}.", "Install it: make setup."
        )
    flags = {
        "dir": home() / S3 / "data", "ip": HOST, "ip.bind": HOST, "s3.port": first, "master.port": first + 1,
        "volume.port": first + 2, "filer.port": first + 3, "admin.port": first + 4, "admin.ui": "false",
        "webdav": "false", "s3.port.iceberg": 0, "s3.port.lance": 0, "master.electionTimeout": "1s",
        "master.telemetry": "false", "volume.preStopSeconds": 0,
    }  # fmt: skip
    command = (str(binary), "-logtostderr=true", "mini", *(f"-{k}={v}" for k, v in flags.items()))
    private = _s3_credentials() | {"GOMEMLIMIT": "1GiB"}
    health = f"{address}/healthz"
    return Service(S3, "S3", command, address, health, s3_ports(first), "SEMIVL_S3_PORT", private)


def _mlflow() -> Service:
    now, port = settings(), ports().mlflow_port
    address = f"http://{HOST}:{port}"
    folder = home() / MLFLOW
    command = (
        sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination", f"s3://{now.s3_bucket}/mlflow",
    )  # fmt: skip
    private = environment() | _s3_credentials() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    if now.s3_endpoint:
        private["MLFLOW_S3_ENDPOINT_URL"] = now.s3_endpoint
    return Service(MLFLOW, "MLflow", command, address, f"{address}/health", (port,), "SEMIVL_MLFLOW_PORT", private)


def _prefect() -> Service:
    port = ports().prefect_port
    address = f"http://{HOST}:{port}"
    command = (sys.executable, "-m", "semivl.services.prefect_server", "--host", HOST, "--port", str(port))
    private = environment() | {
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home() / PREFECT / "ui"),
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_CLI_PROMPT": "false",
    }
    health = f"{address}/api/health"
    return Service(PREFECT, "Prefect", command, address, health, (port,), "SEMIVL_PREFECT_PORT", private)


def _worker() -> Service:
    command = (
        sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process",
        "--name", "embedded", "--limit", str(ports().flow_runs), "--install-policy", "never",
    )  # fmt: skip
    address = f"pool {POOL}"
    health = f"{environment()['PREFECT_API_URL']}/work_pools/{POOL}/workers/filter"
    return Service(WORKER, "worker", command, address, health, (), "SEMIVL_FLOW_RUNS", environment())


def _s3_credentials() -> dict[str, str]:
    """The keys of the S3 in use, for the servers alone; none where the surroundings give them."""
    now = settings()
    values = {
        "AWS_DEFAULT_REGION": now.s3_region,
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
    if now.s3_access_key and now.s3_secret_key:
        values["AWS_ACCESS_KEY_ID"] = now.s3_access_key.get_secret_value()
        values["AWS_SECRET_ACCESS_KEY"] = now.s3_secret_key.get_secret_value()
    return values
