"""Snapshots: immutable versions of a dataset, each an index of samples, a manifest, and a HEAD that moves.

A snapshot's version is a hash of its content, so the same content is the same snapshot wherever and in
whatever order it came. A dataset grows: a commit adds to what HEAD holds and never takes away; only `forget` does. The
manifest is put last and HEAD is moved only from where it was seen, so a killed commit shows nothing and of two at
once none is lost.

The index is one Parquet file, written anew by every commit: at a million samples it is about 65 MB, a thousandth of
their shards, and is made, hashed and put in seconds. Split in parts it would save that, and cost every reader the
question of which parts belong together.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from semivl.config import Classes, DataConfig
from semivl.data.checks import Quarantined
from semivl.data.head import Head, move_head, read_head
from semivl.data.manifest import Manifest, describe, publish, read_manifest, snapshot_key
from semivl.data.merge import Merged, distinct, merged, relocated
from semivl.data.merge import duplicate as duplicate
from semivl.data.merge import stronger as stronger
from semivl.data.sample import Row, Split, Supervision
from semivl.data.samples import Samples
from semivl.data.shards import ShardEntry, shard_key, shards_of
from semivl.data.store import Store
from semivl.data.tables import (
    as_index,
    compute,
    found_in,
    from_parquet,
    index_table,
    keys_of,
    where,
)
from semivl.errors import DataError, SemivlError

if TYPE_CHECKING:
    import pyarrow as pa

ATTEMPTS = 50
"""one writer wins every round, so this many may commit at once"""


@dataclass(frozen=True)
class Snapshot:
    """A manifest and its index, a row a sample, sorted by key."""

    manifest: Manifest
    index: "pa.Table"

    def rows(
        self, split: Split | None = None, supervision: Supervision | Collection[Supervision] | None = None
    ) -> Samples:
        """The samples of a split, of one or several kinds of supervision, of both, or all."""
        table = self.index if split is None else where(self.index, "split", [split])
        if supervision is None:
            return Samples(table)
        return Samples(where(table, "supervision", [supervision] if isinstance(supervision, str) else supervision))

    def captioned(self, split: Split) -> Samples:
        """The samples of a split that have a caption, whatever else is known of them."""
        pc, table = compute(), where(self.index, "split", [split])
        return Samples(table.filter(pc.fill_null(pc.greater(pc.binary_length(table["caption"]), 0), False)))

    def find(self, key: str) -> Row | None:
        """The sample of that key."""
        met, places = found_in(self._keys, np.array([key.encode()]))
        return Samples(self.index.slice(int(places[0]), 1))[0] if met[0] else None

    @cached_property
    def _keys(self) -> np.ndarray:
        return keys_of(self.index)


def head(store: Store, dataset: str) -> str | None:
    """The dataset's current version; None before the first ingest."""
    current, _ = read_head(store, dataset)
    return current and current.version


def forgotten(store: Store, dataset: str) -> frozenset[str]:
    """Keys of the samples that were forgotten: the same bytes are never taken in again."""
    current, _ = read_head(store, dataset)
    return frozenset(current.forgotten) if current else frozenset()


def refused(source: str) -> Quarantined:
    """The record of a file whose sample was forgotten."""
    return Quarantined(source, "DATA208", "its sample was forgotten with `semivl forget`")


def read(store: Store, dataset: str, version: str | None = None) -> Snapshot:
    """The snapshot of that version, of HEAD where None is given.

    Raises:
        DataError: DATA201 there is none yet, DATA202 no such version, DATA203 the index is damaged.
    """
    found = None if version else read_current(store, dataset)[2]
    return found or _read(store, read_manifest(store, dataset, version))


def read_current(
    store: Store, dataset: str, reader: Callable[[Store, str, str], Snapshot] = read
) -> tuple[Head | None, str | None, Snapshot | None]:
    """HEAD, its ETag and its snapshot; nothing at all before the first commit."""
    while True:
        current, etag = read_head(store, dataset)
        try:
            found = reader(store, dataset, current.version) if current else None
        except SemivlError:
            if read_head(store, dataset)[1] == etag:
                raise
            continue  # HEAD moved on, and what it had named was collected
        return current, etag, found


def _read(store: Store, manifest: Manifest) -> Snapshot:
    named = manifest.dataset, manifest.version
    try:
        table = as_index(from_parquet(store.get(snapshot_key(*named, "index.parquet"))))
        whole = table.num_rows == manifest.samples
    except (OSError, ValueError):
        table, whole = None, False
    if table is None or not whole:
        raise DataError(
            "DATA203",
            f"the index of {' '.join(named)} is damaged.",
            "Restore the object from a backup, or ingest into a new dataset name.",
        )
    return Snapshot(manifest, table)


