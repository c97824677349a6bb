"""Ingest: a source becomes shards, and the shards a snapshot. Pure steps that the flow maps.

plan -> build_shard for each group, in any process, machine and order -> commit. Every step may be killed and run again:
shards are named by content, a finished group is recorded and not done twice, and nothing is visible before the commit
moves HEAD. Which groups there are follows from the source and its ledger alone, so the snapshot is the same, byte for
byte, whatever works on it. Files that the ledger knows are not opened; what HEAD holds already is neither decoded nor
written again.
"""

import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from semivl.config import Classes, DataConfig
from semivl.data import snapshot
from semivl.data.check_pool import shared_pool
from semivl.data.checks import Checked, Files, Limits, Quarantined, name_of, sha256_of, supervision_of
from semivl.data.groups import Built, drop_groups, group_digest, keep_group, kept_group
from semivl.data.ledger import Outcome, Planned, ledger_key, outcome_table, refused_in, write_ledger
from semivl.data.planning import Plan, current_of, read_once
from semivl.data.planning import plan as plan
from semivl.data.sample import Row, Source
from semivl.data.shards import ShardEntry, shard_key, write_shard
from semivl.data.snapshot import Manifest
from semivl.data.source_files import open_source, read_raw, with_class_ids
from semivl.data.splits import split_of, with_both_splits
from semivl.data.store import Store, open_store
from semivl.data.tables import where
from semivl.errors import DataError
from semivl.settings import home

if TYPE_CHECKING:
    import pyarrow as pa

_STALE = 24 * 3600
_WORDS = ("supervision", "tags", "tags_complete", "caption")
"""the fields of a row that say what a source tells of its image, but for the mask"""
_BYTES_A_PIXEL = 12
"""that a worker may need: a picture in three colours, turned, in grey, and what decoding takes"""


def build_shard(config: DataConfig, classes: Classes, group: tuple[Planned, ...]) -> Built:
    """Checks a group of sources and puts those that are good and new into the store as one shard.

    Raises:
        DataError: DATA204 other classes than HEAD's.
    """
    store = open_store()
    builder = _Builder(config, classes, store)
    version = builder.head and builder.head.version
    digest = group_digest(config, classes, group)
    built = kept_group(store, config.dataset, digest, version)
    if built:
        return built
    with tempfile.TemporaryDirectory(dir=_scratch()) as folder:
        path = Path(folder) / "shard.tar"
        sha256, written = write_shard(builder.new_samples(group), path)
        entry = None
        if written:
            entry = ShardEntry(sha256=sha256, bytes=path.stat().st_size, samples=len(written))
            key = shard_key(config.dataset, sha256)
            if not store.put_if_absent(key, path, sha256) and store.size(key) != entry.bytes:
                store.put(key, path)  # somebody cut the one that was there
    built = Built.of([*builder.known, *written], builder.outcomes, entry)
    keep_group(store, config.dataset, digest, version, built)
    return built


def commit(config: DataConfig, classes: Classes, planned: Plan, built: Iterable[Built]) -> Manifest:
    """The snapshot of what the shards hold; the ledger of the source with it.

    Raises:
        DataError: what `snapshot.commit` raises; DATA205 a first ingest can use none of the training masks it found.
    """
    store, results = open_store(), list(built)
    outcomes = [planned.known, outcome_table(o for b in results for o in b.outcomes)]
    tables = [b.rows for b in results]
    sources = [one.source for group in planned.groups for one in group]
    if snapshot.head(store, config.dataset) is None:
        tables = with_both_splits(tables, {name_of(source.image) for source in sources if source.split is None})
        if any(source.masked and source.split == "train" for source in sources):
            _require_training_mask(config, tables)
    entries = [b.entry for b in results if b.entry]
    ledger = ledger_key(config, classes, open_source(config).address)
    manifest = snapshot.commit(store, config, classes, tables, entries, left_out(planned, results), read_once)
    with ThreadPoolExecutor(1) as beside:
        written = beside.submit(write_ledger, store, ledger, outcomes)
        drop_groups(store, config.dataset, (group_digest(config, classes, group) for group in planned.groups))
        written.result()
    return manifest


def _require_training_mask(config: DataConfig, tables: list["pa.Table"]) -> None:
    if not any(len(where(where(table, "split", ["train"]), "supervision", ["mask"])) for table in tables):
        what = f"none of the training masks that {config.source} has can be used."
        raise DataError("DATA205", what, "Look into the quarantine, which names a code for each, and mend them.")


def left_out(planned: Plan, built: Iterable[Built]) -> list[Quarantined]:
    """Every file of the source that is no sample, those that an earlier ingest left out included."""
    new = (o.refused for b in built for o in b.outcomes if o.refused)
    return [*planned.refused, *refused_in(planned.known), *new]


def ingest(config: DataConfig, classes: Classes, workers: int | None = None) -> Manifest:
    """The whole ingest in this process, `workers` shards at once; what the flow does with a task for each shard."""
    planned = plan(config, classes)
    with ThreadPoolExecutor(workers or os.cpu_count()) as threads:
        built = list(threads.map(lambda group: build_shard(config, classes, group), planned.groups))
    return commit(config, classes, planned, built)


