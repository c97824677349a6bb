"""Rows as Arrow tables and Parquet bytes: the same bytes for the same rows."""

import io
from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from semivl.data.checks import Quarantined
from semivl.data.sample import Row

if TYPE_CHECKING:
    import pyarrow as pa


def index_table(rows: Iterable[Row]) -> "pa.Table":
    """The index: a column for each field of Row."""
    import pyarrow as pa

    text, count, size, words = pa.string(), pa.int64(), pa.int32(), pa.list_(pa.string())
    types = dict.fromkeys(("image_offset", "image_bytes", "mask_offset", "mask_bytes", "ignored"), count)
    types |= {
        "width": size,
        "height": size,
        "orientation": pa.int8(),
        "brightness": pa.float64(),
        "tags": words,
        "pixels": pa.list_(count),
    }
    schema = pa.schema([(f.name, types.get(f.name, text)) for f in fields(Row)])
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)


def quarantine_table(refused: Iterable[Quarantined]) -> "pa.Table":
    """The files that were left out: source, code, reason, bytes."""
    import pyarrow as pa

    types = {"bytes": pa.int64()}
    schema = pa.schema([(f.name, types.get(f.name, pa.string())) for f in fields(Quarantined)])
    return pa.Table.from_pylist([asdict(q) for q in refused], schema=schema)


def rows_of(table: "pa.Table") -> list[Row]:
    """The rows that `index_table` was made of."""
    return [Row(**row | {"tags": tuple(row["tags"]), "pixels": tuple(row["pixels"])}) for row in table.to_pylist()]


def where(table: "pa.Table", column: str, value: str) -> "pa.Table":
    """The part of the table that has the value in the column."""
    import pyarrow.compute as pc

    return table.filter(pc.field(column) == value)


def to_parquet(table: "pa.Table") -> bytes:
    """Parquet with a checksum for every page."""
    import pyarrow.parquet as pq

    sink: Any = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def from_parquet(body: bytes) -> "pa.Table":
    """The table of the bytes, whose checksums are compared.

    Raises:
        OSError: the bytes are damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(io.BytesIO(body), page_checksum_verification=True)
    except pa.ArrowException as error:
        raise OSError(f"damaged Parquet: {error}") from None
