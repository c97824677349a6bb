"""The two things of the gate that Prefect does: asking a person, and letting one promotion of a model in at a time."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect import pause_flow_run
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import FlowPauseTimeout, ObjectAlreadyExists
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.states import Running
from pydantic import Field

from flows.common import artifact_key, log
from semivl.registry.decision import Decision
from semivl.registry.gate import approved, declined, unanswered

_POLL = 5
"""seconds between looks whether the person has answered"""
_LEASE = 60.0
"""seconds after which the slot of a process that was killed is free again; a living one renews it"""


class Approval(RunInput):
    """Shall the challenger become champion?"""

    approve: bool = Field(False, description="yes: it becomes champion; no: it is refused")
    name: str = Field(min_length=1, description="who decides; kept in the record")
    reason: str = Field("", description="kept in the record")


def ask_person(decision: Decision, hours: float) -> Decision:
    """Pauses the run until a person answers the form on its page; who does not answer in time has said no."""
    seconds = max(1, round(3600 * hours))
    log.info(
        "%s version %d meets every rule; a person must approve it on this run's page within %g hours: %s",
        decision.model, decision.challenger, hours, decision.reason,
    )  # fmt: skip
    form = Approval.with_initial_data(description=_question(decision), approve=False)
    try:
        answer = pause_flow_run(wait_for_input=form, timeout=seconds, poll_interval=min(_POLL, seconds))
    except FlowPauseTimeout:
        _run_on()
        return unanswered(decision, hours)
    return (approved if answer.approve else declined)(decision, answer.name, answer.reason)


@contextmanager
def one_at_a_time(model: str) -> Iterator[None]:
    """Lets one promotion of the model in, whatever worker it runs on. That two at once stay right is S3's doing."""
    name = artifact_key("semivl-gate", model)
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):  # made by another run just now
        client.upsert_global_concurrency_limit_by_name(name, 1)
    with concurrency(name, occupy=1, strict=True, lease_duration=_LEASE, raise_on_lease_renewal_failure=False):
        yield


def _question(decision: Decision) -> str:
    rules = "\n".join(f"| {rule.code} | {rule.demand} | {rule.found} |" for rule in decision.rules)
    return (
        f"**{decision.model}: shall version {decision.challenger} replace version {decision.champion}?**\n\n"
        f"{decision.reason}\n\n| rule | demand | found |\n|---|---|---|\n{rules}"
    )


def _run_on() -> None:
    """Takes the run out of its pause, which Prefect would end as failed: the refusal is a result like any other."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run.id, Running(), force=True)
