"""Rows and lines of the data commands: a version, a difference, a verification under way."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from semivl.data.history import Difference
    from semivl.data.manifest import Manifest
    from semivl.data.verify import Damage

NAMED = 20
"""samples that a difference names on a terminal; --json names all"""


def log_row(manifest: "Manifest") -> dict[str, Any]:
    kinds = ", ".join(f"{count} {kind}" for kind, count in manifest.counts.items() if "/" in kind)
    change = {"+": manifest.added, "-": manifest.removed, "~": manifest.changed}
    return {
        "version": manifest.version,
        "parent": manifest.parent or "-",
        "when (UTC)": when(manifest.created),
        "samples": manifest.samples,
        "of them": kinds,
        "change": " ".join(f"{sign}{count}" for sign, count in change.items() if count) or "?",
        "left out": manifest.quarantined,
        "shards": len(manifest.shards),
        "size": size_of(sum(entry.bytes for entry in manifest.shards)),
        "by": manifest.created_by,
    }


def diff_json(found: "Difference") -> dict[str, Any]:
    names = found.later.classes.names
    return {
        "dataset": found.later.dataset,
        "earlier": found.earlier.version,
        "later": found.later.version,
        "counts": {"earlier": found.earlier.counts, "later": found.later.counts},
        "class_shares": [
            {"class": name, "earlier": old, "later": new} for name, old, new in zip(names, *found.shares, strict=True)
        ],
        "added": found.added.to_pylist(),
        "removed": found.removed.to_pylist(),
        "changed": found.changed.to_pylist(),
    }


def show_diff(found: "Difference") -> None:
    from semivl.cli.common import show_table

    old, new = found.earlier, found.later
    kinds = sorted({*old.counts, *new.counts})
    counts = [
        {"samples": kind, old.version: old.counts.get(kind, 0), new.version: new.counts.get(kind, 0)} for kind in kinds
    ]
    show_table(counts, f"{new.dataset}: {old.version} -> {new.version}")
    print()
    rows = zip(new.classes.names, *found.shares, strict=True)
    show_table([{"labelled pixels": n, old.version: f"{a:.2%}", new.version: f"{b:.2%}"} for n, a, b in rows])
    for title, table in (("added", found.added), ("removed", found.removed), ("changed", found.changed)):
        _show_samples(title, table)


def _show_samples(title: str, table: "pa.Table") -> None:
    from semivl.cli.common import show_table

    print(f"\n{title}: {len(table)}")
    if len(table):
        rows = table.slice(0, NAMED).to_pylist()
        show_table([{name: plain(value) for name, value in row.items()} for row in rows])
    if len(table) > NAMED:
        print(f"and {len(table) - NAMED} more; --json names them all")


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[["tuple[Damage, ...]"], None]]:
    """What to call after each step, with what it found damaged: moves a bar on a terminal, else tells every tenth."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(highlight=False, markup=False, soft_wrap=True)
    with Progress(console=console, disable=not sys.stdout.isatty()) as bar:
        task, done = bar.add_task(what, total=total), 0

        def step(damages: "tuple[Damage, ...]") -> None:
            nonlocal done
            done += 1
            bar.advance(task)
            for damage in damages:
                console.print(f"DAMAGED {damage.what}: {damage.why}. {damage.remedy}")
            if bar.disable and done * 10 // total > (done - 1) * 10 // total:
                print(f"{what}: {done} of {total} looked at", flush=True)

        yield step


def plain(value: Any) -> str:
    """The value as text that rich takes for nothing else."""
    from rich.markup import escape

    return escape(", ".join(map(str, value)) if isinstance(value, tuple) else str(value))


def when(created: Any) -> str:
    return created.strftime("%Y-%m-%d %H:%M:%S") if created else "?"


def size_of(count: int) -> str:
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}" if units[0] != "B" else f"{count} B"
