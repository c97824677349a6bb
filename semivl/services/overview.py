"""What is current: of every dataset that an experiment names, the snapshot, the last run and the champion."""

from collections.abc import Callable
from typing import Any, TypeVar

from semivl.config import Config, experiments, load
from semivl.errors import SemivlError

T = TypeVar("T")
NOTHING = "-"


def datasets() -> list[dict[str, Any]]:
    """A row a dataset and model; `?` where the service that knows does not answer."""
    rows = {}
    asked = _known(_last_runs)
    runs = asked if isinstance(asked, dict) else {}
    for config in filter(None, map(_loaded, experiments())):
        named = config.data.dataset, config.registered_model
        row = rows.setdefault(named, {"dataset": named[0], "experiments": [], "model": named[1], "runs": []})
        row["experiments"].append(config.name)
        row["runs"] += runs.get(config.name, [])[:1]
    return [_row(row) for row in rows.values()]


def _row(row: dict[str, Any]) -> dict[str, Any]:
    last = max(row["runs"], key=lambda run: run["started"], default=None)
    return {
        "dataset": row["dataset"],
        "experiments": ", ".join(row["experiments"]),
        "snapshot": _known(lambda: _snapshot(row["dataset"])),
        "last run": f"{last['flow']} {last['state'].lower()} {last['started'][:16]}" if last else NOTHING,
        "champion": _known(lambda: _champion(row["model"])),
    }


def _snapshot(dataset: str) -> str:
    from semivl.data import snapshot
    from semivl.data.store import open_store

    store = open_store()
    version = snapshot.head(store, dataset)
    return f"{version}, {snapshot.read(store, dataset, version).manifest.samples} samples" if version else NOTHING


def _champion(model: str) -> str:
    from semivl.registry.package import alias_version
    from semivl.registry.promotion import CHAMPION

    version = alias_version(model, CHAMPION)
    return NOTHING if version is None else f"{model} version {version}"


def _last_runs() -> dict[str, list[dict[str, Any]]]:
    """The newest runs by experiment, newest first."""
    from semivl.services.runs import latest

    found: dict[str, list[dict[str, Any]]] = {}
    for run in latest():
        found.setdefault(run["experiment"], []).append(run)
    return found


def _known(ask: Callable[[], T]) -> T | Any:
    try:
        return ask()
    except SemivlError:
        return "?"


def _loaded(name: str) -> Config | None:
    try:
        return load(name)
    except SemivlError:
        return None
