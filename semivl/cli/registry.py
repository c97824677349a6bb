"""`semivl rollback`, `decisions` and `freeze`: the line of champions, what the gate decided, and what it judges on."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from semivl.cli.common import Experiment, apply_environment, show_table

if TYPE_CHECKING:
    from semivl.registry.decision import Decision

Name = Annotated[str, typer.Argument(help="name of a file in conf/experiment, or of a model in the registry")]
Reason = Annotated[str, typer.Option(help="why; kept in the record")]
By = Annotated[str | None, typer.Option("--by", help="who; your name on this machine if left out")]


def rollback(
    name: Name,
    reason: Reason,
    to: Annotated[int | None, typer.Option(min=1, help="a version that was champion once; the one before")] = None,
    by: By = None,
) -> None:
    """Go back to the champion before. The version that is left does not come back by itself."""
    apply_environment()
    from semivl.data.store import open_store
    from semivl.registry.rollback import rollback as go_back

    reign = go_back(open_store(), _model(name), _given(reason), by or _user(), to)
    print(f"{reign.model}: version {reign.version} is champion again, in place of version {reign.before}.")


def decisions(
    name: Name,
    version: Annotated[int | None, typer.Option(help="of this challenger alone")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the whole records, a JSON list")] = False,
) -> None:
    """List what the gate decided about a model's versions, newest first, then the line of its champions."""
    apply_environment()
    from semivl.data.store import open_store
    from semivl.registry.decision import decisions as all_of
    from semivl.registry.decision import of_version
    from semivl.registry.reigns import reigns

    store, model = open_store(), _model(name)
    found = all_of(store, model) if version is None else of_version(store, model, version)
    if as_json:
        import json

        print(json.dumps([one.model_dump(mode="json") for one in found], indent=1))
        return
    print(f"{model}: {len(found)} decisions")
    show_table([_row(one) for one in found])
    line = [
        {"champion": r.version, "by": r.kind, "since (UTC)": r.since[:16], "who": r.by or "", "why": r.reason}
        for r in reversed(reigns(store, model))
    ]
    print(f"\n{len(line)} champions")
    show_table(line)


def freeze(
    experiment: Experiment,
    reason: Reason,
    snapshot: Annotated[str | None, typer.Option(help="version of a snapshot; the current one")] = None,
    by: By = None,
) -> None:
    """Move the model's frozen evaluation set to the evaluation images of a snapshot: a new bar from now on."""
    apply_environment()
    from semivl.config import load
    from semivl.data.snapshot import read
    from semivl.data.store import open_store
    from semivl.registry.frozen import freeze as move
    from semivl.registry.frozen import frozen_set

    config, store = load(experiment), open_store()
    before = frozen_set(store, config.registered_model)
    chosen = read(store, config.data.dataset, snapshot)
    now = move(store, config.registered_model, chosen, _given(reason), by or _user())
    was = f"before: {before.images} of {before.dataset}@{before.snapshot}, digest {before.digest}" if before else "new"
    print(f"{now.model} is judged on {now.images} images of {now.dataset}@{now.snapshot}, digest {now.digest} ({was}).")


def _row(decision: "Decision") -> dict[str, Any]:
    lead = "" if decision.difference is None else f"{decision.difference:+.2f}"
    bounds = "" if decision.low is None else f"{decision.low:+.2f} to {decision.high:+.2f}"
    return {
        "when (UTC)": decision.decided_at[:16],
        "challenger": decision.challenger,
        "champion": decision.champion or "-",
        "mIoU": f"{decision.challenger_miou:.2f}",
        "lead": lead,
        "bounds": bounds,
        "images": decision.images,
        "gate": "promoted" if decision.promoted else "kept out",
        "not met": " ".join(decision.failed),
        "approved by": decision.approved_by or "",
    }


def _model(name: str) -> str:
    """The registered model of the experiment; a name that is no experiment is the model's own."""
    from semivl.config import experiments, load

    return load(name).registered_model if name in experiments() else name


def _given(reason: str) -> str:
    from semivl.errors import RegistryError

    if not reason.strip():
        raise RegistryError("REG025", "the reason is empty.", "Say why in --reason: it is kept in the record.")
    return reason.strip()


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except OSError:
        return "unknown"
