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
from semivl.data.sample import Named, Source
from semivl.data.source_files import FileInfo
from semivl.data.store import Store
from semivl.data.tables import compute, from_parquet, to_parquet
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


def stamp_of(named: Named, files: Mapping[str, FileInfo]) -> str:
    """What a source is recognised by; `files` are those of it that are there, by name."""
    image, mask = files.get(named.image), files.get(named.mask) if named.mask else None
    asked = ascii((*named, image and (image.size, image.stamp), mask and (mask.size, mask.stamp)))
    return hashlib.blake2b(asked.encode(), digest_size=12).hexdigest()


def asked_of(config: DataConfig, classes: Classes) -> str:
    """What is asked of every file alike, as text: the class map and the limits."""
    asked = [_FORM, classes.model_dump(mode="json"), config.model_dump(mode="json", exclude=_ELSEWHERE)]
    return json.dumps(asked, sort_keys=True)


def ledger_key(config: DataConfig, classes: Classes, address: str) -> str:
    """Where the ledger of that source lies; another one for other classes or limits."""
    digest = hashlib.sha256(f"{address} {config.layout} {asked_of(config, classes)}".encode()).hexdigest()[:16]
    return f"datasets/{config.dataset}/ledgers/{digest}.parquet"


def read_ledger(store: Store, key: str) -> "pa.Table":
    """The outcomes as `outcome_table` has them; none where there is no ledger, or a damaged one."""
    found = find_table(store, key)
    return found if found is not None and found.schema.equals(_schema()) else outcome_table([])


def outcome_table(outcomes: Iterable[Outcome]) -> "pa.Table":
    """A row an outcome: name, stamp, key, and where there is none the fields of why it was refused."""
    import pyarrow as pa

    none = (None,) * len(fields(Quarantined))
    rows = [(o.name, o.stamp, o.key, *(astuple(o.refused) if o.refused else none)) for o in outcomes]
    columns = zip(*rows, strict=True) if rows else [()] * len(_schema())
    return pa.table(dict(zip(_schema().names, columns, strict=True)), _schema())


def refused_in(outcomes: "pa.Table") -> list[Quarantined]:
    """Why those of the table were refused that were."""
    refused = outcomes.filter(compute().is_null(outcomes["key"])).select([f.name for f in fields(Quarantined)])
    return [Quarantined(**row) for row in refused.to_pylist()]


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


def write_ledger(store: Store, key: str, outcomes: Iterable["pa.Table"]) -> None:
    """Puts the ledger. The later of two at once wins: what the other knew is looked at again."""
    import pyarrow as pa

    store.put(key, to_parquet(pa.concat_tables(outcomes).sort_by("name")))


def _schema() -> "pa.Schema":
    import pyarrow as pa

    names = ("name", "stamp", "key", *(f.name for f in fields(Quarantined)))
    return pa.schema([(name, pa.int64() if name == "bytes" else pa.string()) for name in names])
