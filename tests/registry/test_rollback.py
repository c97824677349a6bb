"""A rollback goes to the champion before, leaves its reason, and is not undone by the next turn of the loop."""

import pytest

from semivl.config import GateConfig
from semivl.data.store import Store
from semivl.errors import RegistryError
from semivl.registry.decision import Decision
from semivl.registry.package import alias_version, model_version
from semivl.registry.promotion import CHAMPION, apply, settle
from semivl.registry.reigns import Reign, champion, crown, now, reigns
from semivl.registry.rollback import previous, rollback, withdrawn
from semivl.registry.tracking import client
from tests.registry.cases import case, counts, decision, side
from tests.registry.test_promotion import Decided


def test_back_and_further_back_to_the_first(store: Store, versions: str, decided: Decided) -> None:
    for version in (2, 3):
        apply(store, decided(version))
    reign = rollback(store, versions, "it sees ghosts", "ann")
    assert (reign.version, reign.before, reign.kind, reign.by) == (2, 3, "rollback", "ann")
    assert alias_version(versions, CHAMPION) == 2
    assert "it sees ghosts (ann" in model_version(versions, 3).tags["gate.rolled_back"]
    assert "from version 3" in model_version(versions, 2).tags["gate.restored"]
    assert rollback(store, versions, "that one too", "ann").version == 1
    with pytest.raises(RegistryError, match=r"REG023.*first champion"):
        rollback(store, versions, "more", "ann")


def test_forward_again_to_a_version_that_was_left(store: Store, versions: str, decided: Decided) -> None:
    made = apply(store, decided(2))
    rollback(store, versions, "a false alarm", "ann")
    assert rollback(store, versions, "it was the camera", "bob", to=2).version == 2
    assert model_version(versions, 2).tags["gate.rolled_back"] == ""
    assert withdrawn(reigns(store, versions), 2) is None
    assert settle(store, versions, 2, "d1", GateConfig(), decided) == made
    assert rollback(store, versions, "no, it was not", "ann").version == 1


def test_the_next_turn_of_the_loop_does_not_bring_it_back(
    store: Store,
    versions: str,
    decided: Decided,
) -> None:
    apply(store, decided(2))
    rollback(store, versions, "it sees ghosts", "ann")

    def decides(reign: Reign | None) -> Decision:
        from semivl.registry.gate import decide

        assert reign
        why = withdrawn(reigns(store, versions), 2)
        sides = side(2, counts((0.9, 0.9, 0.9)), model=versions), side(1, counts(), model=versions)
        return decide(case(*sides, withdrawn=why), reign)

    made = settle(store, versions, 2, "d1", GateConfig(), decides)
    assert made.failed == ("GATE011",) and "it sees ghosts" in made.reason
    assert alias_version(versions, CHAMPION) == 1


def test_a_killed_rollback_is_completed_and_goes_no_further(
    store: Store,
    versions: str,
    decided: Decided,
) -> None:
    for version in (2, 3):
        apply(store, decided(version))
    crown(
        store,
        Reign(model=versions, number=4, version=2, before=3, kind="rollback", reason="bad", by="ann", since=now()),
    )
    assert rollback(store, versions, "bad", "ann").version == 2
    assert alias_version(versions, CHAMPION) == 2 and "bad" in model_version(versions, 3).tags["gate.rolled_back"]


def test_a_rollback_that_was_overtaken_is_refused(
    store: Store,
    versions: str,
    decided: Decided,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    apply(store, decided(2))
    late = decided(3)

    def slow(model: str, version: int):
        monkeypatch.undo()
        apply(store, late)
        return model_version(model, version)

    monkeypatch.setattr("semivl.registry.rollback.model_version", slow)
    with pytest.raises(RegistryError, match="REG007"):
        rollback(store, versions, "bad", "ann")
    assert alias_version(versions, CHAMPION) == 3


def test_what_cannot_be_gone_back_to_is_told(store: Store, versions: str, decided: Decided) -> None:
    apply(store, decided(2))
    for asked, code in ((2, r"REG024.*is the champion now"), (4, r"REG024.*never champion.*1"), (99, "REG024")):
        with pytest.raises(RegistryError, match=code):
            rollback(store, versions, "bad", "ann", to=asked)
    client().delete_model_version(versions, "1")
    with pytest.raises(RegistryError, match="REG004"):
        rollback(store, versions, "bad", "ann")
    assert alias_version(versions, CHAMPION) == 2


def test_a_model_without_a_champion_is_told(store: Store, mlflow_server: str) -> None:
    with pytest.raises(RegistryError, match="REG023"):
        rollback(store, "no-such-model", "bad", "ann")
    assert champion(store, "no-such-model") is None


@pytest.mark.parametrize(
    ("told", "expected"),
    [("p1", None), ("p1 p2", 1), ("p1 p2 p3 r2", 1), ("p1 p2 r1 p3", 1), ("p1 p2 r1 r2", 1), ("a1 p2 p3", 2)],
)
def test_the_champion_before_is_the_one_that_this_one_replaced(told: str, expected: int | None) -> None:
    kinds = {"p": "promotion", "r": "rollback", "a": "adoption"}
    line = [
        Reign(model="m", number=n, version=int(word[1]), before=None, kind=kinds[word[0]], reason="", since="")
        for n, word in enumerate(told.split(), 1)
    ]
    assert previous(line) == expected


def test_decisions_of_the_version_left_stay(store: Store, versions: str, decided: Decided) -> None:
    made = apply(store, decided(2))
    rollback(store, versions, "bad", "ann")
    assert decision(versions, 2, champion(store, versions)).reign == 3
    assert store.exists(f"decisions/v2/{versions}/{made.name}.json")
