"""What all flows share: how a user's fault ends a run, which faults are tried again, where log lines go."""

import functools
import logging
import re
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast
from uuid import UUID

from prefect import Flow, Task, flow, tags, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.context import TagsContext
from prefect.exceptions import CancelledRun
from prefect.runtime import flow_run
from prefect.states import Cancelled, Failed, State

from semivl.errors import SemivlError
from semivl.training.stopping import PREEMPTED

if TYPE_CHECKING:
    from pydantic import BaseModel as Overrides
else:
    from semivl.config import Overrides as Overrides  # made at run time, so a type checker cannot know it

log = logging.getLogger("semivl.flows")
"""below `semivl`, so that `semivl run` tells our lines from Prefect's own"""
P = ParamSpec("P")
R = TypeVar("R")
PASSING_CODES = {"STORE001", "REG001"}
"""S3 or MLflow does not answer: the one kind of fault that goes by itself"""
RETRY_SECONDS = [2.0, 10.0, 30.0]
_RETRAINING = "retrain:"
"""begins the tag of all runs beneath a semivl-retrain; the experiment follows"""


def semivl_flow(name: str, description: str, run_name: str = "{experiment}") -> Callable[[Callable[P, R]], Flow[P, R]]:
    """A flow whose run, where a SemivlError ends it, fails with the error's own words, the code first."""

    def decorate(body: Callable[P, R]) -> Flow[P, R]:
        @functools.wraps(body)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            bridge_logs()
            log.info("%s begins", name)
            try:
                return body(*args, **kwargs)
            except CancelledRun as error:  # of a run beneath this one
                return cast(R, Cancelled(message=str(error)))
            except SemivlError as error:
                log.error(str(error))
                if error.code != PREEMPTED:
                    return cast(R, Failed(message=str(error), data=error))
                if not being_cancelled():
                    signal.raise_signal(signal.SIGTERM)  # Prefect crashes the run, which semivl-restart starts again
                return cast(R, Cancelled(message=str(error)))

        return flow(name=name, description=description, flow_run_name=run_name)(guarded)

    return decorate


def semivl_task(name: str, run_name: str | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A task that is tried again after a fault that can pass, and only then. Nothing of it is cached."""

    def decorate(body: Callable[P, R]) -> Task[P, R]:
        return task(
            name=name,
            task_run_name=run_name,
            retries=len(RETRY_SECONDS),
            retry_delay_seconds=RETRY_SECONDS,
            retry_condition_fn=may_pass,
            cache_policy=NO_CACHE,
        )(body)

    return decorate


def being_cancelled() -> bool:
    """Whether somebody cancels this run, or the one of its process: else SIGTERM means that a machine is wanted back.

    Prefect tells a cancel from another SIGTERM by a message that its own handler has to be in place for. While a
    training runs ours is, so we ask.
    """
    with get_client(sync_client=True) as client:
        asked = {flow_run.id, flow_run.root_flow_run_id}
        states = [client.read_flow_run(UUID(run)).state for run in asked if run]
    return any(state is not None and state.is_cancelling() for state in states)


def may_pass(_task: Any, _run: Any, state: State[Any]) -> bool:
    """Whether the fault that ended a task is worth another try: a service that does not answer just now."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, SemivlError):
        return error.code in PASSING_CODES
    return any(isinstance(cause, ConnectionError | TimeoutError) for cause in causes(error))


def causes(error: Any) -> Iterator[BaseException]:
    """The error and what led to it; MLflow's client hides a refused connection three errors deep."""
    while isinstance(error, BaseException):
        yield error
        error = error.__cause__ or error.__context__


def as_retraining(experiment: str) -> Any:
    """A context whose runs are told apart as those of a retraining of the experiment."""
    return tags(f"{_RETRAINING}{experiment}")


def retraining() -> str | None:
    """The experiment whose retraining this run belongs to; None where somebody started it otherwise."""
    found = (tag.removeprefix(_RETRAINING) for tag in TagsContext.get().current_tags if tag.startswith(_RETRAINING))
    return next(found, None)


def artifact_key(kind: str, name: str) -> str:
    """A key that Prefect takes: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{kind}-{name}".lower()).strip("-")


def bridge_logs() -> None:
    """Sends what semivl's rooms log to the run's page too."""
    rooms, ours = logging.getLogger("semivl"), logging.getLogger("prefect.extra")
    rooms.setLevel(logging.INFO)
    for handler in ours.handlers:
        if handler not in rooms.handlers:
            rooms.addHandler(handler)
