"""The split of a sample that neither a list nor a column decides: by the hash of its content, so that it stays as data
grow, whatever else is there."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

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


def with_both_splits(tables: Sequence["pa.Table"], left_open: Collection[str]) -> list["pa.Table"]:
    """The tables of a first ingest, in which at least one of two or more masked samples falls on each side.

    Where the hash leaves evaluation without any, the sample of lowest rank goes there; where it leaves training
    without, that of highest rank. None moves but those of the sources `left_open`, whose split nothing else decides.
    """
    rows = [
        row
        for table in tables
        for row in table.select(["sha256", "split", "supervision", "source"]).to_pylist()
        if row["supervision"] == "mask"
    ]
    masked = {row["sha256"]: row["split"] for row in rows}
    movable = masked.keys() - {row["sha256"] for row in rows if row["source"] not in left_open}
    if len(masked) < 2 or len(set(masked.values())) == 2 or not movable:
        return list(tables)
    to_val = set(masked.values()) == {"train"}
    moved = min(movable, key=rank) if to_val else max(movable, key=rank)
    return [_moved(table, moved, "val" if to_val else "train") for table in tables]


def _moved(table: "pa.Table", sha256: str, split: str) -> "pa.Table":
    """The table with every masked row of those bytes in that split."""
    import pyarrow as pa

    column = [
        split if row["sha256"] == sha256 and row["supervision"] == "mask" else row["split"]
        for row in table.select(["sha256", "split", "supervision"]).to_pylist()
    ]
    return table.set_column(table.schema.get_field_index("split"), "split", pa.array(column, pa.string()))
