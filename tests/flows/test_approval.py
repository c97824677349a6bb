"""A person is asked on a real Prefect server: yes, no, no answer; and one promotion of a model at a time."""

import threading
import time
import uuid

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_runs import resume_flow_run

from flows.approval import ask_person, one_at_a_time
from semivl.registry.decision import Decision
from tests.registry.cases import decision
from tests.registry.test_gate import REIGN

pytestmark = pytest.mark.usefixtures("prefect_server")


@flow(name="asks")
def asks(hours: float) -> Decision:
    return ask_person(decision("m", 2, REIGN), hours)


def answered(hours: float, answer: dict | None):
    """The flow's final state, after what a person fills into the form of the paused run."""
    known: list = []
    thread = threading.Thread(target=lambda: known.append(asks(hours, return_state=True)))
    before = paused()
    thread.start()
    if answer is not None:
        run = wait_for_pause(before)
        resume_flow_run(run, run_input=answer)
    thread.join(60)
    return known[0]


def paused() -> set:
    with get_client(sync_client=True) as client:
        runs = client.request(
            "POST", "/flow_runs/filter", json={"flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}}}
        )
        return {run["id"] for run in runs.json()}


def wait_for_pause(before: set) -> uuid.UUID:
    for _ in range(200):
        if new := paused() - before:
            return uuid.UUID(new.pop())
        time.sleep(0.1)
    raise AssertionError("the run never paused")


@pytest.mark.parametrize(("approve", "codes"), [(True, ()), (False, ("GATE012",))])
def test_a_persons_answer_decides_and_is_kept_with_the_name(approve, codes):
    state = answered(1, {"approve": approve, "name": "Ann", "reason": "looked at it"})
    made = state.result()
    assert state.is_completed() and made.failed == codes and made.promoted is approve
    assert made.approved_by == ("Ann" if approve else None)
    assert "Ann" in made.reason and "looked at it" in made.reason


def test_no_answer_in_time_is_a_refusal_and_the_run_ends_well():
    state = answered(2 / 3600, None)
    assert state.is_completed(), state
    assert state.result().failed == ("GATE013",)


def test_one_promotion_of_a_model_at_a_time():
    inside, most = 0, []
    lock = threading.Lock()

    def promotes() -> None:
        nonlocal inside
        with one_at_a_time("semivl-Model_1"):
            with lock:
                inside += 1
                most.append(inside)
            time.sleep(0.3)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=promotes) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1, 1, 1]
