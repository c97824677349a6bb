"""Snapshots: immutable versions of a dataset, each an index of samples, a manifest, and a HEAD that moves.

A snapshot's version is a hash of its content, so the same content is the same snapshot wherever and in
whatever order it came. A dataset grows: a commit adds to what HEAD holds and never takes away. The manifest
is put last and HEAD is moved only from where it was seen, so a killed commit shows nothing and of two at
once none is lost.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from semivl import __version__
from semivl.config import Classes, DataConfig, Record
from semivl.data.checks import Quarantined
from semivl.data.sample import Row, Split, Supervision
from semivl.data.shards import ShardEntry
from semivl.data.store import Store
from semivl.data.tables import from_parquet, index_table, quarantine_table, rows_of, to_parquet, where
from semivl.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_ATTEMPTS = 50
"""one writer wins every round, so this many may commit at once"""


class Manifest(Record):
    """What a snapshot holds. Everything but the parent, the quarantine and the maker decides the version."""

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

    @property
    def digest(self) -> str:
        return self.version


@dataclass(frozen=True)
class Snapshot:
    """A manifest and its index, a row a sample, sorted by key."""

    manifest: Manifest
    index: "pa.Table"

    def rows(self, split: Split | None = None, supervision: Supervision | None = None) -> list[Row]:
        """The samples of a split, of a kind of supervision, of both, or all."""
        table = self.index if split is None else where(self.index, "split", split)
        return rows_of(table if supervision is None else where(table, "supervision", supervision))

    def find(self, key: str) -> Row | None:
        """The sample of that key."""
        at = int(np.searchsorted(self._keys, key.encode()))
        if at == len(self._keys) or self._keys[at] != key.encode():
            return None
        return rows_of(self.index.slice(at, 1))[0]

    @cached_property
    def _keys(self) -> np.ndarray:
        return self.index["key"].to_numpy(zero_copy_only=False).astype("S16")


def head(store: Store, dataset: str) -> str | None:
    """The dataset's current version; None before the first ingest."""
    return _head(store, dataset)[0]


def read(store: Store, dataset: str, version: str | None = None) -> Snapshot:
    """The snapshot of that version, of HEAD where None is given.

    Raises:
        DataError: DATA201 there is none yet, DATA202 no such version, DATA203 the index is damaged.
    """
    chosen = version or head(store, dataset)
    if chosen is None:
        raise DataError("DATA201", f"dataset {dataset} has no snapshot yet.", "Run semivl-ingest first.")
    manifest = _manifest(store, dataset, chosen)
    if manifest is None:
        raise DataError(
            "DATA202",
            f"dataset {dataset} has no snapshot {chosen}.",
            f"The current one is {head(store, dataset)}.",
        )
    try:
        table = from_parquet(store.get(_key(dataset, chosen, "index.parquet")))
        whole = table.num_rows == manifest.samples
    except OSError:
        table, whole = None, False
    if table is None or not whole:
        raise DataError(
            "DATA203",
            f"the index of {dataset} {chosen} is damaged.",
            "Restore the object from a backup, or ingest into a new dataset name.",
        )
    return Snapshot(manifest, table)


def commit(
    store: Store,
    config: DataConfig,
    classes: Classes,
    rows: Iterable[Row],
    shards: Iterable[ShardEntry],
    quarantined: Iterable[Quarantined],
) -> Manifest:
    """Adds the samples to the dataset and moves HEAD there; HEAD's own manifest where that changes nothing.

    A sample that HEAD knows is replaced, unless the new one knows less of it (see `stronger`).

    Raises:
        DataError: DATA204 other classes than HEAD's, DATA205 no training sample with a mask or no evaluation
            sample, DATA206 other ingests moved HEAD again and again.
    """
    new, doubled = distinct(rows)
    refused = sorted({*quarantined, *doubled}, key=lambda q: (q.source, q.code, q.reason))
    entries = {entry.sha256: entry for entry in shards}
    for _ in range(_ATTEMPTS):
        version, etag = _head(store, config.dataset)
        parent = read(store, config.dataset, version) if version else None
        manifest, merged = _merged(config.dataset, classes, parent, new, entries, len(refused))
        if manifest.version == version and parent:
            return parent.manifest
        manifest = _publish(store, manifest, merged, refused)
        moved = json.dumps({"version": manifest.version}).encode()
        if store.put_if_match(_head_key(config.dataset), moved, etag):
            return manifest
    raise DataError("DATA206", f"other ingests keep moving HEAD of {config.dataset}.", "Run semivl-ingest again.")


