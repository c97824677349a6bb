"""What became of one group of sources: recorded when its shard is in the store, so that a killed ingest goes on there.

The records are dropped when the snapshot is committed.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from semivl.config import Classes, DataConfig
from semivl.data.checks import Quarantined
from semivl.data.ledger import Outcome, Planned, asked_of, find_table
from semivl.data.sample import Row
from semivl.data.shards import ShardEntry, shard_key
from semivl.data.store import Store
from semivl.data.tables import index_table, to_parquet

if TYPE_CHECKING:
    import pyarrow as pa

_TOLD = b"semivl"


@dataclass(frozen=True)
class Built:
    """`rows` are those of the group's good samples, as `index_table` makes them."""

    rows: "pa.Table"
    outcomes: tuple[Outcome, ...]
    entry: ShardEntry | None
    """None where nothing in the group was new"""

    @classmethod
    def of(cls, rows: Iterable[Row], outcomes: Iterable[Outcome], entry: ShardEntry | None) -> Self:
        return cls(index_table(rows), tuple(outcomes), entry)


def group_digest(config: DataConfig, classes: Classes, group: Sequence[Planned]) -> str:
    """Names what is asked of which files."""
    asked = [asked_of(config, classes), [[p.source.image.as_posix(), p.stamp] for p in group]]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode(errors="surrogateescape")).hexdigest()[:32]


def keep_group(store: Store, dataset: str, digest: str, version: str | None, built: Built) -> None:
    """Records the group, built on the snapshot of that version; its shard is in the store by then."""
    told = {
        "version": version,
        "outcomes": [asdict(o) for o in built.outcomes],
        "entry": built.entry and built.entry.model_dump(mode="json"),
    }
    store.put(_key(dataset, digest), to_parquet(built.rows.replace_schema_metadata({_TOLD: json.dumps(told)})))


def kept_group(store: Store, dataset: str, digest: str, version: str | None) -> Built | None:
    """The group's record, where there is a whole one, built on that version, and its shard is there still."""
    rows = find_table(store, _key(dataset, digest))
    if rows is None:
        return None
    told = json.loads(rows.schema.metadata[_TOLD])
    if told["version"] != version:
        return None  # what HEAD knows, and has forgotten, may be something else by now
    entry = told["entry"] and ShardEntry.model_validate(told["entry"])
    if entry and store.size(shard_key(dataset, entry.sha256)) != entry.bytes:
        return None
    outcomes = [Outcome(**o | {"refused": o["refused"] and Quarantined(**o["refused"])}) for o in told["outcomes"]]
    return Built(rows.replace_schema_metadata(None), tuple(outcomes), entry)


def drop_groups(store: Store, dataset: str, digests: Iterable[str]) -> None:
    """Forgets the records: what they say stands in a snapshot."""
    for digest in digests:
        store.delete(_key(dataset, digest))


def _key(dataset: str, digest: str) -> str:
    return f"datasets/{dataset}/groups/{digest}.parquet"
