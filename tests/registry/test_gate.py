"""Better is promoted; equal, worse, ruinous, overfed and over budget is refused, each with its code."""

import numpy as np
import pytest

from semivl.config import GateConfig
from semivl.errors import RegistryError
from semivl.evaluation.speed import Speeds
from semivl.registry.gate import approved, decide, declined, unanswered
from semivl.registry.gate_exposure import Exposure
from semivl.registry.gate_rules import RULES, Case, Side
from semivl.registry.reigns import Reign
from tests.registry.cases import EVEN, case, counts, seen, side

REIGN = Reign(model="m", number=4, version=1, before=None, kind="promotion", reason="", since="")
BETTER = [share + 0.1 for share in EVEN]


def refused(given: Case) -> tuple[str, ...]:
    """Codes of the rules that refuse it; none where it is promoted."""
    decision = decide(given, REIGN if given.champion else None)
    assert decision.promoted is (not decision.failed)
    assert all(code in decision.reason for code in decision.failed)
    return decision.failed


def champion(**changes) -> Side:
    return side(1, counts(own=1), **changes)


def better(**changes) -> Side:
    return side(2, counts(BETTER, own=2), **changes)


def test_better_is_promoted_with_every_figure():
    decision = decide(case(better(), champion()), REIGN)
    assert decision.promoted and decision.failed == ()
    assert (decision.challenger, decision.champion, decision.reign, decision.images) == (2, 1, 4, 60)
    assert decision.low and decision.high and decision.difference
    assert 5 < decision.low < decision.difference < decision.high < 15
    assert decision.difference == pytest.approx(decision.challenger_miou - (decision.champion_miou or 0))
    assert {rule.code for rule in decision.rules} >= {"GATE001", "GATE002", "GATE003", "GATE004", "GATE005"}
    assert f"{decision.low:+.2f}" in decision.reason


def test_equal_is_refused():
    assert refused(case(side(2, counts(own=1)), champion())) == ("GATE004",)


def test_worse_is_refused():
    assert "GATE004" in refused(case(side(2, counts([share - 0.1 for share in EVEN], own=2)), champion()))


def test_a_lead_that_can_be_chance_is_refused_unless_any_lead_is_enough():
    slight = side(2, counts([share + 0.004 for share in EVEN], own=3))
    assert refused(case(slight, champion())) == ("GATE004",)
    any_lead = GateConfig(confidence=0.5)
    assert refused(case(slight, champion(), any_lead)) == ()
    assert refused(case(side(2, counts(own=1)), champion(), any_lead)) == ("GATE004",)


def test_the_lower_bound_must_exceed_the_margin():
    assert refused(case(better(), champion(), GateConfig(margin=5))) == ()
    assert refused(case(better(), champion(), GateConfig(margin=9.9))) == ("GATE004",)


def test_better_in_the_mean_with_one_class_ruined_is_refused():
    ruinous = side(2, counts((0.9, 0.9, 0.35), own=2))
    decision = decide(case(ruinous, champion()), REIGN)
    assert decision.failed == ("GATE005",) and "class 2 fell" in decision.reason
    assert decision.low and decision.low > 0


def in_few(made, images: int):
    """The class 2 in the first images alone."""
    made.unions[images:, 2] = made.intersections[images:, 2] = 0
    return made


@pytest.mark.parametrize(("images", "share", "codes"), [(2, 0.3, ()), (4, 0.02, ("GATE005",)), (1, 0.02, ())])
def test_a_class_of_few_images_falls_only_where_it_is_lost(images, share, codes):
    before = in_few(counts(own=1), images)
    after = in_few(counts((0.98, 0.98, share), own=2), images)
    decision = decide(case(side(2, after), side(1, before)), REIGN)
    assert decision.failed == codes
    assert "class 2 fell by" in next(rule.found for rule in decision.rules if rule.code == "GATE005")


def test_a_fall_within_class_drop_is_allowed():
    slightly = side(2, counts((0.8, 0.8, 0.55), own=2))
    assert refused(case(slightly, champion(), GateConfig(class_drop=9))) == ()
    assert refused(case(slightly, champion(), GateConfig(class_drop=2))) == ("GATE005",)


def test_other_images_than_the_frozen_ones_are_refused():
    assert refused(case(better(), champion(), digest="d2")) == ("GATE001",)


@pytest.mark.parametrize("found", [seen(exact=1), seen(near=2)])
def test_trained_on_evaluation_images_is_refused_on_either_side(found):
    assert refused(case(better(exposure=found), champion())) == ("GATE002",)
    assert refused(case(better(), champion(exposure=found))) == ("GATE003",)


