"""What is decided is recorded before anything moves, stays decided, and ends the same wherever it was killed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from semivl.config import Config, GateConfig
from semivl.data.store import Store
from semivl.errors import RegistryError
from semivl.registry.decision import Decision, decisions, key_of, of_version, record
from semivl.registry.gate import approved, declined, unanswered
from semivl.registry.package import CHALLENGER, alias_version, model_version
from semivl.registry.promotion import CHAMPION, apply, finish, settle
from semivl.registry.reigns import Reign, champion, crown, now, reigns
from semivl.registry.tracking import client
from tests.registry.cases import decision

Decided = Callable[..., Decision]


def check_promoted(store: Store, name: str, made: Decision) -> None:
    assert alias_version(name, CHAMPION) == made.challenger
    assert alias_version(name, CHALLENGER) is None
    version = model_version(name, made.challenger)
    assert version.tags["gate.decision"] == "promoted" and version.tags["gate.reason"] == made.reason
    assert version.tags["gate.champion"] == "1" and version.tags["gate.failed"] == ""
    assert Decision.model_validate_json(store.get(version.tags["gate.record"])) == made
    assert decisions(store, name) == of_version(store, name, made.challenger) == [made]
    last = reigns(store, name)[-1]
    assert (last.version, last.before, last.decision) == (made.challenger, 1, version.tags["gate.record"])


@pytest.mark.parametrize("done_before_the_kill", ["nothing", "record", "reign", "alias", "challenger removed", "all"])
def test_a_killed_promotion_ends_the_same(
    store: Store, versions: str, decided: Decided, done_before_the_kill: str
) -> None:
    made = decided(2)
    done = ["nothing", "record", "reign", "alias", "challenger removed", "all"].index(done_before_the_kill)
    if done >= 1:
        record(store, made)
    if done >= 2:
        key = key_of(versions, made.name)
        crown(
            store,
            Reign(
                model=versions, number=2, version=2, before=1, kind="promotion", reason="", since=now(), decision=key
            ),
        )
    if done >= 3:
        client().set_registered_model_alias(versions, CHAMPION, "2")
    if done >= 4:
        client().delete_registered_model_alias(versions, CHALLENGER)
    if done == 5:
        finish(store, made)

    def decides_again(_: Reign | None) -> Decision:
        assert done == 0, "what is on record is not decided again"
        return made

    assert settle(store, versions, 2, "d1", GateConfig(), decides_again) == made
    check_promoted(store, versions, made)


def test_the_record_is_among_the_artifacts_of_the_versions_run(
    store: Store, config: Config, run_id: str, tmp_path: Path
) -> None:
    client().create_registered_model(config.registered_model)
    client().create_model_version(config.registered_model, "s3://nowhere/model", run_id)
    made = apply(store, decision(config.registered_model, 1, None))
    path = client().download_artifacts(run_id, f"gate/{made.name}.json", str(tmp_path))
    assert json.loads(Path(path).read_text()) == made.model_dump(mode="json")


def test_a_refused_challenger_changes_nothing_but_its_tags(store: Store, versions: str, decided: Decided) -> None:
    made = apply(store, decided(2, lead=-0.1))
    assert not made.promoted
    assert alias_version(versions, CHAMPION) == 1 and alias_version(versions, CHALLENGER) == 2
    tags = model_version(versions, 2).tags
    assert tags["gate.decision"] == "rejected" and tags["gate.failed"].split()[0] == "GATE004"
    assert of_version(store, versions, 2) == [made]
    assert len(reigns(store, versions)) == 1


def test_what_is_decided_stays_decided_while_the_champion_reigns(store: Store, versions: str, decided: Decided) -> None:
    first = apply(store, decided(2, lead=-0.1))
    assert apply(store, decided(2)) == first
    assert settle(store, versions, 2, "d1", GateConfig(), lambda _: decided(2)) == first
    assert alias_version(versions, CHAMPION) == 1


def test_other_rules_are_a_new_decision(store: Store, versions: str, decided: Decided) -> None:
    strict, lenient = GateConfig(margin=50), GateConfig()
    refused = settle(store, versions, 2, "d1", strict, lambda _: decided(2, gate=strict))
    assert refused.failed == ("GATE004",)
    assert settle(store, versions, 2, "d1", lenient, lambda _: decided(2)).promoted
    assert len(of_version(store, versions, 2)) == 2


def test_where_nobody_answered_a_person_is_asked_again(store: Store, versions: str, decided: Decided) -> None:
    asked = decided(2)
    late = apply(store, unanswered(asked, 2))
    assert late.failed == ("GATE013",) and alias_version(versions, CHAMPION) == 1
    made = settle(store, versions, 2, "d1", GateConfig(), lambda _: declined(asked, "ann", "no"))
    assert made.failed == ("GATE012",)
    assert settle(store, versions, 2, "d1", GateConfig(), lambda _: approved(asked, "bob", "yes")) == made


def test_another_champion_and_other_images_are_new_decisions(store: Store, versions: str, decided: Decided) -> None:
    apply(store, decided(2, lead=-0.1))
    apply(store, decided(3))
    apply(store, decided(2, lead=-0.1))
    apply(store, decided(2, digest="d2"))
    assert alias_version(versions, CHAMPION) == 2
    assert [made.champion for made in of_version(store, versions, 2)] == [3, 3, 1]


def test_the_champion_itself_gives_the_decision_that_made_it_one(store: Store, versions: str, decided: Decided) -> None:
    made = apply(store, decided(2))
    assert settle(store, versions, 2, "another digest", GateConfig(), decided) == made


def test_a_champion_that_no_decision_made_is_told(store: Store, versions: str, decided: Decided) -> None:
    with pytest.raises(RegistryError, match="REG008"):
        settle(store, versions, 1, "d1", GateConfig(), decided)


def test_an_overtaken_promotion_moves_nothing_and_says_so(store: Store, versions: str, decided: Decided) -> None:
    slow, quick = decided(2), decided(3)
    apply(store, quick)
    with pytest.raises(RegistryError, match="REG007"):
        apply(store, slow)
    assert alias_version(versions, CHAMPION) == 3
    kept = of_version(store, versions, 2)[0]
    assert not kept.promoted and kept.failed == ("GATE014",) and "version 3" in kept.reason
    with pytest.raises(RegistryError, match="REG007"):  # another run of the same challenger
        apply(store, slow)


def test_a_kill_between_record_and_reign_leaves_no_promotion_to_be_read(
    store: Store, versions: str, decided: Decided
) -> None:
    slow, quick = decided(2), decided(3)
    record(store, slow)
    apply(store, quick)
    assert [made.failed for made in of_version(store, versions, 2)] == [("GATE014",)]


def test_an_overtaken_challenger_is_decided_on_anew(store: Store, versions: str, decided: Decided) -> None:
    met = []

    def decides(reign: Reign | None) -> Decision:
        assert reign
        met.append(reign.version)
        if len(met) == 1:
            apply(store, decided(3))
        return decision(versions, 2, reign, lead=0.2)

    made = settle(store, versions, 2, "d1", GateConfig(), decides)
    assert met == [1, 3] and made.champion == 3 and made.promoted
    assert [reign.version for reign in reigns(store, versions)] == [1, 3, 2]


def test_an_alias_that_was_moved_by_hand_goes_back_to_the_champion(
    store: Store, versions: str, decided: Decided
) -> None:
    apply(store, decided(2))
    client().set_registered_model_alias(versions, CHAMPION, "4")
    reign = champion(store, versions)
    assert reign and reign.version == 2 and alias_version(versions, CHAMPION) == 2


def test_the_first_champion_needs_no_predecessor(store: Store, versions: str) -> None:
    client().delete_registered_model_alias(versions, CHAMPION)
    made = apply(store, decision(versions, 2, champion(store, versions)))
    assert made.promoted and alias_version(versions, CHAMPION) == 2
    assert model_version(versions, 2).tags["gate.champion"] == ""
    assert reigns(store, versions)[0].before is None
