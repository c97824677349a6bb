"""Merging: what a dataset holds after samples came to it, worked out on whole columns.

A sample is known by its key. Of two that say different things of it the stronger is kept: evaluation first, so that
none slips into training, then a mask, tags, tags that are complete, a caption; of two as strong the one that came last.
So a sample that gains a mask supersedes its unlabelled self. `tests/data/test_snapshot.py` holds the same in plain
Python.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from semivl.data.checks import Quarantined
from semivl.data.sample import Row
from semivl.data.tables import compute, differing, found_in, keys_of, sorted_by_key

if TYPE_CHECKING:
    import pyarrow as pa

PLACE = ("shard", "image_offset", "mask_offset")
"""the columns that say where a sample lies, and nothing of the sample"""


@dataclass(frozen=True)
class Merged:
    """An index sorted by key, and how many of its samples are new, or known with something else said of them."""

    index: "pa.Table"
    added: int
    changed: int


def stronger(row: Row) -> tuple[bool, ...]:
    """How much is known of a sample, to be compared: evaluation first, so that none slips into training."""
    return row.split == "val", row.supervision == "mask", bool(row.tags), row.tags_complete, bool(row.caption)


def strength(table: "pa.Table") -> np.ndarray:
    """(n,) `stronger` of every sample as a number, 0 to 31."""
    pc = compute()
    facts = (
        pc.equal(table["split"], "val"),
        pc.equal(table["supervision"], "mask"),
        pc.greater(pc.list_value_length(table["tags"]), 0),
        table["tags_complete"],
        pc.greater(pc.binary_length(table["caption"]), 0),
    )
    bits = [pc.fill_null(fact, False).to_numpy(zero_copy_only=False).astype(np.int8) for fact in facts]
    return np.packbits(np.stack([np.zeros_like(bits[0])] * 3 + bits), axis=0)[0].astype(np.int8)


def duplicate(source: str, of: str) -> Quarantined:
    """The record of a file whose bytes another file has too."""
    return Quarantined(source, "DATA011", f"the same bytes as {of}")


def distinct(table: "pa.Table") -> tuple["pa.Table", list[Quarantined]]:
    """One row a key, the strongest, then the first by path, sorted by key; the others as quarantined duplicates."""
    import pyarrow as pa

    pc = compute()
    names = ("key", "weakness", "source", "shard", "image_offset")  # the last two: whatever order the rows came in
    asked = table.append_column("weakness", pa.array(-strength(table))).select(names)
    table = table.take(pc.sort_indices(asked, sort_keys=[(name, "ascending") for name in names]))
    keys = keys_of(table)
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    kept = np.flatnonzero(first)[np.cumsum(first)[~first] - 1]
    others, of = table["source"].filter(pa.array(~first)).to_pylist(), table["source"].take(kept).to_pylist()
    return table.filter(pa.array(first)), list(map(duplicate, others, of))


def merged(known: "pa.Table", new: "pa.Table") -> Merged:
    """The samples of both, each table sorted by key and with a key once.

    A known sample is replaced, unless the new row knows less of it, or the same but for the path it came by.
    """
    import pyarrow as pa

    met, places = found_in(keys_of(known), keys_of(new))
    old, offered = known.take(places[met]), new.filter(pa.array(met))
    stays = (strength(old) > strength(offered)) | ~changed(old, offered, except_for=("source",))
    outdated, useless = np.zeros(len(known), bool), met.copy()
    outdated[places[met][~stays]] = True
    useless[np.flatnonzero(met)[~stays]] = False
    kept = known.filter(pa.array(~outdated)) if outdated.any() else known
    index = pa.concat_tables([kept, new.filter(pa.array(~useless))]).combine_chunks()
    return Merged(index if useless.all() else sorted_by_key(index), int((~met).sum()), int((~stays).sum()))


def changed(left: "pa.Table", right: "pa.Table", except_for: Collection[str] = ()) -> np.ndarray:
    """(n,) bool: where rows of two tables of the same samples differ in any other column."""
    differs = np.zeros(len(left), bool)
    for name in left.column_names:
        if name not in except_for:
            differs |= differing(left[name].combine_chunks(), right[name].combine_chunks())
    return differs


def relocated(known: "pa.Table", new: "pa.Table", shards: Collection[str]) -> tuple["pa.Table", int]:
    """The new rows, those in none of the shards with the place that the known row of the same bytes has.

    So an ingest that recognised samples goes on where their shard was rewritten meanwhile; where more is known of
    one by now, its row is left out. Both tables are sorted by key. Also gives how many rows have no place at all.
    """
    import pyarrow as pa

    pc = compute()
    here = pc.is_in(new["shard"], value_set=pa.array(list(shards), pa.string())).combine_chunks()
    lost = new.filter(pc.invert(here))
    if not len(lost):
        return new, 0
    met, places = found_in(keys_of(known), keys_of(lost))
    found, moved = known.take(places[met]), lost.filter(pa.array(met))
    for name in PLACE:
        moved = moved.set_column(moved.schema.get_field_index(name), name, found[name])
    bytes_of = ["sha256", "mask_sha256"]
    same = ~changed(found.select(bytes_of), moved.select(bytes_of))
    weaker = strength(found) > strength(moved)
    kept = [new.filter(here), moved.filter(pa.array(same & ~weaker))]
    return sorted_by_key(pa.concat_tables(kept)), len(lost) - int((same | weaker).sum())
