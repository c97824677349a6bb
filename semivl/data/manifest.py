"""The manifest of a snapshot: what it holds, where its records lie, and how they are put."""

import json
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from semivl import __version__
from semivl.config import Classes, Record
from semivl.data.checks import Quarantined
from semivl.data.head import read_head
from semivl.data.merge import Merged
from semivl.data.shards import ShardEntry
from semivl.data.store import Store
from semivl.data.tables import content_hash, from_parquet, quarantine_table, to_parquet
from semivl.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


class Manifest(Record):
    """What a snapshot holds. The dataset, the classes and the index decide the version, nothing else."""

    dataset: str
    version: str
    parent: str | None
    classes: Classes
    shards: tuple[ShardEntry, ...]
    samples: int
    counts: dict[str, int]
    """samples by split (`train`, `val`) and by split and supervision (`train/mask`, `train/none`, ...)"""
    quarantined: int
    """files that the ingest which made this snapshot left out"""
    created_by: str
    created: datetime | None = None
    """None, as the three below, in snapshots of before 0.2"""
    added: int | None = None
    """samples that the parent has not"""
    changed: int | None = None
    """samples of which the parent says something else"""
    removed: int | None = None
    """samples of the parent that were forgotten"""

    @property
    def digest(self) -> str:
        return self.version


def read_manifest(store: Store, dataset: str, version: str | None = None) -> Manifest:
    """The manifest of that version, of HEAD where None is given.

    Raises:
        DataError: DATA201 there is none yet, DATA202 no such version.
    """
    chosen = version or _current(store, dataset)
    if chosen is None:
        raise DataError("DATA201", f"dataset {dataset} has no snapshot yet.", "Run semivl-ingest first.")
    manifest = find_manifest(store, dataset, chosen)
    if manifest is None:
        raise DataError(
            "DATA202",
            f"dataset {dataset} has no snapshot {chosen}.",
            f"The current one is {_current(store, dataset)}; `semivl data log` lists them.",
        )
    return manifest


def find_manifest(store: Store, dataset: str, version: str) -> Manifest | None:
    """The manifest of that version; None where there is none."""
    found = store.get_with_etag(snapshot_key(dataset, version, "manifest.json"))
    return Manifest.model_validate_json(found[0]) if found else None


def read_quarantine(store: Store, manifest: Manifest) -> list[Quarantined]:
    """What the ingest that made the snapshot left out."""
    found = store.get_with_etag(snapshot_key(manifest.dataset, manifest.version, "quarantine.parquet"))
    return [Quarantined(**row) for row in from_parquet(found[0]).to_pylist()] if found else []


def lineage(store: Store, dataset: str, version: str) -> Iterator[Manifest]:
    """The manifest of that version and those of its parents, newest first, as far back as they are kept."""
    seen = set()
    while version not in seen and (manifest := find_manifest(store, dataset, version)):
        yield manifest
        if manifest.parent is None:
            return
        seen.add(version)  # a snapshot that was collected may come again, with another parent
        version = manifest.parent


def describe(
    dataset: str,
    classes: Classes,
    result: Merged,
    entries: dict[str, ShardEntry],
    parent: Manifest | None,
    removed: int = 0,
    maker: str = "",
) -> Manifest:
    """The manifest of an index; `entries` has at least the shards that its samples lie in."""
    return Manifest(
        dataset=dataset,
        version=version_of(dataset, classes, result.index),
        parent=parent.version if parent else None,
        classes=classes,
        shards=tuple(entries[sha256] for sha256 in sorted(result.index["shard"].unique().to_pylist())),
        samples=len(result.index),
        counts=_counts(result.index),
        quarantined=0,
        created_by=f"semivl {__version__} {maker}".strip(),
        created=datetime.now(UTC).replace(microsecond=0),
        added=result.added,
        changed=result.changed,
        removed=removed,
    )


def version_of(dataset: str, classes: Classes, index: "pa.Table") -> str:
    """The version of a snapshot of that content; the index is sorted by key."""
    return content_hash(json.dumps([dataset, classes.model_dump(mode="json")], sort_keys=True), index)


def publish(store: Store, manifest: Manifest, index: "pa.Table", left_out: Collection[Quarantined]) -> Manifest:
    """Puts the records, the manifest last; the manifest that is there, if another writer of it was first."""
    at = manifest.dataset, manifest.version
    refusals = sorted(left_out, key=lambda q: (q.source, q.code, q.reason))
    tables = {"index.parquet": index, "quarantine.parquet": quarantine_table(refusals)}
    with ThreadPoolExecutor(len(tables)) as puts:
        put = {puts.submit(store.put_if_absent, snapshot_key(*at, name), to_parquet(t)) for name, t in tables.items()}
        for each in put:
            each.result()
    body = json.dumps(manifest.model_dump(mode="json"), sort_keys=True, indent=1).encode()
    if store.put_if_absent(snapshot_key(*at, "manifest.json"), body):
        return manifest
    return find_manifest(store, *at) or manifest


def snapshot_key(dataset: str, version: str, name: str) -> str:
    """Where a record of a snapshot lies in the store."""
    return f"datasets/{dataset}/snapshots/{version}/{name}"


def _current(store: Store, dataset: str) -> str | None:
    current, _ = read_head(store, dataset)
    return current.version if current else None


def _counts(index: "pa.Table") -> dict[str, int]:
    counts: dict[str, int] = {}
    groups = index.group_by(["split", "supervision"]).aggregate([([], "count_all")])
    for group in groups.to_pylist():
        for name in (group["split"], f"{group['split']}/{group['supervision']}"):
            counts[name] = counts.get(name, 0) + group["count_all"]
    return dict(sorted(counts.items()))
