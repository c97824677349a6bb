"""Only a better model becomes champion, and a gate that is killed anywhere ends the same."""

from collections.abc import Callable
from pathlib import Path

import pytest

from semivl.config import Config, GateConfig
from semivl.data.snapshot import Manifest
from semivl.data.store import Store
from semivl.errors import RegistryError
from semivl.evaluation.scores import Scores
from semivl.registry.package import CHALLENGER, alias_version, model_version, register
from semivl.registry.promotion import CHAMPION, Decision, apply, decide, recorded
from semivl.registry.tracking import client

Scored = Callable[..., Scores]


@pytest.fixture
def versions(run_id: str, bundle: Path, config: Config, manifest: Manifest) -> str:
    """A model with versions 1, 2, 3, of which 1 is champion and 2 challenger; its name."""
    name = config.registered_model
    first = client().get_model_version(name, str(register(run_id, bundle, config, manifest)))
    for _ in range(2):
        source = str(first.source)
        client().create_model_version(name, source, run_id, model_id=source.removeprefix("models:/"))
    client().set_registered_model_alias(name, CHAMPION, "1")
    client().set_registered_model_alias(name, CHALLENGER, "2")
    return name


@pytest.mark.parametrize(
    ("challenger", "champion", "promoted"),
    [(50.0, 49.0, True), (49.5, 49.0, True), (49.4, 49.0, False), (49.0, 49.0, False), (10.0, 90.0, False),
     (10.0, None, True), (9.9, None, False)],
)  # fmt: skip
def test_the_gate_wants_the_margin_and_of_the_first_the_floor(
    scored: Scored, challenger: float, champion: float | None, promoted: bool
) -> None:
    other = None if champion is None else scored(1, champion)
    decision = decide(GateConfig(margin=0.5, floor=10.0), scored(2, challenger), other)
    assert decision.promoted is promoted
    assert f"{challenger:.2f}" in decision.reason


def test_a_tie_keeps_the_champion_even_without_a_margin(scored: Scored) -> None:
    assert not decide(GateConfig(), scored(2, 40.0), scored(1, 40.0)).promoted
    assert decide(GateConfig(), scored(2, 40.01), scored(1, 40.0)).promoted


def test_scores_of_different_images_are_not_compared(scored: Scored) -> None:
    with pytest.raises(RegistryError, match="REG006"):
        decide(GateConfig(), scored(2, 50, digest="a"), scored(1, 40, digest="b"))


def test_a_champion_does_not_challenge_itself(scored: Scored) -> None:
    with pytest.raises(RegistryError, match="REG008"):
        decide(GateConfig(), scored(1, 50), scored(1, 50))


def check_promoted(store: Store, name: str, decision: Decision) -> None:
    assert alias_version(name, CHAMPION) == decision.challenger
    assert alias_version(name, CHALLENGER) is None
    tags = model_version(name, decision.challenger).tags
    assert tags["gate.decision"] == "promoted" and tags["gate.reason"] == decision.reason
    assert tags["gate.challenger_miou"] == "50.00" and tags["gate.champion_miou"] == "40.00"
    key = f"decisions/{name}/2-d1.json"
    assert Decision.model_validate_json(store.get(key)) == decision == recorded(store, name, 2, "d1")


@pytest.mark.parametrize("done_before_the_kill", ["nothing", "record", "alias", "challenger removed", "tags", "all"])
def test_a_killed_promotion_ends_the_same(
    store: Store, versions: str, scored: Scored, done_before_the_kill: str
) -> None:
    decision = decide(GateConfig(), scored(2, 50.0), scored(1, 40.0))
    stages = ["nothing", "record", "alias", "challenger removed", "tags", "all"]
    done = stages.index(done_before_the_kill)
    if done >= 1:
        store.put(f"decisions/{versions}/2-d1.json", decision.model_dump_json().encode())
    if done >= 2:
        client().set_registered_model_alias(versions, CHAMPION, "2")
    if done >= 3:
        client().delete_registered_model_alias(versions, CHALLENGER)
    if done >= 4:
        client().set_model_version_tag(versions, "2", "gate.decision", "promoted")
    if done == 5:
        apply(store, decision)
    assert apply(store, decision) == decision
    check_promoted(store, versions, decision)


def test_a_rejected_challenger_changes_nothing_but_its_tags(store: Store, versions: str, scored: Scored) -> None:
    decision = apply(store, decide(GateConfig(), scored(2, 30.0), scored(1, 40.0)))
    assert alias_version(versions, CHAMPION) == 1
    assert model_version(versions, 2).tags["gate.decision"] == "rejected"
    assert recorded(store, versions, 2, "d1") == decision


def test_what_is_decided_is_not_decided_again(store: Store, versions: str, scored: Scored) -> None:
    first = apply(store, decide(GateConfig(), scored(2, 50.0), scored(1, 40.0)))
    client().set_registered_model_alias(versions, CHAMPION, "3")  # later, another one took over
    again = decide(GateConfig(), scored(2, 99.0), scored(3, 60.0))
    assert apply(store, again) == first
    assert alias_version(versions, CHAMPION) == 3


def test_other_images_are_a_new_decision(store: Store, versions: str, scored: Scored) -> None:
    apply(store, decide(GateConfig(), scored(2, 30.0), scored(1, 40.0)))
    apply(store, decide(GateConfig(), scored(2, 50.0, digest="d2"), scored(1, 40.0, digest="d2")))
    assert alias_version(versions, CHAMPION) == 2


def test_the_alias_does_not_move_when_the_champion_changed_meanwhile(
    store: Store, versions: str, scored: Scored
) -> None:
    decision = decide(GateConfig(), scored(2, 50.0), scored(1, 40.0))
    client().set_registered_model_alias(versions, CHAMPION, "3")
    with pytest.raises(RegistryError, match=r"REG007.*version 3"):
        apply(store, decision)
    assert alias_version(versions, CHAMPION) == 3
    assert recorded(store, versions, 2, "d1") is None


def test_a_decision_cut_short_and_overtaken_is_decided_anew(store: Store, versions: str, scored: Scored) -> None:
    early = decide(GateConfig(), scored(2, 50.0), scored(1, 40.0))
    store.put(f"decisions/{versions}/2-d1.json", early.model_dump_json().encode())  # killed after the record
    client().set_registered_model_alias(versions, CHAMPION, "3")
    assert recorded(store, versions, 2, "d1") is None
    with pytest.raises(RegistryError, match="REG007"):
        apply(store, early)
    late = decide(GateConfig(), scored(2, 50.0), scored(3, 60.0))
    assert apply(store, late) == late == recorded(store, versions, 2, "d1")
    assert alias_version(versions, CHAMPION) == 3


def test_the_first_champion_needs_no_predecessor(store: Store, versions: str, scored: Scored) -> None:
    client().delete_registered_model_alias(versions, CHAMPION)
    apply(store, decide(GateConfig(floor=20.0), scored(2, 50.0), None))
    assert alias_version(versions, CHAMPION) == 2
    assert model_version(versions, 2).tags["gate.champion_miou"] == ""