def distinct(rows: Iterable[Row]) -> tuple[dict[str, Row], list[Quarantined]]:
    """One row a key, the strongest, then the first by path; the others as quarantined duplicates."""
    kept: dict[str, Row] = {}
    doubled = []
    for row in sorted(rows, key=lambda r: (*(not s for s in stronger(r)), r.source)):
        if row.key in kept:
            doubled.append(duplicate(row.source, kept[row.key].source))
        else:
            kept[row.key] = row
    return kept, doubled


def duplicate(source: str, of: str) -> Quarantined:
    """The record of a file whose bytes another file has too."""
    return Quarantined(source, "DATA011", f"the same bytes as {of}")


def stronger(row: Row) -> tuple[bool, bool, bool, bool]:
    """How much is known of a sample, to be compared: evaluation first, so that none slips into training."""
    return row.split == "val", row.supervision == "mask", bool(row.tags), bool(row.caption)


def require_same_classes(dataset: str, known: Classes, classes: Classes) -> None:
    """DATA204 where the mask ids would mean something else than in the snapshots there are."""
    if known.names == classes.names:
        return
    raise DataError(
        "DATA204",
        f"dataset {dataset} has the classes {', '.join(known.names)}, not {', '.join(classes.names)}.",
        "Use its classes, or ingest into a new dataset name: mask ids cannot change their meaning.",
    )


def _merged(
    dataset: str,
    classes: Classes,
    parent: Snapshot | None,
    new: dict[str, Row],
    entries: dict[str, ShardEntry],
    quarantined: int,
) -> tuple[Manifest, list[Row]]:
    merged = {row.key: row for row in parent.rows()} if parent else {}
    if parent:
        require_same_classes(dataset, parent.manifest.classes, classes)
        entries = {e.sha256: e for e in parent.manifest.shards} | entries
    for key, row in new.items():
        merged[key] = _chosen(merged.get(key), row)
    rows = [merged[key] for key in sorted(merged)]
    _require_both_splits(dataset, rows)
    used = sorted({row.shard for row in rows})
    manifest = Manifest(
        dataset=dataset,
        version=_version(dataset, classes, rows),
        parent=parent.manifest.version if parent else None,
        classes=classes,
        shards=tuple(entries[sha256] for sha256 in used),
        samples=len(rows),
        counts=_counts(rows),
        quarantined=quarantined,
        created_by=f"semivl {__version__}",
    )
    return manifest, rows


def _chosen(known: Row | None, row: Row) -> Row:
    if known is None:
        return row
    if stronger(known) > stronger(row) or replace(row, source=known.source) == known:
        return known
    return row


def _require_both_splits(dataset: str, rows: list[Row]) -> None:
    if not any(r.split == "train" and r.supervision == "mask" for r in rows):
        missing, remedy = "training image with a usable mask", "Draw masks for a few images"
    elif not any(r.split == "val" for r in rows):
        missing, remedy = (
            "evaluation image with a usable mask",
            "Give `evaluation_list`, or masks for two images or more",
        )
    else:
        return
    raise DataError(
        "DATA205", f"dataset {dataset} has no {missing}.", f"{remedy}; see the quarantine for those left out."
    )


def _counts(rows: list[Row]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        for name in (row.split, f"{row.split}/{row.supervision}"):
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def _version(dataset: str, classes: Classes, rows: list[Row]) -> str:
    digest = hashlib.sha256(json.dumps([dataset, classes.model_dump(mode="json")], sort_keys=True).encode())
    for row in rows:
        digest.update(json.dumps(asdict(row), sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _publish(store: Store, manifest: Manifest, rows: list[Row], refused: list[Quarantined]) -> Manifest:
    """Puts the records, the manifest last; the manifest that is there, if another writer of it was first."""
    at = manifest.dataset, manifest.version
    store.put_if_absent(_key(*at, "index.parquet"), to_parquet(index_table(rows)))
    store.put_if_absent(_key(*at, "quarantine.parquet"), to_parquet(quarantine_table(refused)))
    body = json.dumps(manifest.model_dump(mode="json"), sort_keys=True, indent=1).encode()
    if store.put_if_absent(_key(*at, "manifest.json"), body):
        return manifest
    return _manifest(store, *at) or manifest


def _manifest(store: Store, dataset: str, version: str) -> Manifest | None:
    found = store.get_with_etag(_key(dataset, version, "manifest.json"))
    return Manifest.model_validate_json(found[0]) if found else None


def _head(store: Store, dataset: str) -> tuple[str | None, str | None]:
    """HEAD's version and ETag; nothing twice before the first commit."""
    found = store.get_with_etag(_head_key(dataset))
    return (json.loads(found[0])["version"], found[1]) if found else (None, None)


def _head_key(dataset: str) -> str:
    return f"datasets/{dataset}/HEAD"


def _key(dataset: str, version: str, name: str) -> str:
    return f"datasets/{dataset}/snapshots/{version}/{name}"
