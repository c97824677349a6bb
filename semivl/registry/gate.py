"""The gate: whether a challenger becomes champion, with the figures of every rule."""

import numpy as np

from semivl.errors import RegistryError
from semivl.registry.decision import IN_TIME, Decision, RuleResult
from semivl.registry.gate_rules import RULES, Case
from semivl.registry.reigns import Reign, now

APPROVED = "GATE012"


def decide(case: Case, reign: Reign | None) -> Decision:
    """The decision on the case. A rule that is not met refuses the challenger; all of them are asked.

    Args:
        reign: the champion's; None where there is none.

    Raises:
        RegistryError: REG006 the two were scored on different images, REG008 they are the same version, REG021 a
            class of `class_floors` is not in the class map.
    """
    _require_usable(case)
    scores, lead = case.challenger.scores, case.lead
    assert scores.model_version is not None
    rules = tuple(result for rule in RULES if (result := rule(case)))
    return Decision(
        model=scores.model,
        challenger=scores.model_version,
        champion=reign.version if reign else None,
        reign=reign.number if reign else 0,
        dataset=scores.dataset,
        snapshot=scores.snapshot,
        digest=scores.digest,
        images=scores.images,
        challenger_miou=float(np.nanmean(case.iou)),
        champion_miou=float(np.nanmean(case.classes.champion)) if case.classes else None,
        difference=lead and lead.difference,
        low=lead and lead.low,
        high=lead and lead.high,
        confidence=case.gate.confidence,
        margin=case.gate.margin,
        settings=case.gate.digest,
        rules=rules,
        promoted=all(rule.met for rule in rules),
        reason=_reason(rules),
        decided_at=now(),
    )


def approved(decision: Decision, by: str, reason: str) -> Decision:
    """The decision after a person said yes."""
    return _answered(decision, APPROVED, True, f"{by} approved: {reason or 'no reason given'}", by)


def declined(decision: Decision, by: str, reason: str) -> Decision:
    """The decision after a person said no."""
    return _answered(decision, APPROVED, False, f"{by} declined: {reason or 'no reason given'}", None)


def unanswered(decision: Decision, hours: float) -> Decision:
    """The decision after nobody answered in time."""
    return _answered(decision, IN_TIME, False, f"nobody answered within {hours:g} hours", None)


def _answered(decision: Decision, code: str, met: bool, found: str, by: str | None) -> Decision:
    demand = "a person approves" if code == APPROVED else "a person answers in time"
    rules = (*decision.rules, RuleResult(code=code, demand=demand, met=met, found=found, value=None, bound=None))
    changed = {"rules": rules, "promoted": decision.promoted and met, "approved_by": by, "decided_at": now()}
    return decision.model_copy(update=changed | {"reason": _reason(rules)})


def _reason(rules: tuple[RuleResult, ...]) -> str:
    failed = [f"{rule.code} {rule.found}" for rule in rules if not rule.met]
    if failed:
        return "; ".join(failed)
    told = [rule.found for rule in rules if rule.code in ("GATE004", "GATE009", APPROVED)]
    return "; ".join(told)


def _require_usable(case: Case) -> None:
    one, other = case.challenger, case.champion
    unknown = sorted(set(case.gate.class_floors) - set(case.names))
    if unknown:
        raise RegistryError(
            "REG021",
            f"gate.class_floors names {', '.join(unknown)}, which is no class of {one.scores.model}.",
            f"Use its classes: {', '.join(case.names)}.",
        )
    if other is None:
        return
    if other.scores.digest != one.scores.digest or other.counts.unions.shape != one.counts.unions.shape:
        raise RegistryError(
            "REG006",
            f"challenger and champion of {one.scores.model} were scored on different images "
            f"({one.scores.digest}, {other.scores.digest}).",
            "Evaluate both on the same snapshot: semivl-promote does.",
        )
    if other.scores.model_version == one.scores.model_version:
        raise RegistryError(
            "REG008",
            f"version {one.scores.model_version} of {one.scores.model} is the champion already.",
            "Train a new challenger: semivl-train.",
        )
