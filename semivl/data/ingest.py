"""Ingest: a source folder becomes shards, and the shards a snapshot. Pure steps that the flow maps.

plan -> build_shard for each group, in any process and order -> snapshot.commit. Every step may be killed and
run again: shards are named by content, and nothing is visible before the commit moves HEAD. What HEAD holds
already is recognised by its bytes, neither decoded nor written again.
"""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from semivl.config import Classes, DataConfig
from semivl.data import snapshot
from semivl.data.checks import Checked, Files, Quarantined, examine, name_of, read_files, sha256_of, supervision_of
from semivl.data.layouts import list_sources, source_folder
from semivl.data.sample import Row, Source
from semivl.data.shards import ShardEntry, shard_key, write_shard
from semivl.data.snapshot import Manifest, Snapshot
from semivl.data.store import Store, open_store
from semivl.data.tables import index_table
from semivl.errors import DataError
from semivl.settings import home

_STALE = 24 * 3600
_read = lru_cache(maxsize=1)(snapshot.read)
"""a snapshot never changes: read once by a process that builds many shards"""


@dataclass(frozen=True)
class ShardResult:
    """What became of one group of sources. `entry` is None where nothing in it was new."""

    rows: tuple[Row, ...]
    quarantined: tuple[Quarantined, ...]
    entry: ShardEntry | None


def plan(config: DataConfig) -> list[list[Source]]:
    """The source's images in groups of `shard_samples`, a shard each.

    Raises:
        DataError: what `list_sources` raises; DATA205 for a first ingest without a single mask.
    """
    sources = list_sources(config)
    if not any(s.mask for s in sources) and snapshot.head(open_store(), config.dataset) is None:
        raise DataError(
            "DATA205",
            f"no image of {source_folder(config)} has a mask, and dataset {config.dataset} holds none yet.",
            "Ingest a source with a few masks first; images without come after.",
        )
    return [sources[i : i + config.shard_samples] for i in range(0, len(sources), config.shard_samples)]


def build_shard(config: DataConfig, classes: Classes, sources: list[Source]) -> ShardResult:
    """Checks a group of sources and puts those that are good and new into the store as one shard.

    Raises:
        DataError: DATA204 other classes than HEAD's.
    """
    store = open_store()
    builder = _Builder(config, classes, store, _current(store, config.dataset, classes))
    with tempfile.TemporaryDirectory(dir=_scratch()) as folder:
        path = Path(folder) / "shard.tar"
        sha256, written = write_shard(builder.new_samples(sources), path)
        entry = None
        if written:
            entry = ShardEntry(sha256=sha256, bytes=path.stat().st_size, samples=len(written))
            store.put_if_absent(shard_key(config.dataset, sha256), path)
    return ShardResult((*builder.known, *written), tuple(builder.quarantined), entry)


def ingest(config: DataConfig, classes: Classes) -> Manifest:
    """The whole ingest in this process; what the flow does with a task for each shard."""
    results = [build_shard(config, classes, group) for group in plan(config)]
    return commit(config, classes, results)


def commit(config: DataConfig, classes: Classes, results: list[ShardResult]) -> Manifest:
    """The snapshot of what the shards hold."""
    return snapshot.commit(
        open_store(),
        config,
        classes,
        tables=[index_table(r.rows) for r in results],
        shards=[r.entry for r in results if r.entry],
        quarantined=[q for r in results for q in r.quarantined],
    )


class _Builder:
    """One group on its way into a shard: what is known, what is left out, and the rest as it is read."""

    def __init__(self, config: DataConfig, classes: Classes, store: Store, current: Snapshot | None) -> None:
        self.config, self.classes, self.store, self.current = config, classes, store, current
        self.known: list[Row] = []
        self._whole: dict[str, bool] = {}
        self.quarantined: list[Quarantined] = []

    def new_samples(self, sources: list[Source]) -> Iterator[Checked]:
        """Those to write. Strongest first: of files with the same bytes the first that passes is kept."""
        root, seen = source_folder(self.config), dict[str, str]()
        for source in sorted(sources, key=_strongest_first):
            files = read_files(source, root)
            if isinstance(files, Quarantined):
                self.quarantined.append(files)
                continue
            key = hashlib.sha256(files.image).hexdigest()[:16]
            if key in seen:
                self.quarantined.append(snapshot.duplicate(name_of(source.image), seen[key]))
                continue
            row = self._known(key, source, files)
            found = examine(source, files, self.classes, self.config.max_pixels) if row is None else row
            if isinstance(found, Quarantined):
                self.quarantined.append(found)
                continue
            seen[key] = name_of(source.image)
            if isinstance(found, Checked):
                yield found
            else:
                self.known.append(found)

    def _known(self, key: str, source: Source, files: Files) -> Row | None:
        """HEAD's row for the source, where HEAD holds the same or more of it; else None."""
        row = self.current.find(key) if self.current else None
        if row is None or not self._shard_is_whole(row.shard):
            return None
        same = replace(row, source=name_of(source.image))
        offered = replace(
            same,
            split=source.split,
            supervision=supervision_of(source),
            tags=source.tags,
            caption=source.caption,
        )
        if snapshot.stronger(row) > snapshot.stronger(offered):
            return same
        if (offered.supervision, offered.tags, offered.caption) != (row.supervision, row.tags, row.caption):
            return None
        return offered if sha256_of(files.mask) == row.mask_sha256 else None

    def _shard_is_whole(self, sha256: str) -> bool:
        """Whether the store still has the shard; one that somebody deleted is written again."""
        if sha256 not in self._whole and self.current:
            entry = next(e for e in self.current.manifest.shards if e.sha256 == sha256)
            self._whole[sha256] = self.store.size(shard_key(self.config.dataset, sha256)) == entry.bytes
        return self._whole[sha256]


def _scratch() -> Path:
    """The folder for shards in the making, without what a killed ingest left there a day ago or earlier."""
    scratch = home() / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    for old in scratch.iterdir():
        with suppress(FileNotFoundError):  # another ingest was faster
            if time.time() - old.stat().st_mtime > _STALE:
                shutil.rmtree(old, ignore_errors=True)
    return scratch


def _strongest_first(source: Source) -> tuple[bool, bool, bool, bool, str]:
    return (
        source.split != "val",
        not source.mask,
        not source.tags,
        not source.caption,
        source.image.as_posix(),
    )


def _current(store: Store, dataset: str, classes: Classes) -> Snapshot | None:
    version = snapshot.head(store, dataset)
    if version is None:
        return None
    current = _read(store, dataset, version)
    snapshot.require_same_classes(dataset, current.manifest.classes, classes)
    return current
