"""The split of a sample that neither a list nor a column decides: by the hash of its content, so that it stays as data
grow, whatever else is there."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from semivl.data.sample import Split

if TYPE_CHECKING:
    import pyarrow as pa

_DIGITS = 13
"""hex digits of the hash's end: 52 bits, all that a float holds"""


def split_of(sha256: str, masked: bool, share: float) -> Split:
    """`val` for a share of the samples with masks; those without are for training."""
    return "val" if masked and rank(sha256) < share else "train"


def rank(sha256: str) -> float:
    """The content's place in [0, 1)."""
    return int(sha256[-_DIGITS:], 16) / 16**_DIGITS


def with_both_splits(tables: Sequence["pa.Table"]) -> list["pa.Table"]:
    """The tables of a first ingest, in which at least one of two or more masked samples falls on each side.

    Where the hash leaves evaluation without any, the sample of lowest rank goes there; where it leaves training
    without, that of highest rank.
    """
    masked = {
        (table_at, row_at): (rank(row["sha256"]), row["split"])
        for table_at, table in enumerate(tables)
        for row_at, row in enumerate(table.select(["sha256", "split", "supervision"]).to_pylist())
        if row["supervision"] == "mask"
    }
    splits = {split for _, split in masked.values()}
    if len(masked) < 2 or len(splits) == 2:
        return list(tables)
    if splits == {"train"}:
        moved, split = min(masked, key=lambda at: masked[at]), "val"
    else:
        moved, split = max(masked, key=lambda at: masked[at]), "train"
    return [_moved(table, moved[1], split) if at == moved[0] else table for at, table in enumerate(tables)]


def _moved(table: "pa.Table", at: int, split: str) -> "pa.Table":
    import pyarrow as pa

    column = np.asarray(table["split"].to_pylist(), dtype=object)
    column[at] = split
    return table.set_column(table.schema.get_field_index("split"), "split", pa.array(column, pa.string()))