class _Builder:
    """One group on its way into a shard: what is known, what is left out, and the rest as it is read."""

    def __init__(self, config: DataConfig, classes: Classes, store: Store) -> None:
        self.config, self.classes, self.store = config, classes, store
        self.head, self.current = current_of(store, config.dataset, classes)
        self.forgotten = frozenset(self.head.forgotten) if self.head else frozenset()
        self.known: list[Row] = []
        self.outcomes: list[Outcome] = []
        self._whole: dict[str, bool] = {}

    def new_samples(self, group: Iterable[Planned]) -> Iterator[Checked]:
        """Those to write. Strongest first: of files with the same bytes the first that passes is kept."""
        seen: dict[str, str] = {}
        pool = shared_pool(self.classes, *_bounds(self.config))
        examined: deque[Planned] = deque()
        ordered = sorted(group, key=lambda p: _strongest_first(p.source))
        for found in pool.examine(self._unknown(ordered, examined)):
            one = examined.popleft()
            if isinstance(found, Checked) and found.row.key in seen:
                found = snapshot.duplicate(found.row.source, seen[found.row.key])
            if isinstance(found, Quarantined):
                self._refuse(one, found)
                continue
            seen[found.row.key] = found.row.source
            self._keep(one, found.row.key)
            yield found

    def _unknown(self, group: Iterable[Planned], examined: deque[Planned]) -> Iterator[tuple[Source, Files]]:
        """Those whose bytes HEAD does not hold yet, read; each is noted in `examined`."""
        files, limits = open_source(self.config), Limits.of(self.config)
        for one in group:
            read = read_raw(files, one.source, limits)
            if isinstance(read, Quarantined):
                self._refuse(one, read)
                continue
            sha256 = read.sha256
            source = self._with_split(one.source, sha256)
            if sha256[:16] in self.forgotten:
                self._refuse(one, snapshot.refused(name_of(source.image)))
                continue
            row = self._held(sha256[:16])
            if row and self._tells_less(row, source):
                self._keep(one, row.key)
            elif row and (offered := self._offered(row, source, read)):
                self.known.append(offered)
                self._keep(one, row.key)
            else:
                examined.append(one)
                yield source, read

    def _with_split(self, source: Source, sha256: str) -> Source:
        if source.split:
            return source
        held = self.current.find(sha256[:16]) if self.current and source.masked else None
        if held and held.supervision == "mask":
            return replace(source, split=held.split)
        return replace(source, split=split_of(sha256, source.masked, self.config.evaluation_share))

    def _refuse(self, one: Planned, why: Quarantined) -> None:
        self.outcomes.append(Outcome(name_of(one.source.image), one.stamp, refused=why))

    def _keep(self, one: Planned, key: str) -> None:
        self.outcomes.append(Outcome(name_of(one.source.image), one.stamp, key=key))

    def _held(self, key: str) -> Row | None:
        """HEAD's row of that key, where the store has its shard."""
        row = self.current.find(key) if self.current else None
        return row if row and self._shard_is_whole(row.shard) else None

    def _tells_less(self, row: Row, source: Source) -> bool:
        """Whether HEAD knows more of the sample than the source does, which then says nothing of it."""
        return snapshot.stronger(row) > snapshot.stronger(_told_by(row, source))

    def _offered(self, row: Row, source: Source, raw: Files) -> Row | None:
        """HEAD's row as the source has it, where image, mask and words are HEAD's; else None."""
        offered = _told_by(row, source)
        if any(getattr(offered, name) != getattr(row, name) for name in _WORDS):
            return None
        files = with_class_ids(source, raw, self.classes, Limits.of(self.config))
        same_mask = isinstance(files, Files) and sha256_of(files.mask) == row.mask_sha256
        return offered if same_mask else None

    def _shard_is_whole(self, sha256: str) -> bool:
        """Whether the store still has the shard; one that somebody deleted is written again."""
        if sha256 not in self._whole and self.current:
            entry = next(e for e in self.current.manifest.shards if e.sha256 == sha256)
            self._whole[sha256] = self.store.size(shard_key(self.config.dataset, sha256)) == entry.bytes
        return self._whole[sha256]


def _told_by(row: Row, source: Source) -> Row:
    """The row with what the source says of its sample."""
    return replace(
        row,
        source=name_of(source.image),
        split=source.split,
        supervision=supervision_of(source),
        tags=source.tags,
        tags_complete=source.tags_complete,
        caption=source.caption,
    )


def _bounds(config: DataConfig) -> tuple[Limits, int, int, float]:
    """What a pool is made with: limits, workers, bytes and CPU seconds for a file."""
    return Limits.of(config), os.cpu_count() or 1, _BYTES_A_PIXEL * config.max_pixels, config.file_seconds


def _scratch() -> Path:
    """The folder for shards in the making, without what a killed ingest left there a day ago or earlier."""
    scratch = home() / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    for old in scratch.iterdir():
        with suppress(FileNotFoundError):  # another ingest was faster
            if time.time() - old.stat().st_mtime > _STALE:
                shutil.rmtree(old, ignore_errors=True)
    return scratch


def _strongest_first(source: Source) -> tuple[bool, bool, bool, bool, bool, str]:
    return (
        source.split != "val",
        not source.masked,
        not source.tags,
        not source.tags_complete,
        not source.caption,
        source.image.as_posix(),
    )