def commit(
    store: Store,
    config: DataConfig,
    classes: Classes,
    tables: Iterable["pa.Table"],
    shards: Iterable[ShardEntry],
    quarantined: Iterable[Quarantined],
    reader: Callable[[Store, str, str], Snapshot] = read,
) -> Manifest:
    """Adds the samples to the dataset and moves HEAD there; HEAD's own manifest where that changes nothing.

    `reader` is `read`, or what remembers its answers. A sample that HEAD knows is replaced, unless the new one
    knows less of it (see `merge`). A shard that no sample lies in any more is not in the manifest. That every shard is
    there is looked at after HEAD was read and before it moves: `semivl gc` says in HEAD what it removes, so that
    nothing can go in between.

    Raises:
        DataError: DATA204 other classes than HEAD's, DATA205 no training sample or no evaluation sample, DATA206 other
            ingests moved HEAD again and again, DATA209 a new shard holds a sample that was forgotten meanwhile,
            DATA210 a shard is gone or about to go.
    """
    import pyarrow as pa

    new, doubled = distinct(as_index(pa.concat_tables([index_table([]), *map(as_index, tables)])))
    entries, left_out = {entry.sha256: entry for entry in shards}, {*quarantined, *doubled}
    for _ in range(ATTEMPTS):
        current, etag, parent = read_current(store, config.dataset, reader)
        if parent:
            require_same_classes(config.dataset, parent.manifest.classes, classes)
        usable, dropped = _without_forgotten(new, current, entries)
        known = {e.sha256: e for e in parent.manifest.shards} if parent else {}
        result = _merged(config.dataset, parent, usable, known | entries)
        _require_both_splits(config.dataset, result.index)
        manifest = describe(config.dataset, classes, result, known | entries, parent and parent.manifest)
        if parent and manifest.version == parent.manifest.version:
            return parent.manifest
        refusals = {*left_out, *dropped}
        manifest = publish(store, manifest.model_copy(update={"quarantined": len(refusals)}), result.index, refusals)
        require_shards(store, manifest, known, current.removing if current else ())
        moved = current.model_copy(update={"version": manifest.version}) if current else Head(version=manifest.version)
        if move_head(store, config.dataset, moved, etag):
            return manifest
    raise DataError("DATA206", f"other ingests keep moving HEAD of {config.dataset}.", "Run semivl-ingest again.")


def require_same_classes(dataset: str, known: Classes, classes: Classes) -> None:
    """DATA204 where the mask ids would mean something else than in the snapshots there are."""
    if known.names == classes.names:
        return
    raise DataError(
        "DATA204",
        f"dataset {dataset} has the classes {', '.join(known.names)}, not {', '.join(classes.names)}.",
        "Use its classes, or ingest into a new dataset name: mask ids cannot change their meaning.",
    )


def require_shards(store: Store, manifest: Manifest, known: Collection[str], removing: Collection[str]) -> None:
    """DATA210 where a shard that HEAD does not name yet is gone, or the snapshot or a shard is about to go."""
    new = {entry.sha256 for entry in manifest.shards} - set(known)
    if manifest.version in removing or not new.isdisjoint(removing):
        raise DataError(
            "DATA210",
            f"`semivl gc` is removing what {manifest.dataset} {manifest.version} would need.",
            "Let it end, or run it again where it was stopped; then run semivl-ingest again.",
        )
    here = set(store.list(shards_of(manifest.dataset))) if new else set()
    gone = sorted(sha256 for sha256 in new if shard_key(manifest.dataset, sha256) not in here)
    if gone:
        raise DataError(
            "DATA210",
            f"{len(gone)} shards of {manifest.dataset} were removed before they were committed, such as {gone[0]}.",
            "Run semivl-ingest again.",
        )


def _without_forgotten(
    new: "pa.Table", current: Head | None, entries: dict[str, ShardEntry]
) -> tuple["pa.Table", list[Quarantined]]:
    """The rows of samples that were not forgotten, and the records of the others."""
    if current is None or not current.forgotten:
        return new, []
    gone = where(new, "key", current.forgotten)
    held = sorted(set(gone["shard"].to_pylist()) & entries.keys())
    if held:
        raise DataError(
            "DATA209",
            f"samples that this ingest put into shard {held[0]} were forgotten meanwhile.",
            "Run semivl-ingest again: it leaves them out.",
        )
    return where(new, "key", current.forgotten, without=True), list(map(refused, gone["source"].to_pylist()))


def _merged(dataset: str, parent: Snapshot | None, new: "pa.Table", shards: Collection[str]) -> Merged:
    known = parent.index if parent else index_table([])
    new, lost = relocated(known, new, shards)
    if lost:
        raise DataError(
            "DATA210",
            f"the shards of {lost} samples of {dataset} were rewritten or removed while it was ingested.",
            "Run semivl-ingest again.",
        )
    return merged(known, new)


def _require_both_splits(dataset: str, index: "pa.Table") -> None:
    """Masks for training are a demand of the methods that learn from them (TRAIN001)."""
    pc = compute()
    if not pc.any(pc.equal(index["split"], "train"), min_count=0).as_py():
        missing, remedy = "training image", "Add images, or name fewer in `evaluation_list`"
    elif not pc.any(pc.equal(index["split"], "val"), min_count=0).as_py():
        missing, remedy = (
            "evaluation image with a usable mask",
            "Give `evaluation_list`, or masks for two images or more",
        )
    else:
        return
    raise DataError(
        "DATA205", f"dataset {dataset} has no {missing}.", f"{remedy}; see the quarantine for those left out."
    )
