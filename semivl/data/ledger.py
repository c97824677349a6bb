"""The ledger of a source: what became of each of its files, so that an ingest opens only those that are new.

It is no part of a snapshot and decides nothing in one: without it an ingest reads every file again and ends in the
same state. A file counts as unchanged while its stamp is (size and change time, or S3's ETag) and while what is asked
of it is: its mask, split, tags and captions, the class map and the limits.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING

from semivl.config import Classes, DataConfig
from semivl.data.checks import Quarantined
from semivl.data.sample import Source
from semivl.data.source_files import FileInfo
from semivl.data.store import Store
from semivl.data.tables import from_parquet, to_parquet
from semivl.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

_FORM = 1
"""to be raised where a check judges otherwise, or a record's columns change: what was noted before is looked at anew"""
_ELSEWHERE = {
    "dataset", "source", "shard_samples", "file_seconds",
    "train_list", "labelled_list", "evaluation_list", "split_table", "split_column", "split_names",
}  # fmt: skip
"""settings that change nothing for a file, or that its Source tells"""


@dataclass(frozen=True)
class Planned:
    """A source to look at, with what it is recognised by."""

    source: Source
    stamp: str


@dataclass(frozen=True)
class Outcome:
    """What became of one image: its key where it is a sample, or why it is none."""

    name: str
    stamp: str
    key: str | None = None
    refused: Quarantined | None = None


def stamp_of(source: Source, files: Mapping[str, FileInfo]) -> str:
    """What the source is recognised by; `files` are the source's, by name."""
    found = [files.get(path.as_posix()) if path else None for path in (source.image, source.mask)]
    asked = json.dumps([vars(source), [f and (f.size, f.stamp) for f in found]], default=str, sort_keys=True)
    return hashlib.blake2b(asked.encode(errors="surrogateescape"), digest_size=12).hexdigest()


def asked_of(config: DataConfig, classes: Classes) -> str:
    """What is asked of every file alike, as text: the class map and the limits."""
    asked = [_FORM, classes.model_dump(mode="json"), config.model_dump(mode="json", exclude=_ELSEWHERE)]
    return json.dumps(asked, sort_keys=True)


def ledger_key(config: DataConfig, classes: Classes, address: str) -> str:
    """Where the ledger of that source lies; another one for other classes or limits."""
    digest = hashlib.sha256(f"{address} {config.layout} {asked_of(config, classes)}".encode()).hexdigest()[:16]
    return f"datasets/{config.dataset}/ledgers/{digest}.parquet"


def read_ledger(store: Store, key: str) -> dict[str, Outcome]:
    """The outcomes by the image's name; none where there is no ledger, or a damaged one."""
    table = find_table(store, key)
    if table is None:
        return {}
    columns = table.to_pydict()
    refused = [columns[f.name] for f in fields(Quarantined)]
    return {
        name: Outcome(name, stamp, sample, None if sample else Quarantined(*why))
        for name, stamp, sample, *why in zip(columns["name"], columns["stamp"], columns["key"], *refused, strict=True)
    }


def find_table(store: Store, key: str) -> "pa.Table | None":
    """The table of that key; None where there is none, or a damaged one."""
    try:
        found = store.get_with_etag(key)
        return from_parquet(found[0]) if found else None
    except OSError:
        return None
    except StoreError as error:
        if error.code != "STORE007":
            raise
        return None


def write_ledger(store: Store, key: str, outcomes: Iterable[Outcome]) -> None:
    """Puts the ledger. The later of two at once wins: what the other knew is looked at again."""
    import pyarrow as pa

    kept = sorted(outcomes, key=lambda o: o.name)
    names = [f.name for f in fields(Quarantined)]
    none = (None,) * len(names)
    why = list(zip(*(astuple(o.refused) if o.refused else none for o in kept), strict=True)) or [()] * len(names)
    columns = {"name": [o.name for o in kept], "stamp": [o.stamp for o in kept], "key": [o.key for o in kept]}
    types = {"bytes": pa.int64()}
    schema = pa.schema([(n, types.get(n, pa.string())) for n in (*columns, *names)])
    store.put(key, to_parquet(pa.table(columns | dict(zip(names, why, strict=True)), schema=schema)))
