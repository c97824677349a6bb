"""semivl-restart: a run whose process died is started again. A trigger of prefect.yaml runs it for each such run."""

from typing import Any

from prefect import flow
from prefect.client.orchestration import get_client

from flows.common import bridge_logs, log
from semivl.services.restarts import restart as start_again


@flow(
    name="semivl-restart",
    description="A crashed run with the tag `restart` is started again, retrain.restarts times at most.",
)
def restart(run: str) -> str:
    """What was done about the run, in words.

    Args:
        run: id of the flow run, or of the resource that Prefect's event names
    """
    bridge_logs()
    with get_client(sync_client=True) as client:

        def ask(method: str, path: str, body: Any = None) -> Any:
            answer = client.request(method, f"/{path}", json=body)  # pyright: ignore[reportArgumentType]
            answer.raise_for_status()
            return answer.json()

        said = start_again(run.removeprefix("prefect.flow-run."), ask)
    log.info(said)
    return said
