"""Verification: every byte that a snapshot names, against the hash that it was named by.

A shard's name is the hash of its bytes, an image's and a mask's hashes stand in the index, and the snapshot's version
is the hash of the index. So damage has no place to hide, wherever it happened: on disk, on the way, by hand.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semivl.data.manifest import version_of
from semivl.data.sample import Row
from semivl.data.samples import Samples
from semivl.data.shards import ShardEntry, sha256_of_file, shard_key, shards_of
from semivl.data.snapshot import Snapshot
from semivl.data.store import Store
from semivl.errors import StoreError
from semivl.settings import home

_LOST = {"STORE003": "it is not there", "STORE007": "its bytes are not those that were put"}
_RESTORE = "Restore the snapshot's records from a backup, or ingest into a new dataset name."


@dataclass(frozen=True)
class Damage:
    """What is not as it should be, why, and what to do."""

    what: str
    why: str
    remedy: str


@dataclass(frozen=True)
class Looked:
    """What was found of the index, or of one shard."""

    bytes: int
    """that were read"""
    samples: int
    """whose image and mask were compared"""
    damages: tuple[Damage, ...]


def verify(store: Store, snapshot: Snapshot, quick: bool = False) -> Iterator[Looked]:
    """Looks at the index, then at every shard; `quick` at the shards' sizes alone, of which none is read."""
    yield Looked(0, 0, tuple(_index_damages(snapshot)))
    manifest, scratch = snapshot.manifest, home() / "tmp"
    sizes = {item.key: item.size for item in store.listed(shards_of(manifest.dataset))}
    shards = _by_shard(snapshot)
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for entry in manifest.shards:
            shard = _Shard(store, manifest.dataset, entry, shards.get(entry.sha256))
            yield shard.sized(sizes) or (Looked(0, 0, ()) if quick else shard.read(Path(folder) / "shard.tar"))


def _index_damages(snapshot: Snapshot) -> Iterator[Damage]:
    manifest = snapshot.manifest
    named = f"index of {manifest.dataset} {manifest.version}"
    hashed = manifest.created is not None  # before 0.2 versions were hashes of other words
    if hashed and version_of(manifest.dataset, manifest.classes, snapshot.index) != manifest.version:
        yield Damage(named, "its content is not what the version is the hash of", _RESTORE)
    unknown = set(snapshot.index["shard"].unique().to_pylist()) - {entry.sha256 for entry in manifest.shards}
    for sha256 in sorted(unknown):
        yield Damage(named, f"it names shard {sha256}, which the manifest does not", _RESTORE)


def _by_shard(snapshot: Snapshot) -> dict[str, Samples]:
    shards = snapshot.index["shard"].combine_chunks().dictionary_encode()
    codes = shards.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[order], np.arange(len(shards.dictionary) + 1))
    table = snapshot.index.take(order)
    names = shards.dictionary.to_pylist()
    return {name: Samples(table.slice(edges[n], edges[n + 1] - edges[n])) for n, name in enumerate(names)}


class _Shard:
    """One shard under examination."""

    def __init__(self, store: Store, dataset: str, entry: ShardEntry, samples: Samples | None) -> None:
        self.store, self.dataset, self.entry, self.samples = store, dataset, entry, samples or ()
        self.key = shard_key(dataset, entry.sha256)

    def sized(self, sizes: dict[str, int]) -> Looked | None:
        """What is wrong as far as its size tells; None where nothing is."""
        found = sizes.get(self.key)
        if found == self.entry.bytes:
            return None
        why = "it is not there" if found is None else f"it has {found} bytes, not {self.entry.bytes}"
        return Looked(0, 0, (self._damage(why),))

    def read(self, path: Path) -> Looked:
        """What is wrong with its bytes."""
        try:
            self.store.download(self.key, path)
        except StoreError as error:
            if error.code not in _LOST:
                raise
            return Looked(0, 0, (self._damage(_LOST[error.code]),))
        handle = os.open(path, os.O_RDONLY)
        try:
            parts = [f"{part} of {row.key} ({row.source})" for row in self.samples for part in _other(handle, row)]
        finally:
            os.close(handle)
        damages = []
        if sha256_of_file(path) != self.entry.sha256:
            among = f", among it the {', the '.join(parts)}" if parts else ""
            damages.append(self._damage(f"its content is not what its name is the hash of{among}"))
        elif parts:
            damages.append(Damage(f"index of {self.dataset}", f"it is wrong of the {', the '.join(parts)}", _RESTORE))
        return Looked(self.entry.bytes, len(self.samples), tuple(damages))

    def _damage(self, why: str) -> Damage:
        first = f", such as {self.samples[0].source}" if self.samples else ""
        remedy = f"Delete it and run semivl-ingest on the source of its {len(self.samples)} samples{first}."
        return Damage(self.store.address(self.key), why, remedy)


def _other(shard: int, row: Row) -> Iterator[str]:
    """Which of the sample's files are not what the index says."""
    parts = {"image": (row.image_offset, row.image_bytes, row.sha256)}
    if row.mask_offset is not None:
        parts["mask"] = (row.mask_offset, row.mask_bytes or 0, row.mask_sha256 or "")
    for part, (offset, length, sha256) in parts.items():
        if hashlib.sha256(os.pread(shard, length, offset)).hexdigest() != sha256:
            yield part
