"""Two promotions at once, again and again: one champion, one record, and never a promotion without one."""

import threading
import uuid

import pytest

from semivl.config import GateConfig
from semivl.data.store import Store
from semivl.registry.decision import Decision, decisions, key_of
from semivl.registry.package import alias_version, model_version
from semivl.registry.promotion import CHAMPION, settle
from semivl.registry.reigns import Reign, champion, reigns
from semivl.registry.rollback import rollback
from semivl.registry.tracking import client
from tests.registry.cases import decision

LEADS = {2: 0.05, 3: 0.1, 4: 0.15}
"""how much better than version 1 each challenger is"""


def at_once(*calls) -> list[BaseException]:
    """Runs the calls in threads that begin together; what they raised."""
    gate, raised = threading.Barrier(len(calls)), []

    def run(call) -> None:
        gate.wait()
        try:
            call()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return raised


def promotes(store: Store, model: str, challenger: int):
    """A whole promotion of one challenger."""

    def decides(reign: Reign | None) -> Decision:
        assert reign
        return decision(model, challenger, reign, lead=LEADS[challenger] - LEADS.get(reign.version, 0))

    return lambda: settle(store, model, challenger, "d1", GateConfig(), decides)


def check_one_champion(store: Store, model: str) -> list[Reign]:
    """The line is whole, every promotion in it has the record that it was made by, and all that shows it agrees."""
    line = reigns(store, model)
    assert [reign.number for reign in line] == list(range(1, len(line) + 1))
    assert [reign.before for reign in line[1:]] == [reign.version for reign in line[:-1]]
    assert alias_version(model, CHAMPION) == line[-1].version
    made = [one for one in decisions(store, model) if one.promoted]
    raw = [Decision.model_validate_json(store.get(key)) for key in store.list(f"decisions/v2/{model}/")]
    assert sorted(one.name for one in raw if one.promoted) == sorted(one.name for one in made)
    promotions = [reign for reign in line if reign.kind == "promotion"]
    assert {key_of(model, one.name) for one in made} == {reign.decision for reign in promotions}
    assert len(made) == len(promotions)
    for reign in promotions:
        record = Decision.model_validate_json(store.get(str(reign.decision)))
        assert record.promoted
        assert (record.challenger, record.champion, record.reign) == (reign.version, reign.before, reign.number - 1)
    return line


def back_to_the_first(store: Store, model: str) -> None:
    rollback(store, model, "again", "test", to=1)


def fresh(rounds: int):
    for number in range(rounds):
        name = f"race-{number}-{uuid.uuid4().hex[:8]}"
        client().create_registered_model(name)
        for _ in range(4):
            client().create_model_version(name, "s3://nowhere/model")
        client().set_registered_model_alias(name, CHAMPION, "1")
        yield name
        client().delete_registered_model(name)


@pytest.mark.parametrize("rounds", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_two_challengers_at_once_leave_one_champion_and_one_record_of_each_promotion(
    store: Store, mlflow_server: str, rounds: int
) -> None:
    ends = set()
    for model in fresh(rounds):
        assert at_once(promotes(store, model, 2), promotes(store, model, 3)) == []
        line = check_one_champion(store, model)
        ends.add(tuple(reign.version for reign in line))
        assert line[-1].version == 3, "the better one of the two, whoever came first"
        assert model_version(model, 3).tags["gate.decision"] == "promoted"
    assert ends <= {(1, 3), (1, 2, 3)}


def test_the_same_challenger_twice_at_once_is_promoted_once(store: Store, mlflow_server: str) -> None:
    for model in fresh(2):
        assert at_once(*[promotes(store, model, 2)] * 3) == []
        assert [reign.version for reign in check_one_champion(store, model)] == [1, 2]


def test_a_promotion_and_a_rollback_at_once_leave_one_champion(store: Store, mlflow_server: str) -> None:
    for model in fresh(3):
        promotes(store, model, 2)()
        raised = at_once(promotes(store, model, 3), lambda model=model: rollback(store, model, "bad", "ann"))
        assert all(getattr(error, "code", "") == "REG007" for error in raised)
        line = check_one_champion(store, model)
        assert line[-1].version in (1, 2, 3)
        reign = champion(store, model)
        assert reign == line[-1]


def test_two_rollbacks_at_once_go_back_once(store: Store, mlflow_server: str) -> None:
    for model in fresh(2):
        for version in (2, 3):
            promotes(store, model, version)()
        call = lambda model=model: rollback(store, model, "bad", "ann")  # noqa: E731
        raised = at_once(call, call)
        line = check_one_champion(store, model)
        assert len(line) == 5 - len(raised) and all(getattr(error, "code", "") == "REG007" for error in raised)
