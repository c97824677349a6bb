"""A submission makes one run, whatever the network and the server do to it; many at once wait for each other."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
from websockets.sync.client import connect

from semivl.errors import ServiceError
from semivl.services import runs
from semivl.services.web import answers, call
from tests.faults import FaultProxy

FLOW = "semivl-validate"


@pytest.fixture(scope="module")
def deployment(prefect_server) -> str:
    """One that no worker takes from: it has no pool."""
    from prefect.client.orchestration import get_client

    name = f"t-{uuid.uuid4().hex[:8]}"
    with get_client(sync_client=True) as client:
        flow = client.create_flow_from_name(FLOW)
        client.create_deployment(flow_id=flow, name=name)
    return f"{FLOW}/{name}"


@contextmanager
def through(proxy: FaultProxy, retries: int) -> Iterator[None]:
    """Leads Prefect's client through the proxy."""
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_API_URL: f"{proxy.address}/api", PREFECT_CLIENT_MAX_RETRIES: retries}):
        yield


def runs_of(api: str, deployment: str) -> list[str]:
    wanted = {"deployments": {"name": {"any_": [deployment.split("/")[1]]}}}
    return [run["id"] for run in call("POST", f"{api}/flow_runs/filter", wanted)]


def test_submission_whose_answer_is_lost_makes_one_run(prefect_server, deployment):
    before = runs_of(prefect_server, deployment)
    with FaultProxy(prefect_server.removesuffix("/api"), {"lost": 0.5}, seed=3) as proxy, through(proxy, 9):
        submitted = [str(runs.start(deployment, {})) for _ in range(4)]
    assert proxy.injected["lost"] > 0
    assert sorted(submitted) == sorted(set(runs_of(prefect_server, deployment)) - set(before))


def test_busy_prefect_is_told_from_refused_parameters(prefect_server, deployment):
    proxy = FaultProxy(prefect_server.removesuffix("/api"), {"slow_down": 1.0}, seed=1)
    with proxy, through(proxy, 0), pytest.raises(ServiceError) as caught:
        runs.start(deployment, {})
    assert caught.value.code == "SERV105"


def test_submissions_of_one_moment_wait_for_each_other_and_none_is_refused(prefect_server, deployment):
    """Without a second try by the client: what SQLite refuses would be an error here."""
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    before = runs_of(prefect_server, deployment)

    def start(_: int) -> str:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            return str(runs.start(deployment, {}))

    with ThreadPoolExecutor(30) as threads:
        submitted = list(threads.map(start, range(30)))
    assert sorted(submitted) == sorted(set(runs_of(prefect_server, deployment)) - set(before))


def test_connections_that_stay_open_keep_nobody_from_being_served(prefect_server):
    """Prefect serves 100 requests at a time; twenty workers with their runs hold as many connections."""
    events = prefect_server.replace("http://", "ws://") + "/events/in"
    with ExitStack() as held:
        for _ in range(110):
            held.enter_context(connect(events, open_timeout=30, proxy=None))
        assert answers(f"{prefect_server}/health", seconds=20)
