"""The way to MLflow: the client of this process, and the addresses of its pages."""

import os
import socket
import time
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from semivl.errors import RegistryError
from semivl.settings import settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "semivl"
"""the MLflow experiment that holds every run"""
_PATIENCE = 10.0
"""seconds that a server may take to come back before it counts as away"""


def client() -> "MlflowClient":
    """The client of the tracking server in the settings, reachable when first asked for.

    Raises:
        RegistryError: REG001 no server is set, or it cannot be reached.
    """
    return _client(_uri())


def experiment_id() -> str:
    """The id of the experiment, made on first use."""
    from mlflow.exceptions import MlflowException

    mlflow = client()
    found = mlflow.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return mlflow.create_experiment(EXPERIMENT)
        except MlflowException:
            found = mlflow.get_experiment_by_name(EXPERIMENT)  # another process was faster
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        mlflow.restore_experiment(found.experiment_id)
    return found.experiment_id


def tag_version(model: str, version: int, tags: dict[str, str]) -> None:
    """Sets tags of a model version. Of two that set a new one at once MLflow refuses one, which is tried again."""
    from mlflow.exceptions import MlflowException

    for name, value in tags.items():
        try:
            client().set_model_version_tag(model, str(version), name, value)
        except MlflowException as error:
            if error.error_code != "BAD_REQUEST":
                raise
            client().set_model_version_tag(model, str(version), name, value)


def run_address(run_id: str) -> str:
    """MLflow's page of the run."""
    return f"{_page()}/#/experiments/{experiment_id()}/runs/{run_id}"


def report_address(run_id: str) -> str:
    """MLflow's page that shows the run's report."""
    return f"{run_address(run_id)}/artifacts/report/index.html"


def version_address(model: str, version: int) -> str:
    """MLflow's page of the model version."""
    return f"{_page()}/#/models/{quote(model, safe='')}/versions/{version}"


def _page() -> str:
    """Where a browser finds MLflow: behind a proxy that is not where processes find it."""
    return (settings().mlflow_page or _uri()).rstrip("/")


def _uri() -> str:
    uri = settings().mlflow_uri
    if not uri:
        raise RegistryError(
            "REG001", "no MLflow server is set.", "Start one with `semivl up`, or set SEMIVL_MLFLOW_URI."
        )
    return uri.rstrip("/")


@cache
def _client(uri: str) -> "MlflowClient":
    _require_reachable(uri)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient(uri, uri)


def _require_reachable(uri: str) -> None:
    """Fails at once and in plain words, where MLflow's own retries would take minutes."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection((parts.hostname or "", port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RegistryError(
                    "REG001",
                    f"MLflow cannot be reached at {uri} ({error}).",
                    "Start it with `semivl up`, or mend SEMIVL_MLFLOW_URI.",
                ) from None
        time.sleep(0.5)
