"""Collecting garbage: what no kept snapshot names any more goes out of the store.

Kept are HEAD's snapshot, the newest of its line of parents, and those that are pinned; never one that still holds a
forgotten sample. Everything that these do not name goes: snapshots, shards, validations, pages.

An ingest may be under way meanwhile. It puts shards and, at its end, a snapshot that nothing names until HEAD moves:
what is younger than the grace period therefore stays (forgotten samples do not: no commit can name their shards any
more). Shards are named by content, so an ingest may also find that the one it needs is there already, left by one that
was killed long ago. If that went between the ingest's look and its commit, HEAD would name a shard that is gone. So
what is about to go is first written into HEAD, from where HEAD was seen. A commit that read HEAD before cannot move it
any more; one that reads it after refuses what stands there (DATA210); and one that looks at its shards after reading
HEAD knows that none of them can go before it moves HEAD. When all is removed HEAD is cleared again. Killed in between,
the names stay, and the next run finishes. Of two at once the later clears the names of both; the earlier looks at HEAD
once a second and stops when they are gone: an ingest that puts such a shard again within that second is the one thing
left to chance, and `semivl data verify` finds it.
"""

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from semivl.data import snapshot
from semivl.data.head import Head, move_head, read_head
from semivl.data.manifest import find_manifest, lineage
from semivl.data.store import Store
from semivl.data.tables import where
from semivl.errors import DataError, SemivlError

KEEP = 10
"""snapshots kept besides HEAD's"""
GRACE = 24 * 3600.0
"""seconds; longer than any ingest takes from its first shard to its commit"""
_LEDGER_AGE = 30 * 24 * 3600.0
"""seconds after which the ledger of a source that is no longer ingested goes; every ingest writes its own anew"""
_OF_A_VERSION = ("snapshots", "validations", "docs")


@dataclass(frozen=True)
class Garbage:
    """What no kept snapshot names."""

    versions: tuple[str, ...]
    """snapshots that go"""
    shards: tuple[str, ...]
    """shards that go"""
    objects: dict[str, int]
    """bytes of every object that goes, those of the two above among them, by key"""
    holding: tuple[str, ...]
    """of the versions, those that still hold a forgotten sample"""
    waiting: int
    """objects that nothing names either, but are too young to go"""

    @property
    def bytes(self) -> int:
        return sum(self.objects.values())


@dataclass(frozen=True)
class _Found:
    """An object of the dataset."""

    key: str
    bytes: int
    age: float
    """seconds"""
    kind: str
    name: str
    """the shard's hash, the version that the object belongs to, the group of files that an ingest noted, or the
    ledger of a source"""


def collect(
    store: Store,
    dataset: str,
    keep: int | None = KEEP,
    pinned: Collection[str] = (),
    grace: float = GRACE,
    dry_run: bool = False,
) -> Garbage:
    """Removes the dataset's garbage and tells what it was; with `dry_run` only tells.

    `keep` counts snapshots behind HEAD's, all of them where None; `grace` in seconds.

    Raises:
        DataError: DATA201 no snapshot yet, DATA202 no such pinned version, DATA206 ingests moved HEAD again and
            again, DATA212 a pinned version holds a forgotten sample.
    """
    for _ in range(snapshot.ATTEMPTS):
        found = list(_objects(store, dataset))
        current, etag = read_head(store, dataset)
        if current is None:
            raise DataError("DATA201", f"dataset {dataset} has no snapshot yet.", "Run semivl-ingest first.")
        try:
            garbage = _garbage(store, dataset, found, current, keep, pinned, grace)
        except SemivlError:
            if read_head(store, dataset)[1] == etag:
                raise
            continue  # another gc was faster
        if dry_run or not (garbage.objects or current.removing):
            return garbage
        removing = tuple(sorted({*current.removing, *garbage.versions, *garbage.shards}))
        marked = current.model_copy(update={"removing": removing, "collections": current.collections + 1})
        if move_head(store, dataset, marked, etag):
            _remove(store, dataset, garbage)
            _clear(store, dataset, removing)
            return garbage
    raise DataError("DATA206", f"ingests keep moving HEAD of {dataset}.", "Run semivl gc again.")