def test_a_lineage_that_is_not_known_is_refused_unless_accepted():
    gone = Exposure(overlaps=(), unknown=("the snapshot is gone",))
    assert refused(case(better(exposure=gone), champion())) == ("GATE002",)
    assert refused(case(better(exposure=gone), champion(), GateConfig(unknown_lineage="accept"))) == ()


@pytest.mark.parametrize(
    ("gate", "changes", "code"),
    [
        ({"ece_rise": 1}, {"ece": 5.1}, "GATE006"),
        ({"ece_max": 3, "ece_rise": None}, {}, "GATE006"),
        ({"latency_max": 19}, {}, "GATE007"),
        ({"size_max": 29}, {}, "GATE008"),
        ({"size_ratio": 1.5}, {"model_bytes": 46 << 20}, "GATE008"),
    ],
)
def test_over_budget_is_refused(gate, changes, code):
    assert refused(case(better(**changes), champion(), GateConfig(**gate))) == (code,)


@pytest.mark.parametrize(("ratio", "codes"), [(1.4, ()), (1.6, ("GATE007",))])
def test_time_is_held_against_the_champions_beside_it(ratio, codes):
    speeds = Speeds(challenger=20 * ratio, champion=20, ratio=ratio)
    assert refused(case(better(), champion(), speeds=speeds)) == codes


def test_budgets_that_are_not_set_are_not_asked():
    gate = GateConfig(ece_rise=None, latency_ratio=None, size_ratio=None)
    asked = {rule.code for rule in decide(case(better(ece=90), champion(), gate), REIGN).rules}
    assert asked.isdisjoint({"GATE006", "GATE007", "GATE008"})


def test_the_first_champion_must_reach_the_floors():
    assert refused(case(better(), None, GateConfig(floor=60))) == ()
    assert refused(case(better(), None, GateConfig(floor=75))) == ("GATE009",)
    assert refused(case(better(), None, GateConfig(class_floors={"class 1": 80}))) == ("GATE010",)


def test_a_class_below_its_floor_is_refused_unless_the_champion_is_lower():
    gate = GateConfig(class_floors={"class 1": 80})
    assert refused(case(better(), champion(), gate)) == ()
    lower = side(2, counts((0.9, 0.58, 0.9), own=2))
    assert refused(case(lower, champion(), gate)) == ("GATE010",)


def test_a_version_that_was_rolled_back_is_refused():
    assert refused(case(better(), champion(), withdrawn="it saw ghosts (ann)")) == ("GATE011",)


def test_every_rule_is_asked_whatever_the_others_say():
    bad = case(
        side(2, counts((0.5, 0.5, 0.1), own=2), seen(exact=1), ece=50, model_bytes=900 << 20),
        champion(exposure=seen(near=1)),
        GateConfig(class_floors={"class 0": 90}),
        digest="d2",
        speeds=Speeds(challenger=90, champion=20, ratio=4.5),
        withdrawn="bad",
    )
    assert refused(bad) == tuple(f"GATE{n:03}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 10, 11))
    assert len(RULES) == 11


def test_a_persons_answer_is_a_rule_of_its_own():
    decision = decide(case(better(), champion()), REIGN)
    yes, no, late = approved(decision, "Ann", "go"), declined(decision, "Bob", "not now"), unanswered(decision, 2)
    assert yes.promoted and yes.approved_by == "Ann" and "Ann approved: go" in yes.reason
    assert not no.promoted and no.failed == ("GATE012",) and "Bob" in no.reason and no.approved_by is None
    assert not late.promoted and late.failed == ("GATE013",) and "2 hours" in late.reason


def test_the_same_case_gives_the_same_bounds():
    one, other = (decide(case(better(), champion()), REIGN) for _ in range(2))
    assert (one.low, one.high, one.rules) == (other.low, other.high, other.rules)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (lambda: case(better(digest="d2"), champion()), "REG006"),
        (lambda: case(better(), side(1, counts(own=1, images=59))), "REG006"),
        (lambda: case(side(1, counts()), champion()), "REG008"),
        (lambda: case(better(), champion(), GateConfig(class_floors={"clas 1": 5})), "REG021"),
    ],
)
def test_what_cannot_be_compared_is_an_error(given, code):
    with pytest.raises(RegistryError, match=code):
        decide(given(), REIGN)


def test_a_class_that_the_images_lack_is_no_class_of_the_mean():
    before, after = counts(own=1), counts(BETTER, own=2)
    for made in (before, after):
        made.unions[:, 1] = made.intersections[:, 1] = 0
    decision = decide(case(side(2, after, iou={"a": 1.0, "b": None, "c": 2.0}), side(1, before)), REIGN)
    assert decision.promoted and np.isfinite(decision.challenger_miou)
