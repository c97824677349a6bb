"""The environment of every process that talks to the services: addresses, own folders, telemetry off.

Prefect and MLflow read it when they are imported, so `apply_environment` comes before that.
"""

import os
import sys
from pathlib import Path

from semivl.services.ports import HOST, ports
from semivl.settings import Settings, home, settings, users

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Nobody is told that or how semivl is used."""


def environment() -> dict[str, str]:
    """What a child process needs to find the services in use; no credentials."""
    now = settings()
    values = QUIET | {
        "SEMIVL_HOME": str(home()),
        "MLFLOW_TRACKING_URI": now.mlflow_uri or f"http://{HOST}:{ports().mlflow_port}",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PREFECT_API_URL": now.prefect_api_url or f"http://{HOST}:{ports().prefect_port}/api",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # a missing server is an error, not a new server
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # seconds; automations.yaml waits for three of them
        "NO_PROXY": _without_proxy(),
        "no_proxy": _without_proxy(),
    }
    if users(Settings).prefect_api_url is None:  # their own Prefect keeps their profile and API key
        values["PREFECT_HOME"] = str(home() / "prefect")
    return values


def apply_environment() -> None:
    """Makes `environment` that of this process; call it before the first import of Prefect or MLflow."""
    chosen = clean(dict(os.environ)) | environment()
    os.environ.clear()
    os.environ.update(chosen)


def clean(inherited: dict[str, str]) -> dict[str, str]:
    """`inherited` without what would lead past an embedded service: a Prefect profile, an MLflow token."""
    own = users(Settings)
    prefixes = () if own.prefect_api_url else ("PREFECT_",)
    prefixes += () if own.mlflow_uri else ("MLFLOW_",)
    # PREFECT__... is how Prefect tells a flow run's process who it is.
    return {k: v for k, v in inherited.items() if k.startswith("PREFECT__") or not k.startswith(prefixes or ("\0",))}


def tool(name: str) -> Path:
    """A program that was installed beside this Python."""
    return Path(sys.executable).parent / name


def _without_proxy() -> str:
    """Hosts that no proxy may stand before: those of the environment and this machine."""
    listed = os.environ.get("NO_PROXY", os.environ.get("no_proxy", "")).split(",")
    return ",".join(dict.fromkeys([*filter(None, listed), HOST, "localhost"]))