def drop_cached(folder: Path, shards: Iterable[str]) -> int:
    """Removes this machine's copies of the shards; how many files that were."""
    files = [path for sha256 in shards for path in folder.glob(f"*{sha256}*")]
    for path in files:
        path.unlink(missing_ok=True)
    return len(files)


def _objects(store: Store, dataset: str) -> Iterable[_Found]:
    """What of the dataset belongs to a shard, a version or an ingest under way."""
    prefix, now = f"datasets/{dataset}/", time.time()
    for item in store.listed(prefix):
        kind, _, rest = item.key.removeprefix(prefix).partition("/")
        name = rest.partition("/")[0].partition(".")[0]
        age = now - item.modified.timestamp()
        if name and (kind in ("shards", "groups", *_OF_A_VERSION) or (kind == "ledgers" and age > _LEDGER_AGE)):
            yield _Found(item.key, item.size, age, kind, name)


def _garbage(
    store: Store,
    dataset: str,
    found: list[_Found],
    current: Head,
    keep: int | None,
    pinned: Collection[str],
    grace: float,
) -> Garbage:
    versions = {o.name for o in found if o.kind == "snapshots"}
    known = {v: m for v in sorted(versions) if (m := find_manifest(store, dataset, v))}
    holding = {v for v in known if _holds(store, dataset, v, current.forgotten)}
    _require_pins(dataset, pinned, known, holding)
    line = [m.version for m in lineage(store, dataset, current.version) if m.version not in holding]
    kept = {*line[: None if keep is None else keep + 1], *pinned}
    youngest = {v: min(o.age for o in found if o.kind == "snapshots" and o.name == v) for v in versions}
    at_once = holding | set(current.removing)
    kept |= {v for v in versions if youngest[v] < grace and v not in at_once}
    needed = {entry.sha256 for v in kept & known.keys() for entry in known[v].shards}
    at_once |= {entry.sha256 for v in holding for entry in known[v].shards}
    named = {"shards": needed, "groups": frozenset(), "ledgers": frozenset()}
    unnamed = [o for o in found if o.name not in named.get(o.kind, kept)]
    doomed = [o for o in unnamed if o.age >= grace or o.name in at_once]
    return Garbage(
        versions=tuple(sorted({o.name for o in doomed if o.kind in _OF_A_VERSION})),
        shards=tuple(sorted(o.name for o in doomed if o.kind == "shards")),
        objects={o.key: o.bytes for o in doomed},
        holding=tuple(sorted(holding)),
        waiting=len(unnamed) - len(doomed),
    )


def _holds(store: Store, dataset: str, version: str, forgotten: Collection[str]) -> bool:
    return bool(forgotten) and len(where(snapshot.read(store, dataset, version).index, "key", forgotten)) > 0


def _require_pins(dataset: str, pinned: Collection[str], known: Collection[str], holding: Collection[str]) -> None:
    for version in pinned:
        if version not in known:
            raise DataError("DATA202", f"dataset {dataset} has no snapshot {version}.", "See `semivl data log`.")
        if version in holding:
            raise DataError(
                "DATA212",
                f"snapshot {version} of {dataset} holds samples that were forgotten, so that it cannot be kept.",
                "Leave out its --pin.",
            )


def _remove(store: Store, dataset: str, garbage: Garbage) -> None:
    """Removes the manifests first: a snapshot that can be seen is whole."""
    looked = time.monotonic()
    for key in sorted(garbage.objects, key=lambda k: (not k.endswith("/manifest.json"), k)):
        if time.monotonic() > looked + 1:
            looked, (current, _) = time.monotonic(), read_head(store, dataset)
            if current is None or not {*garbage.versions, *garbage.shards} <= set(current.removing):
                return
        store.delete(key)


def _clear(store: Store, dataset: str, removed: Collection[str]) -> None:
    while True:
        current, etag = read_head(store, dataset)
        if current is None or set(current.removing).isdisjoint(removed):
            return
        left = tuple(name for name in current.removing if name not in set(removed))
        if move_head(store, dataset, current.model_copy(update={"removing": left}), etag):
            return
