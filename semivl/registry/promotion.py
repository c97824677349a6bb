"""The gate: a challenger becomes champion only if it is better on the same images.

The decision is recorded in S3 first, then the alias moves. A promotion that is killed anywhere in between
ends the same when it runs again, and what is decided stays decided.
"""

from semivl.config import GateConfig, Record
from semivl.data.store import Store
from semivl.errors import RegistryError
from semivl.evaluation.scores import Scores
from semivl.registry.package import CHALLENGER, alias_version
from semivl.registry.tracking import client

CHAMPION = "champion"


class Decision(Record):
    """What the gate found, and why."""

    model: str
    challenger: int
    champion: int | None
    """the version that carried the alias `champion` when this was decided"""
    digest: str
    challenger_miou: float
    champion_miou: float | None
    margin: float
    promoted: bool
    reason: str


def decide(gate: GateConfig, challenger: Scores, champion: Scores | None) -> Decision:
    """Whether the challenger takes over: it must lead, and by the margin; the first one must reach the floor.

    Raises:
        RegistryError: REG006 the two were scored on different images, REG008 they are the same version.
    """
    if champion and champion.digest != challenger.digest:
        raise RegistryError(
            "REG006",
            f"challenger and champion of {challenger.model} were scored on different images "
            f"({challenger.digest}, {champion.digest}).",
            "Evaluate both on the same snapshot: semivl-promote does.",
        )
    if champion and champion.model_version == challenger.model_version:
        raise RegistryError(
            "REG008",
            f"version {challenger.model_version} of {challenger.model} is the champion already.",
            "Train a new challenger: semivl-train.",
        )
    assert challenger.model_version is not None
    promoted, reason = _verdict(gate, challenger.miou, champion.miou if champion else None)
    return Decision(
        model=challenger.model,
        challenger=challenger.model_version,
        champion=champion.model_version if champion else None,
        digest=challenger.digest,
        challenger_miou=challenger.miou,
        champion_miou=champion.miou if champion else None,
        margin=gate.margin,
        promoted=promoted,
        reason=reason,
    )


def _verdict(gate: GateConfig, challenger: float, champion: float | None) -> tuple[bool, str]:
    if champion is None:
        reached = challenger >= gate.floor
        return reached, f"first champion: {challenger:.2f} mIoU, the floor is {gate.floor:.2f}"
    lead = challenger - champion
    wanted = f"at least {gate.margin:.2f} points" if gate.margin else "any lead"
    return (
        lead > 0 and lead >= gate.margin,
        f"{challenger:.2f} against {champion:.2f} mIoU, {lead:+.2f}; wanted: {wanted}",
    )


def recorded(store: Store, model: str, challenger: int, digest: str) -> Decision | None:
    """The decision about this challenger on these images, if there is one that still stands."""
    key = f"{_place(model, challenger, digest)}.json"
    if not store.exists(key):
        return None
    decision = Decision.model_validate_json(store.get(key))
    return None if _overtaken(store, decision) else decision


def apply(store: Store, decision: Decision) -> Decision:
    """Records the decision and carries it out; returns the one that counts.

    Where this challenger was decided on these images before, that decision counts, and is completed if it had
    been cut short. Only where another champion came in between is the new decision taken in its place.

    Raises:
        RegistryError: REG007 the champion is no longer the one that the decision saw.
    """
    decision = _record(store, decision)
    if _carried_out(store, decision):
        return decision
    if decision.promoted:
        _move_alias(decision)
    tags = {
        "gate.reason": decision.reason,
        "gate.challenger_miou": f"{decision.challenger_miou:.2f}",
        "gate.champion_miou": "" if decision.champion_miou is None else f"{decision.champion_miou:.2f}",
        "gate.decision": "promoted" if decision.promoted else "rejected",
    }
    if decision.promoted and alias_version(decision.model, CHALLENGER) == decision.challenger:
        client().delete_registered_model_alias(decision.model, CHALLENGER)
    for name, value in tags.items():
        client().set_model_version_tag(decision.model, str(decision.challenger), name, value)
    store.put_if_absent(_key(decision, "done"), b"carried out\n")
    return decision


def _record(store: Store, decision: Decision) -> Decision:
    key, body = _key(decision, "json"), decision.model_dump_json(indent=1).encode()
    found = store.get_with_etag(key)
    if found is None:
        _require_seen(decision)
        if store.put_if_absent(key, body):
            return decision
        return Decision.model_validate_json(store.get(key))
    earlier = Decision.model_validate_json(found[0])
    if not _overtaken(store, earlier):
        return earlier
    _require_seen(decision)
    if store.put_if_match(key, body, found[1]):
        return decision
    return Decision.model_validate_json(store.get(key))


def _move_alias(decision: Decision) -> None:
    if alias_version(decision.model, CHAMPION) == decision.challenger:
        return
    _require_seen(decision)
    client().set_registered_model_alias(decision.model, CHAMPION, str(decision.challenger))


def _require_seen(decision: Decision) -> None:
    now = alias_version(decision.model, CHAMPION)
    if now != decision.champion:
        raise RegistryError(
            "REG007",
            f"the champion of {decision.model} is now version {now}, no longer {decision.champion}.",
            "Run semivl-promote again: it compares with the new one.",
        )


def _carried_out(store: Store, decision: Decision) -> bool:
    return store.exists(_key(decision, "done"))


def _overtaken(store: Store, decision: Decision) -> bool:
    """Whether the decision was cut short, and another champion came before it was completed."""
    if not decision.promoted or _carried_out(store, decision):
        return False
    return alias_version(decision.model, CHAMPION) not in (decision.champion, decision.challenger)


def _key(decision: Decision, kind: str) -> str:
    return f"{_place(decision.model, decision.challenger, decision.digest)}.{kind}"


def _place(model: str, challenger: int, digest: str) -> str:
    return f"decisions/{model}/{challenger}-{digest}"
