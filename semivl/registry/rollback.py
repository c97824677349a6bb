"""Back to a champion before: a reign of its own in the line, with who went back and why."""

from collections.abc import Sequence

from semivl.data.store import Store
from semivl.errors import RegistryError
from semivl.registry.package import alias_version, model_version
from semivl.registry.reigns import CHAMPION, Reign, champion, crown, follow, now, reigns
from semivl.registry.tracking import tag_version


def rollback(store: Store, model: str, reason: str, by: str, to: int | None = None) -> Reign:
    """The reign of the champion before, begun; a rollback that was cut short is completed instead.

    The version that is left does not come back by itself: the gate refuses it (GATE011) until a rollback `to` it.

    Args:
        to: a version that was champion once; the one before the present champion where empty.

    Raises:
        RegistryError: REG023 there is no champion to leave or none to go to, REG024 the version was never champion
            or is it now, REG007 another version became champion meanwhile, REG004 the version is gone.
    """
    line = reigns(store, model)
    if not line:
        champion(store, model)
        line = reigns(store, model)
    if not line:
        raise RegistryError("REG023", f"{model} has no champion.", "Train one and promote it: semivl run EXPERIMENT.")
    last = line[-1]
    if last.kind == "rollback" and alias_version(model, CHAMPION) != last.version:
        return _finish(store, last)
    target = previous(line) if to is None else _named(line, to)
    if target is None:
        raise RegistryError(
            "REG023",
            f"version {last.version} of {model} is its first champion: there is none before it to go back to.",
            "Name a version that was champion once: --to VERSION.",
        )
    model_version(model, target)  # it must still be there
    reign = Reign(
        model=model, number=last.number + 1, version=target, before=last.version, kind="rollback", reason=reason,
        by=by, since=now(),
    )  # fmt: skip
    if not crown(store, reign):
        raise RegistryError(
            "REG007",
            f"the champion of {model} changed while it was rolled back from version {last.version}.",
            "Look at `semivl decisions`, and roll back again if you still want to.",
        )
    return _finish(store, reign)


def previous(line: Sequence[Reign]) -> int | None:
    """The version that a rollback goes to: the one that the present champion replaced, and so on down."""
    stack: list[int] = []
    for reign in line:
        if reign.kind == "rollback" and reign.version in stack:
            del stack[stack.index(reign.version) + 1 :]
        else:
            stack.append(reign.version)
    return stack[-2] if len(stack) > 1 else None


def withdrawn(line: Sequence[Reign], version: int) -> str | None:
    """Why the version was rolled back, where it was and has not come back since."""
    told = None
    for reign in line:
        if reign.kind == "rollback" and reign.before == version:
            told = f"{reign.reason} ({reign.by})"
        elif reign.version == version:
            told = None
    return told


def _named(line: Sequence[Reign], version: int) -> int:
    was = sorted({reign.version for reign in line} - {line[-1].version})
    if version in was:
        return version
    model, now_champion = line[-1].model, line[-1].version
    what = "is the champion now" if version == now_champion else "was never champion"
    known = f"Name one that was champion before: {', '.join(map(str, was))}." if was else "There is none to go back to."
    raise RegistryError("REG024", f"version {version} of {model} {what}.", known)


def _finish(store: Store, reign: Reign) -> Reign:
    follow(store, reign.model)
    words = f"{reign.reason} ({reign.by}, {reign.since})"
    tags = {reign.version: {"gate.restored": f"from version {reign.before}: {words}", "gate.rolled_back": ""}}
    if reign.before is not None:
        tags[reign.before] = {"gate.rolled_back": f"to version {reign.version}: {words}"}
    for version, named in tags.items():
        tag_version(reign.model, version, {name: value[:5000] for name, value in named.items()})
    return reign
