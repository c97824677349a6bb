"""Forgetting: samples leave a dataset for good, their bytes with them.

`forget` writes the shards that hold them anew without them, commits a snapshot of the rest, and notes their keys in
HEAD, so that no later ingest takes the same bytes in again. All of that becomes visible in one move of HEAD: killed
before it, nothing has happened; run again, it ends in the same state. An ingest that is under way meanwhile cannot
bring them back: its commit finds that HEAD moved, reads it again, drops known rows of the samples, takes over the new
places of their neighbours, and gives up (DATA209) where it has put one of them into a new shard.

The bytes are then still in the store, in shards that older snapshots name: `garbage.collect` removes both, whatever is
to be kept otherwise. What a shard holds beyond the index (a sample's unlabelled self, from before it gained a mask) is
looked for too: a shard that counts more samples than the index names in it is opened and searched.
"""

import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from semivl.data import snapshot
from semivl.data.head import move_head
from semivl.data.manifest import Manifest, describe, publish
from semivl.data.merge import Merged
from semivl.data.sample import Row
from semivl.data.samples import Samples
from semivl.data.shards import ShardEntry, keys_in, rewrite_shard, sha256_of_file, shard_key
from semivl.data.snapshot import Snapshot
from semivl.data.store import Store
from semivl.data.tables import index_table, sorted_by_key, where
from semivl.errors import DataError
from semivl.settings import home

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Forgotten:
    """What `forget` did."""

    manifest: Manifest
    """of the snapshot without the samples"""
    sources: tuple[str, ...]
    """the paths that they came by, whose files are still there; empty where all were forgotten before"""
    shards: tuple[str, ...]
    """the shards that hold them, which the snapshot names no more"""


def keys_named(store: Store, dataset: str, source: str) -> list[str]:
    """Keys of all samples that came by that path, relative to their source: several where its bytes changed.

    Raises:
        DataError: DATA201 no snapshot yet, DATA211 none came by that path.
    """
    found = where(snapshot.read(store, dataset).index, "source", [source])["key"].to_pylist()
    if not found:
        raise DataError(
            "DATA211",
            f"dataset {dataset} has no sample that came as {source}; those that were forgotten are not there either.",
            "Give its path relative to the source, or 16-digit keys.",
        )
    return found


def forget(
    store: Store, dataset: str, keys: Collection[str], tell: Callable[[str], None] = lambda _: None
) -> Forgotten:
    """Moves HEAD to a snapshot without the samples; `tell` hears what is being done.

    Raises:
        DataError: DATA201 no snapshot yet, DATA206 ingests moved HEAD again and again, DATA207 a shard to rewrite is
            damaged, DATA210 a `semivl gc` is at work on the same, DATA211 the dataset has no such sample.
    """
    scratch = home() / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for _ in range(snapshot.ATTEMPTS):
            current, etag, parent = snapshot.read_current(store, dataset)
            if current is None or parent is None:
                raise DataError("DATA201", f"dataset {dataset} has no snapshot yet.", "Run semivl-ingest first.")
            wanted = sorted(set(keys) - set(current.forgotten))
            if not wanted:
                return Forgotten(parent.manifest, (), ())
            gone = where(parent.index, "key", wanted)
            _require_all(dataset, wanted, gone)
            rewriter = _Rewriter(store, dataset, Path(folder), tell)
            held = rewriter.holding(parent, wanted, set(gone["shard"].to_pylist()))
            manifest = _publish(store, parent, rewriter, wanted, held)
            known = {entry.sha256 for entry in parent.manifest.shards}
            snapshot.require_shards(store, manifest, known, current.removing)
            forgotten = tuple(sorted({*current.forgotten, *wanted}))
            moved = current.model_copy(update={"version": manifest.version, "forgotten": forgotten})
            if move_head(store, dataset, moved, etag):
                return Forgotten(manifest, tuple(sorted(gone["source"].to_pylist())), tuple(sorted(held)))
    raise DataError("DATA206", f"ingests keep moving HEAD of {dataset}.", "Run semivl forget again.")


def _require_all(dataset: str, wanted: list[str], gone: "pa.Table") -> None:
    unknown = sorted(set(wanted) - set(gone["key"].to_pylist()))
    if unknown:
        raise DataError(
            "DATA211",
            f"dataset {dataset} has no sample {', '.join(unknown)}.",
            "Give 16-digit keys, as `semivl data show NAME` tells them, or paths with --source.",
        )


def _publish(store: Store, parent: Snapshot, rewriter: "_Rewriter", wanted: list[str], held: set[str]) -> Manifest:
    """The snapshot without the samples, put but not current yet."""
    import pyarrow as pa

    rest = where(parent.index, "key", wanted, without=True)
    entries = {entry.sha256: entry for entry in parent.manifest.shards}
    tables = [where(rest, "shard", held, without=True)]
    for sha256 in sorted(held):
        entry, rows = rewriter.rewritten(sha256, Samples(where(rest, "shard", [sha256])))
        if entry:
            entries[entry.sha256] = entry
            tables.append(index_table(rows))
    index = sorted_by_key(pa.concat_tables(tables).combine_chunks())
    known = parent.manifest
    manifest = describe(
        known.dataset, known.classes, Merged(index, 0, 0), entries, known, removed=len(wanted), maker="forget"
    )
    return publish(store, manifest, index, [])


class _Rewriter:
    """Shards of one dataset, fetched once each and written anew."""

    def __init__(self, store: Store, dataset: str, folder: Path, tell: Callable[[str], None]) -> None:
        self.store, self.dataset, self.folder, self.tell = store, dataset, folder, tell

    def holding(self, parent: Snapshot, keys: Collection[str], named: set[str]) -> set[str]:
        """The shards that hold one of the samples: those that the index names for them, and others that do still."""
        counted = parent.index["shard"].value_counts().to_pylist()
        used = {count["values"]: count["counts"] for count in counted}
        crowded = [e.sha256 for e in parent.manifest.shards if e.samples > used[e.sha256] and e.sha256 not in named]
        return named | {sha256 for sha256 in crowded if not keys_in(self._fetched(sha256)).isdisjoint(keys)}

    def rewritten(self, sha256: str, rows: Samples) -> tuple[ShardEntry | None, list[Row]]:
        """The shard with those samples alone, put into the store, and their rows there; None where none is left."""
        path = self.folder / "new.tar"
        new, placed = rewrite_shard(self._fetched(sha256), rows, path)
        if not placed:
            return None, []
        assert len(placed) == len(rows)  # the old shard's bytes are what its name says
        self.store.put_if_absent(shard_key(self.dataset, new), path)
        self.tell(f"shard {sha256[:16]} written anew as {new[:16]}, {len(placed)} samples")
        return ShardEntry(sha256=new, bytes=path.stat().st_size, samples=len(placed)), placed

    def _fetched(self, sha256: str) -> Path:
        path = self.folder / f"{sha256}.tar"
        if path.exists():
            return path
        self.store.download(shard_key(self.dataset, sha256), path)
        if sha256_of_file(path) != sha256:
            raise DataError(
                "DATA207",
                f"{self.store.address(shard_key(self.dataset, sha256))} is damaged: it is not what its name says.",
                "Delete it and run semivl-ingest, which writes it again; then forget.",
            )
        return path
