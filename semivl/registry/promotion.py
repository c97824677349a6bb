"""A decision carried out: recorded first, then the champion's line moves, then all that shows it in MLflow.

    record in S3 (the first counts) -> reign in S3 (one wins) -> alias -> tags and artifact

A kill between any two of them is completed by the next run, with the same end. A promotion that another one forestalled
moves nothing: its challenger is decided on anew, against the new champion.
"""

import logging
from collections.abc import Callable

from semivl.config import GateConfig
from semivl.data.store import Store
from semivl.errors import RegistryError
from semivl.registry.decision import OVERTAKEN, Decision, key_of, overtaken, record, recorded
from semivl.registry.package import CHALLENGER, alias_version, model_version
from semivl.registry.reigns import CHAMPION as CHAMPION
from semivl.registry.reigns import Reign, champion, crown, follow, now, reign_of, reigns
from semivl.registry.tracking import client, tag_version

_log = logging.getLogger(__name__)
ATTEMPTS = 20
"""one promotion wins every round, so this many may run at once"""
Decide = Callable[[Reign | None], Decision]
CarryOut = Callable[[Decision], Decision]


def settle(
    store: Store,
    model: str,
    challenger: int,
    digest: str,
    gate: GateConfig,
    decide: Decide,
    carry_out: CarryOut | None = None,
) -> Decision:
    """The decision about the challenger on these images, carried out; decided anew where another champion came first.

    Args:
        digest: of the evaluation images that `decide` compares on, be they the frozen ones or not.
        gate: the rules that `decide` goes by.
        decide: what compares the challenger with the version that reigns, if it is not on record.
        carry_out: `apply` on this store where empty.

    Raises:
        RegistryError: REG008 the challenger is champion, and no decision of the gate made it so; REG007 others keep
            becoming champion.
    """
    for _ in range(ATTEMPTS):
        reign = champion(store, model)
        if reign and reign.version == challenger:
            return finish(store, crowning(store, reign))
        decision = recorded(store, model, challenger, reign, digest, gate.digest) or decide(reign)
        try:
            return carry_out(decision) if carry_out else apply(store, decision)
        except RegistryError as error:
            if error.code != "REG007":
                raise
            _log.info("%s; version %d is decided on anew", error.what, challenger)
    raise _overtaken(model, challenger)


def apply(store: Store, decision: Decision) -> Decision:
    """Records the decision and carries it out; the one that counts.

    Raises:
        RegistryError: REG007 another version became champion first. The record then says so.
    """
    decision = record(store, decision)
    if OVERTAKEN in decision.failed:  # another run of the same challenger was here
        raise _overtaken(decision.model, decision.challenger)
    if not decision.promoted:
        return finish(store, decision)
    key = key_of(decision.model, decision.name)
    reign = Reign(
        model=decision.model, number=decision.reign + 1, version=decision.challenger, before=decision.champion,
        kind="promotion", reason=decision.reason, by=decision.approved_by, since=now(), decision=key,
    )  # fmt: skip
    if not crown(store, reign):
        begun = reign_of(store, decision.model, reign.number)
        assert begun
        if begun.decision != key:
            store.put(key, overtaken(decision, [begun]).model_dump_json(indent=1).encode())
            follow(store, decision.model)
            raise _overtaken(decision.model, decision.challenger)
    return finish(store, decision)


def finish(store: Store, decision: Decision) -> Decision:
    """All that shows a recorded decision: alias, tags of the version, the record among its run's artifacts."""
    model = decision.model
    follow(store, model)
    if decision.promoted and alias_version(model, CHALLENGER) == decision.challenger:
        client().delete_registered_model_alias(model, CHALLENGER)
    version = model_version(model, decision.challenger)
    if version.run_id:
        client().log_dict(version.run_id, decision.model_dump(mode="json"), f"gate/{decision.name}.json")
    missing = {name: value for name, value in _tags(decision).items() if version.tags.get(name) != value}
    tag_version(model, decision.challenger, missing)
    return decision


def crowning(store: Store, reign: Reign) -> Decision:
    """The decision that made the version of this reign champion, be it in an earlier reign.

    Raises:
        RegistryError: REG008 none did.
    """
    for earlier in reversed(reigns(store, reign.model)):
        if earlier.version == reign.version and earlier.decision:
            return Decision.model_validate_json(store.get(earlier.decision))
    raise RegistryError(
        "REG008",
        f"version {reign.version} of {reign.model} is the champion already.",
        "Train a new challenger: semivl-train.",
    )


def _tags(decision: Decision) -> dict[str, str]:
    return {
        "gate.reason": decision.reason[:5000],
        "gate.failed": " ".join(decision.failed),
        "gate.challenger_miou": _points(decision.challenger_miou),
        "gate.champion": str(decision.champion or ""),
        "gate.champion_miou": _points(decision.champion_miou),
        "gate.lead_low": _points(decision.low),
        "gate.record": key_of(decision.model, decision.name),
        "gate.decision": "promoted" if decision.promoted else "rejected",
    }


def _points(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _overtaken(model: str, challenger: int) -> RegistryError:
    return RegistryError(
        "REG007",
        f"another version of {model} became champion while version {challenger} was compared with the one before.",
        "Run semivl-promote again: it compares with the new one.",
    )
