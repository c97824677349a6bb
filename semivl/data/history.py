"""History: what a dataset's snapshots say of one another, and of one sample."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semivl.data import snapshot
from semivl.data.checks import sha256_of
from semivl.data.manifest import Manifest, lineage, read_manifest
from semivl.data.merge import PLACE
from semivl.data.sample import Row, key_of
from semivl.data.samples import Samples
from semivl.data.shards import shard_key
from semivl.data.snapshot import Snapshot
from semivl.data.store import Store
from semivl.data.tables import compute, differing, found_in, keys_of, where
from semivl.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


_PNG = b"\x89PNG"


@dataclass(frozen=True)
class Difference:
    """What the later of two snapshots has that the earlier has not, and the other way round."""

    earlier: Manifest
    later: Manifest
    added: "pa.Table"
    """key, split, supervision, source of the samples that only the later has; by key"""
    removed: "pa.Table"
    """the same of those that only the earlier has"""
    changed: "pa.Table"
    """key, source, and `what`: the fields that differ, `place` for those that say where it lies; of those in both"""
    shares: tuple[tuple[float, ...], tuple[float, ...]]
    """of each class, its share of the labelled pixels, in the earlier and in the later"""


@dataclass(frozen=True)
class Event:
    """A version in which something of a sample became different."""

    version: str
    created: datetime | None
    what: str


def log(store: Store, dataset: str, version: str | None = None) -> Iterator[Manifest]:
    """The version (HEAD's) and its parents, newest first, as far back as they are kept.

    Raises:
        DataError: DATA201 there is no snapshot yet, DATA202 no such version.
    """
    return lineage(store, dataset, read_manifest(store, dataset, version).version)


def diff(earlier: Snapshot, later: Snapshot) -> Difference:
    """The difference of two snapshots of one dataset, or of two."""
    old, new = keys_of(earlier.index), keys_of(later.index)
    kept, places = found_in(old, new)
    stayed = np.zeros(len(old), bool)
    stayed[places[kept]] = True
    return Difference(
        earlier.manifest,
        later.manifest,
        added=_told(later.index, ~kept),
        removed=_told(earlier.index, ~stayed),
        changed=_changes(earlier.index.take(places[kept]), later.index.take(np.flatnonzero(kept))),
        shares=(class_shares(earlier), class_shares(later)),
    )


def class_shares(snapshot: Snapshot) -> tuple[float, ...]:
    """Of each class, its share of all labelled pixels of the snapshot; zeros where none is labelled."""
    import pyarrow as pa

    pc = compute()
    pixels, classes = snapshot.index["pixels"].combine_chunks(), len(snapshot.manifest.classes)
    lengths = pc.list_value_length(pixels).fill_null(0).to_numpy()
    pixels = pixels.filter(pa.array(lengths == classes))  # a mask that is counted otherwise is validation's to tell
    totals = pixels.flatten().to_numpy().reshape(-1, classes).sum(axis=0)
    return tuple((totals / max(totals.sum(), 1)).tolist())


def show(store: Store, dataset: str, named: str, version: str | None = None) -> Row:
    """The sample of that key, or of that path, in the version (HEAD's).

    Raises:
        DataError: DATA201, DATA202, DATA203 as `snapshot.read`; DATA211 there is no such sample.
    """
    found = snapshot.read(store, dataset, version)
    row = found.find(named) if len(named) == 16 else None
    rows = [row] if row else list(Samples(where(found.index, "source", [named])))
    if not rows:
        raise DataError(
            "DATA211",
            f"snapshot {found.manifest.version} of {dataset} has no sample {named}.",
            "Give its 16-digit key, or its path relative to the source.",
        )
    return rows[0]


def events(store: Store, dataset: str, key: str, version: str | None = None) -> list[Event]:
    """What became of a sample, newest first, down to the version that it came in, or to the oldest that is kept."""
    found: list[Event] = []
    after: tuple[Manifest, Row] | None = None
    for manifest in log(store, dataset, version):
        row = snapshot.read(store, dataset, manifest.version).find(key)
        if after:
            what = "came" if row is None else _what_changed(row, after[1])
            found += [Event(after[0].version, after[0].created, what)] if what else []
        if row is None:
            return found
        after = manifest, row
    if after:
        what = "came" if after[0].parent is None else "was there; what was before is not kept"
        found.append(Event(after[0].version, after[0].created, what))
    return found


def save(store: Store, dataset: str, row: Row, folder: Path) -> list[Path]:
    """Writes the sample's image and mask as KEY.jpg (or .png) and KEY.mask.png; the files.

    Raises:
        DataError: DATA207 the shard is damaged, so that its bytes are not the sample's; DATA214 the folder cannot be
            written to.
    """
    at = shard_key(dataset, row.shard)
    image = store.get(at, row.image_offset, row.image_bytes)
    whole = key_of(image) == row.key
    files = {folder / f"{row.key}.{'png' if image.startswith(_PNG) else 'jpg'}": image}
    if row.mask_offset is not None and row.mask_bytes is not None:
        mask = store.get(at, row.mask_offset, row.mask_bytes)
        whole = whole and sha256_of(mask) == row.mask_sha256
        files[folder / f"{row.key}.mask.png"] = mask
    if not whole:
        raise DataError(
            "DATA207", f"{store.address(at)} is damaged.", "Run `semivl data verify`, which names what to do."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            path.write_bytes(content)
    except OSError as error:
        raise DataError(
            "DATA214", f"{folder} cannot be written to ({error.strerror}).", "Name another folder."
        ) from None
    return list(files)


def _told(index: "pa.Table", chosen: np.ndarray) -> "pa.Table":
    import pyarrow as pa

    return index.select(["key", "split", "supervision", "source"]).filter(pa.array(chosen))


def _changes(old: "pa.Table", new: "pa.Table") -> "pa.Table":
    """The samples, in the same order in both, of which something differs."""
    import pyarrow as pa

    names = [name for name in old.column_names if name not in PLACE]
    code = np.zeros(len(old), np.int64)
    """a bit for each name that differs, the highest for the place"""
    for bit, name in enumerate(names):
        code |= differing(old[name].combine_chunks(), new[name].combine_chunks()).astype(np.int64) << bit
    for name in PLACE:
        code |= differing(old[name].combine_chunks(), new[name].combine_chunks()).astype(np.int64) << len(names)
    differ = code != 0
    codes, which = np.unique(code[differ], return_inverse=True)
    words = [", ".join(n for bit, n in enumerate([*names, "place"]) if c >> bit & 1) for c in codes.tolist()]
    changed = new.select(["key", "source"]).filter(pa.array(differ))
    return changed.append_column("what", pa.array(words, pa.string()).take(pa.array(which)))


def _what_changed(before: Row, after: Row) -> str:
    """In words, or nothing."""
    names = [f.name for f in fields(Row) if getattr(before, f.name) != getattr(after, f.name)]
    if "mask_sha256" in names:
        words = "gained its mask" if before.mask_sha256 is None else "got another mask"
    elif set(names) <= {*PLACE}:
        words = "moved to another shard"
    else:
        told: dict[str, Any] = {n: getattr(after, n) for n in names if n not in PLACE}
        words = ", ".join(f"{name} became {value!r}" for name, value in told.items())
    return words if names else ""
