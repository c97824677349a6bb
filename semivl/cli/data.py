"""`semivl data`, `semivl forget` and `semivl gc`: the versions of a dataset, looked at and cleared away."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semivl.cli.tables import diff_json, log_row, plain, progress, show_diff, size_of, when

if TYPE_CHECKING:
    from semivl.data.garbage import Garbage
    from semivl.data.verify import Damage

data = typer.Typer(no_args_is_help=True, help="The versions of a dataset: what is in them, what became of it.")
Dataset = Annotated[str | None, typer.Option(help="name of the dataset; the experiment's where left out")]
Experiment = Annotated[str, typer.Option(help="file in conf/experiment, whose dataset is taken")]
Version = Annotated[str | None, typer.Option(help="the current one where left out")]


@data.command()
def log(dataset: Dataset = None, experiment: Experiment = "demo") -> None:
    """List the versions, the current one first: + samples added, - forgotten, ~ changed since the parent."""
    from semivl.cli.common import show_table
    from semivl.data import history
    from semivl.data.store import open_store

    name = dataset_name(dataset, experiment)
    show_table([log_row(manifest) for manifest in history.log(open_store(), name)], name)


@data.command()
def diff(
    earlier: Annotated[str, typer.Argument(help="version")],
    later: Annotated[str | None, typer.Argument(help="version; the current one if left out")] = None,
    dataset: Dataset = None,
    experiment: Experiment = "demo",
    as_json: Annotated[bool, typer.Option("--json", help="all of it, as JSON")] = False,
) -> None:
    """Tell two versions apart: samples added, removed, changed; counts; class shares."""
    from semivl.data import history, snapshot
    from semivl.data.store import open_store

    store, name = open_store(), dataset_name(dataset, experiment)
    found = history.diff(snapshot.read(store, name, earlier), snapshot.read(store, name, later))
    if as_json:
        print(json.dumps(diff_json(found), indent=1, ensure_ascii=False))
    else:
        show_diff(found)


@data.command()
def show(
    sample: Annotated[str, typer.Argument(metavar="KEY|NAME", help="16-digit key, or path relative to the source")],
    dataset: Dataset = None,
    experiment: Experiment = "demo",
    version: Version = None,
    save: Annotated[Path | None, typer.Option(help="folder to write its image and mask to")] = None,
) -> None:
    """Show one sample: what is known of it, where it lies, what became of it from version to version."""
    from dataclasses import asdict

    from semivl.cli.common import show_table
    from semivl.data import history
    from semivl.data.shards import shard_key
    from semivl.data.store import open_store

    store, name = open_store(), dataset_name(dataset, experiment)
    row = history.show(store, name, sample, version)
    known = asdict(row) | {"shard": store.address(shard_key(name, row.shard))}
    show_table([{"field": field, "value": plain(value)} for field, value in known.items() if value is not None])
    print()
    events = history.events(store, name, row.key, version)
    show_table([{"version": e.version, "when (UTC)": when(e.created), "what": plain(e.what)} for e in events])
    for path in history.save(store, name, row, save) if save else ():
        print(path)


@data.command()
def verify(
    dataset: Dataset = None,
    experiment: Experiment = "demo",
    version: Version = None,
    quick: Annotated[bool, typer.Option("--quick", help="compare sizes alone, read no shard")] = False,
) -> None:
    """Compare every byte that a version names with its hash. Exit status 1 where one is not what it should be."""
    from semivl.data import snapshot
    from semivl.data.store import open_store
    from semivl.data.verify import verify as look

    store, name = open_store(), dataset_name(dataset, experiment)
    found = snapshot.read(store, name, version)
    what = f"{name} {found.manifest.version}"
    damages: list[Damage] = []
    read = samples = 0
    with progress(what, 1 + len(found.manifest.shards)) as step:
        for looked in look(store, found, quick):
            read, samples = read + looked.bytes, samples + looked.samples
            damages += looked.damages
            step(looked.damages)
    shards = f"{len(found.manifest.shards)} shards, {size_of(read)} read, {samples} samples compared"
    print(f"{what}: {shards}; {f'{len(damages)} damaged' if damages else 'nothing is damaged'}")
    if damages:
        raise typer.Exit(1)


def forget(
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY...", help="16-digit keys of samples")] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="the path that a sample came by, relative to its source; repeat for more")
    ] = None,
    dataset: Dataset = None,
    experiment: Experiment = "demo",
    now: Annotated[
        bool, typer.Option("--now", help="remove at once the older snapshots and shards that hold them")
    ] = False,
) -> None:
    """Remove samples for good: no later ingest takes the same bytes in again. Tells what still holds them."""
    from semivl.data import garbage, removal
    from semivl.data.store import open_store
    from semivl.errors import DataError

    store, name = open_store(), dataset_name(dataset, experiment)
    if not keys and not source:
        raise DataError("DATA213", "semivl forget was given no sample.", "Give keys, or paths with --source.")
    wanted = {*(keys or ()), *(key for path in source or () for key in removal.keys_named(store, name, path))}
    done = removal.forget(store, name, wanted, print)
    found = garbage.collect(store, name, keep=None, dry_run=not now)
    print(f"{len(wanted)} samples forgotten; {name} {done.manifest.version} has {done.manifest.samples}")
    _show_holders(found, {*done.shards, *found.shards}, done.sources, removed=now)


def gc(
    keep: Annotated[int, typer.Option(min=0, help="snapshots to keep behind the current one, of its parents")] = 10,
    pin: Annotated[list[str] | None, typer.Option(help="version to keep besides, such as a champion's; repeat")] = None,
    grace: Annotated[float, typer.Option(min=0, help="hours that anything unnamed is left alone")] = 24,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="tell, and remove nothing")] = False,
    dataset: Dataset = None,
    experiment: Experiment = "demo",
) -> None:
    """Remove from the store what no kept snapshot names. The evaluation sets that the gate judges on are kept."""
    from semivl.data import garbage
    from semivl.data.store import open_store
    from semivl.registry.frozen import frozen_snapshots

    store, name = open_store(), dataset_name(dataset, experiment)
    pinned = {*(pin or ()), *frozen_snapshots(store, name)}
    found = garbage.collect(store, name, keep, pinned, grace * 3600, dry_run)
    if not dry_run:
        garbage.drop_cached(_cache(), found.shards)
    verb = "would remove" if dry_run else "removed"
    print(f"{name}: {verb} {len(found.objects)} objects, {size_of(found.bytes)}")
    print(f"  snapshots  {', '.join(found.versions) or 'none'}")
    print(f"  shards     {len(found.shards)}")
    if found.holding:
        print(f"  of the snapshots, {', '.join(found.holding)} held forgotten samples")
    if found.waiting:
        print(
            f"  {found.waiting} unnamed objects are younger than {grace:g} hours: an ingest may be about to name them"
        )


def dataset_name(dataset: str | None, experiment: str) -> str:
    """The dataset that the options name."""
    from semivl.config import load

    return dataset or load(experiment).data.dataset


def _show_holders(found: "Garbage", shards: set[str], sources: tuple[str, ...], removed: bool) -> None:
    """What held forgotten samples and is gone, and what holds them still or may, with what to do."""
    from semivl.cli.common import show_table
    from semivl.data.garbage import drop_cached

    dropped = drop_cached(_cache(), shards)
    older = f"older snapshots {', '.join(found.holding)} and {len(found.shards)} shards"
    files = ", ".join(f"{sha256}.tar" for sha256 in sorted(shards))
    held, holds, may = "held, removed", "holds them", "may hold them"
    rows = [
        (held, f"this machine's cache: {dropped} files", "") if dropped else None,
        (held, older, "") if found.holding and removed else None,
        (holds, older, "semivl gc removes them, as forget --now does") if found.holding and not removed else None,
        *((holds, f"{path} in the source", "remove it there") for path in sources),
        (may, f"caches of other machines: {files}", "remove them there") if shards else None,
        (may, f"{found.waiting} objects of an ingest under way or killed", "semivl gc in a day")
        if found.waiting
        else None,
        (may, "backups of the store, models trained on the samples", "yours to judge"),
    ]
    show_table([{"": state, "what": plain(what), "remedy": remedy} for state, what, remedy in filter(None, rows)])


def _cache() -> Path:
    from semivl.settings import home

    return home() / "cache" / "shards"
