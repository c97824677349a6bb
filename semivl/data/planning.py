"""Planning: which of a source's files an ingest has to look at, and what it knows of the others already.

Everything here grows with the whole source, however little of it is new, so that it works on columns, asks each file
one question and the store a handful.
"""

import gc
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from semivl.config import Classes, DataConfig
from semivl.data import snapshot
from semivl.data.checks import Quarantined, as_text
from semivl.data.head import Head, read_head
from semivl.data.layouts import list_named
from semivl.data.ledger import Planned, ledger_key, read_ledger, stamp_of
from semivl.data.listing import infos_of
from semivl.data.names import name_faults
from semivl.data.shards import shard_key, shards_of
from semivl.data.snapshot import Snapshot
from semivl.data.source_files import open_source
from semivl.data.store import Store, open_store
from semivl.data.tables import compute, where
from semivl.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_PASSING = ("DATA001", "DATA030", "DATA031", "DATA032")
"""refusals of what may be sound the next time: permissions, a busy machine, memory that ran out"""
read_once = lru_cache(maxsize=1)(snapshot.read)
"""a snapshot never changes: read once by a process that builds many shards"""


@dataclass(frozen=True)
class Plan:
    """What an ingest has to do, and what it need not do again."""

    groups: tuple[tuple[Planned, ...], ...]
    """`shard_samples` sources each, for a shard each"""
    known: "pa.Table"
    """`outcome_table` of the files that are as the ledger has them"""
    refused: tuple[Quarantined, ...]
    """for their names"""
    tried_before: int
    """of those in groups: refused for what may pass, and not changed since"""


def plan(config: DataConfig, classes: Classes) -> Plan:
    """The source's images that are new or changed, in groups.

    Raises:
        DataError: what `list_named` raises; DATA205 for a first ingest without a single mask.
    """
    store, files = open_store(), open_source(config)
    with _uncollected(), ThreadPoolExecutor(1) as beside:
        asked = beside.submit(_settled, store, config, classes, files.address)
        sources = list_named(config, files)
        current, settled, tried = asked.result()
        if current is None and not any(s.masked for s in sources):
            raise DataError(
                "DATA205",
                f"no image of {files.address} has a mask, and dataset {config.dataset} holds none yet.",
                "Ingest a source with a few masks first; images without come after.",
            )
        names = [as_text(s.image) for s in sources]
        refused = name_faults(names)
        if refused:
            sources = [s for s, name in zip(sources, names, strict=True) if name not in refused]
            names = [name for name in names if name not in refused]
        infos = infos_of(files, [name for s in sources for name in (s.image, s.mask) if name])
        stamps = [stamp_of(s, infos) for s in sources]
        known, is_known = _known(names, stamps, settled)
        look = zip(sources, stamps, is_known, strict=True)
        new = [Planned(s.source(), stamp) for s, stamp, found in look if not found]
        tried_before = sum(_known(names, stamps, tried)[1])
    size = config.shard_samples
    groups = tuple(tuple(new[i : i + size]) for i in range(0, len(new), size))
    return Plan(groups, known, tuple(refused.values()), tried_before)


def current_of(store: Store, dataset: str, classes: Classes) -> tuple[Head | None, Snapshot | None]:
    """HEAD and its snapshot, which is read once by a process; nothing before the first commit.

    Raises:
        DataError: DATA204 other classes than HEAD's.
    """
    head, _ = read_head(store, dataset)
    if head is None:
        return None, None
    current = read_once(store, dataset, head.version)
    snapshot.require_same_classes(dataset, current.manifest.classes, classes)
    return head, current


def _settled(
    store: Store, config: DataConfig, classes: Classes, address: str
) -> tuple[Snapshot | None, "pa.Table", "pa.Table"]:
    """HEAD's snapshot; of the ledger, what need not be looked at where the file did not change: HEAD holds its sample
    in a shard that the store has whole, or it was refused for good; and what was refused for a while."""
    import pyarrow as pa

    ledger, pc = read_ledger(store, ledger_key(config, classes, address)), compute()
    _, current = current_of(store, config.dataset, classes)
    passing = pc.is_in(ledger["code"], pa.array(_PASSING))
    for_good = pc.and_(pc.is_null(ledger["key"]), pc.invert(passing))
    if current is None:
        return None, ledger.filter(for_good), ledger.filter(passing)
    held = where(current.index.select(["key", "shard"]), "shard", _whole_shards(store, current))["key"]
    known = ledger.filter(pc.or_(for_good, pc.is_in(ledger["key"], held.combine_chunks())))
    return current, known, ledger.filter(passing)


def _known(names: list[str], stamps: list[str], settled: "pa.Table") -> tuple["pa.Table", list[bool]]:
    """The rows of `settled` of those names and stamps; for each name whether there is one."""
    import pyarrow as pa

    pc = compute()
    places = pc.index_in(pa.array(names, pa.string()), settled["name"].combine_chunks())
    same = pc.equal(settled["stamp"].combine_chunks().take(places), pa.array(stamps, pa.string())).fill_null(False)
    return settled.take(places.filter(same)), same.to_pylist()


def _whole_shards(store: Store, current: Snapshot) -> Collection[str]:
    """HEAD's shards that the store has, and has whole."""
    dataset = current.manifest.dataset
    sizes = {listed.key: listed.size for listed in store.listed(shards_of(dataset))}
    return [e.sha256 for e in current.manifest.shards if sizes.get(shard_key(dataset, e.sha256)) == e.bytes]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection: a plan makes records by the thousand and no cycles, and would have it look through
    all that the process ever made, which takes longer than the plan."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
