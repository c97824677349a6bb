"""The gate's decision as a record in S3, by the model's version, the champion it met, and the images.

What is decided about a challenger while one champion reigns, on the same images and by the same rules, stays decided:
the first record that is put counts. Only where nobody answered in time may a person be asked again. Whether a promotion
took place is told by the line of champions (semivl/registry/reigns.py): of two challengers that were both found better
than one champion, the slower one's record says that it was overtaken.
"""

from collections.abc import Sequence

from semivl.config import Record
from semivl.data.store import Store
from semivl.registry.reigns import Reign, reigns

IN_TIME, OVERTAKEN = "GATE013", "GATE014"


class RuleResult(Record):
    """One rule of the gate: what it demands, and what was found."""

    code: str
    demand: str
    met: bool
    found: str
    value: float | None
    bound: float | None


class Decision(Record):
    """What the gate found, and why. IoU and mIoU in points, of the classes that the images hold."""

    model: str
    challenger: int
    champion: int | None
    """the version that reigned when this was decided; None before the first"""
    reign: int
    """number of its reign; 0 before the first"""
    dataset: str
    snapshot: str
    digest: str
    images: int
    challenger_miou: float
    champion_miou: float | None
    difference: float | None
    low: float | None
    high: float | None
    """one-sided bounds of the difference, each at `confidence`"""
    confidence: float
    margin: float
    settings: str
    """digest of the gate's settings"""
    rules: tuple[RuleResult, ...]
    promoted: bool
    reason: str
    decided_at: str
    approved_by: str | None = None

    @property
    def failed(self) -> tuple[str, ...]:
        """Codes of the rules that were not met."""
        return tuple(rule.code for rule in self.rules if not rule.met)

    @property
    def stays(self) -> bool:
        """False where nothing but a person's answer is missing: the next run asks again."""
        return self.failed != (IN_TIME,)

    @property
    def name(self) -> str:
        """Who against whom, on what and by which rules: the record's name in S3 and in MLflow."""
        return _name(self.challenger, self.champion, self.reign, self.digest, self.settings)


def key_of(model: str, name: str) -> str:
    """Where the decision of that name is kept."""
    return f"decisions/v2/{model}/{name}.json"


def recorded(
    store: Store, model: str, challenger: int, reign: Reign | None, digest: str, settings: str
) -> Decision | None:
    """What was decided about the challenger on these images and by these rules while this champion reigns, if so."""
    champion, number = (reign.version, reign.number) if reign else (None, 0)
    found = store.get_with_etag(key_of(model, _name(challenger, champion, number, digest, settings)))
    kept = Decision.model_validate_json(found[0]) if found else None
    return kept if kept and kept.stays else None


def record(store: Store, decision: Decision) -> Decision:
    """Keeps the decision; the one that counts, which is the first that was kept and stays."""
    key, body = key_of(decision.model, decision.name), decision.model_dump_json(indent=1).encode()
    found = store.get_with_etag(key)
    if found and Decision.model_validate_json(found[0]).stays:
        return Decision.model_validate_json(found[0])
    if store.put_if_match(key, body, found[1] if found else None):
        return decision
    return Decision.model_validate_json(store.get(key))


def overtaken(decision: Decision, line: Sequence[Reign]) -> Decision:
    """The decision as it stands in the line of champions: a promotion that another one forestalled is none."""
    after = next((reign for reign in line if reign.number == decision.reign + 1), None)
    if not decision.promoted or after is None or after.decision == key_of(decision.model, decision.name):
        return decision
    words = f"version {after.version} became champion before this one could"
    late = RuleResult(
        code=OVERTAKEN, demand="the champion is still the one compared with", met=False, found=words,
        value=None, bound=None,
    )  # fmt: skip
    changed = {"rules": (*decision.rules, late), "promoted": False, "reason": f"{OVERTAKEN} {words}"}
    return decision.model_copy(update=changed)


def decisions(store: Store, model: str) -> list[Decision]:
    """Every decision about the model's versions, newest first."""
    return _read(store, model, f"decisions/v2/{model}/")


def of_version(store: Store, model: str, version: int) -> list[Decision]:
    """Every decision about the version as a challenger, newest first."""
    return _read(store, model, f"decisions/v2/{model}/{version}-over-")


def _name(challenger: int, champion: int | None, reign: int, digest: str, settings: str) -> str:
    return f"{challenger}-over-{champion or 'none'}-reign{reign}-{digest}-{settings}"


def _read(store: Store, model: str, prefix: str) -> list[Decision]:
    line = reigns(store, model)
    found = [Decision.model_validate_json(store.get(key)) for key in store.list(prefix)]
    return sorted((overtaken(one, line) for one in found), key=lambda one: one.decided_at, reverse=True)
