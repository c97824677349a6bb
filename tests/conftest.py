"""Real parts for the tests: S3, MLflow, Prefect and a worker, on free ports and in a folder of their own.

The fixtures start a service when the first test asks for it, through `semivl.services`, so that every test
tests that too. All of it is stopped and removed at the end, after a failure and an interrupt as well.
"""

import atexit
import contextlib
import io
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from semivl.data.store import Store
from semivl.services import supervisor
from semivl.services.environment import apply_environment
from semivl.services.ports import is_free, s3_ports
from semivl.settings import Settings, settings

ADDRESSES = (
    "S3_ENDPOINT",
    "S3_BUCKET",
    "S3_REGION",
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
    "MLFLOW_URI",
    "MLFLOW_PAGE",
    "PREFECT_API_URL",
)
_home = Path(tempfile.mkdtemp(prefix="semivl-test-")).resolve()


def pytest_configure(config: pytest.Config) -> None:
    """Leads this process and its children to the tests' own services, before anything imports Prefect."""
    for name in ADDRESSES:
        os.environ.pop(f"SEMIVL_{name}", None)
    os.environ |= {
        "SEMIVL_HOME": str(_home),
        "SEMIVL_ENV_FILE": str(_home / "none.env"),
        "SEMIVL_S3_PORT": str(free_s3_port()),
        "SEMIVL_MLFLOW_PORT": str(free_port()),
        "SEMIVL_PREFECT_PORT": str(free_port()),
    }
    forget_settings()
    apply_environment()
    atexit.register(_clean_up)


def pytest_sessionfinish() -> None:
    _clean_up()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All in tests/browser needs a browser; real photos are for those who have them."""
    real_data = os.environ.get("SEMIVL_REAL_DATA")
    for item in items:
        if "browser" in item.path.relative_to(Path(__file__).parent).parts:
            item.add_marker(pytest.mark.browser)
        if item.get_closest_marker("real_data") and not real_data:
            item.add_marker(pytest.mark.skip(reason="SEMIVL_REAL_DATA names no folder"))


def _clean_up() -> None:
    if _home.is_dir():
        with contextlib.redirect_stderr(io.StringIO()):
            supervisor.down()
        shutil.rmtree(_home, ignore_errors=True)


def forget_settings() -> None:
    """Lets the next `settings()` read the environment anew."""
    settings.cache_clear()


def free_port() -> int:
    """A port that nobody listens on; another process may still be quicker."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def free_s3_port() -> int:
    """The first of the ten ports that S3 takes, all of them free."""
    start = 20000 + os.getpid() % 1000 * 10
    return next(p for p in range(start, 45000, 5) if all(map(is_free, s3_ports(p))))


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of the test's own, so that nothing in it was cached before; no service runs there."""
    monkeypatch.setenv("SEMIVL_HOME", str(tmp_path / "home"))
    forget_settings()
    yield tmp_path / "home"
    monkeypatch.undo()
    forget_settings()


@pytest.fixture(scope="session")
def s3() -> Settings:
    """A running S3; the settings that lead to it."""
    supervisor.up(["s3"])
    return settings()


@pytest.fixture(scope="session")
def mlflow_server(s3: Settings) -> str:
    """A running MLflow server with its artifacts in S3; its address, which MLFLOW_TRACKING_URI is too."""
    supervisor.up(["s3", "mlflow"])
    return str(settings().mlflow_uri)


@pytest.fixture(scope="session")
def prefect_server() -> str:
    """A running Prefect server; its API's address, which PREFECT_API_URL is too."""
    supervisor.up(["prefect"])
    return str(settings().prefect_api_url)


@pytest.fixture(scope="session")
def services(s3: Settings, mlflow_server: str, prefect_server: str) -> Settings:
    """Everything: S3, MLflow, Prefect, the deployments, and a worker that runs them."""
    supervisor.up()
    return settings()


@pytest.fixture(scope="session")
def new_store(s3: Settings) -> Callable[[], Store]:
    """Gives a Store on a bucket of its own each time; what is left at the end goes with S3's folder."""

    def make() -> Store:
        now = settings()  # the tests of the services begin anew, with other credentials
        made = Store(now.model_copy(update={"s3_bucket": f"test-{uuid.uuid4().hex[:12]}"}))
        made.ensure_bucket()
        return made

    return make


@pytest.fixture
def store(new_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A Store on a bucket of its own, which `open_store()` gives in this test too."""
    own = new_store()
    monkeypatch.setenv("SEMIVL_S3_BUCKET", own.bucket)
    forget_settings()
    yield own
    monkeypatch.undo()
    forget_settings()
    _remove(own)


def _remove(store: Store) -> None:
    """Removes the bucket, with what is in it, if it is still there."""
    names = [bucket["Name"] for bucket in store.client.list_buckets()["Buckets"]]
    if store.bucket not in names:
        return
    for key in list(store.list("")):
        store.delete(key)
    store.client.delete_bucket(Bucket=store.bucket)
