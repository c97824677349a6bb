"""Tables: rows as Arrow columns, what is compared and hashed of them, and Parquet: the same bytes for the same rows.

Nothing here makes a Python object for a row but `index_table`, which ingest feeds with a shard's rows.
"""

import hashlib
import io
from collections.abc import Callable, Collection, Iterable
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from semivl.data.checks import Quarantined
from semivl.data.sample import Row

if TYPE_CHECKING:
    import pyarrow as pa

_REPEATED = ["shard", "split", "supervision", "tags.list.element", "code"]
"""columns whose values recur; in the others a dictionary would only be made and thrown away"""


@cache
def index_schema() -> "pa.Schema":
    """A column for each field of Row."""
    import pyarrow as pa

    text, count, size, words = pa.string(), pa.int64(), pa.int32(), pa.list_(pa.string())
    types = dict.fromkeys(("image_offset", "image_bytes", "mask_offset", "mask_bytes", "ignored"), count)
    types |= {
        "width": size,
        "height": size,
        "orientation": pa.int8(),
        "brightness": pa.float64(),
        "tags": words,
        "tags_complete": pa.bool_(),
        "pixels": pa.list_(count),
    }
    return pa.schema([(f.name, types.get(f.name, text)) for f in fields(Row)])


def index_table(rows: Iterable[Row]) -> "pa.Table":
    """The index of the rows, in their order."""
    import pyarrow as pa

    kept = list(rows)
    columns = {name: [getattr(row, name) for row in kept] for name in index_schema().names}
    return pa.table(columns, schema=index_schema())


def as_index(table: "pa.Table") -> "pa.Table":
    """The table in the index's columns and types, each in one piece; where an older index has no such column, null, or
    False where that is what it meant."""
    import pyarrow as pa

    def column(field: "pa.Field") -> Any:
        if field.name in table.column_names:
            return table[field.name].cast(field.type)
        if pa.types.is_boolean(field.type):
            return pa.array(np.zeros(len(table), bool))
        return pa.nulls(len(table), field.type)

    columns = [column(field) for field in index_schema()]
    return pa.table(columns, schema=index_schema()).combine_chunks()


def quarantine_table(refused: Iterable[Quarantined]) -> "pa.Table":
    """The files that were left out: source, code, reason, bytes."""
    import pyarrow as pa

    kept, types = list(refused), {"bytes": pa.int64()}
    schema = pa.schema([(f.name, types.get(f.name, pa.string())) for f in fields(Quarantined)])
    return pa.table({name: [getattr(q, name) for q in kept] for name in schema.names}, schema=schema)


def compute() -> Any:
    """pyarrow.compute, whose functions are made on import and so unknown to a type checker."""
    import pyarrow.compute

    return pyarrow.compute


def where(table: "pa.Table", column: str, values: Collection[str], without: bool = False) -> "pa.Table":
    """The part of the table that has one of the values in the column, or none of them."""
    import pyarrow as pa

    pc = compute()
    has = pc.is_in(table[column], value_set=pa.array(list(values), pa.string()))
    return table.filter(pc.invert(has) if without else has)


def keys_of(table: "pa.Table") -> np.ndarray:
    """(n,) S16, the column `key`."""
    import pyarrow as pa

    keys = table["key"].cast(pa.binary()).cast(pa.binary(16)).combine_chunks()
    return np.frombuffer(keys.buffers()[1] or b"", "S16")[keys.offset : keys.offset + len(keys)]


def sorted_by_key(table: "pa.Table") -> "pa.Table":
    return table.take(np.argsort(keys_of(table), kind="stable"))


def found_in(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every wanted key, whether it is among the sorted keys, and where."""
    if not len(keys):
        return np.zeros(len(wanted), bool), np.zeros(len(wanted), np.int64)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return keys[places] == wanted, places


def differing(left: "pa.Array", right: "pa.Array") -> np.ndarray:
    """(n,) bool: where two columns of the same type differ; null is like null alone."""
    import pyarrow as pa

    pc = compute()
    if not pa.types.is_list(left.type):
        same = pc.fill_null(pc.equal(left, right), False)
        both_null = pc.and_(pc.is_null(left), pc.is_null(right))
        return ~_numpy(pc.or_(same, both_null))
    lengths = [_numpy(pc.list_value_length(c).fill_null(-1)) for c in (left, right)]
    differ = lengths[0] != lengths[1]
    comparable = pa.array(~differ & (lengths[0] > 0))
    left, right = left.filter(comparable), right.filter(comparable)
    owner = np.repeat(np.flatnonzero(comparable), pc.list_value_length(left))
    differ[owner[differing(left.flatten(), right.flatten())]] = True
    return differ


def content_hash(about: str, table: "pa.Table") -> str:
    """Sixteen hex digits of the text and of what the table says, whatever way it is laid out in memory or file.

    Every column goes in as its name, which of its values are null, the lengths of those that have one, and all the
    values on end (text as UTF-8, numbers as 64 bits, the lowest byte first). Chunks, dictionaries, widths of
    numbers, what stands behind a null and Parquet's version leave no trace in that. The order of the rows does.
    A column of truths in which none is true leaves no trace either: an older index lacks it and means the same.
    """
    import pyarrow as pa

    digest = hashlib.sha256(about.encode())
    digest.update(len(table).to_bytes(8, "little"))
    table = as_index(table)
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_boolean(column.type) and not column.true_count:
            continue
        digest.update(name.encode())
        _feed(digest.update, column)
    return digest.hexdigest()[:16]


def _feed(update: Callable[[Any], None], column: "pa.Array") -> None:
    import pyarrow as pa

    pc = compute()
    update(np.packbits(_numpy(column.is_null())))
    if pa.types.is_list(column.type):
        update(_numpy(pc.list_value_length(column).fill_null(0)).astype("<i8"))
        _feed(update, column.flatten())
    elif pa.types.is_string(column.type):
        update(_numpy(pc.binary_length(column).fill_null(0)).astype("<i8"))
        update(text_of(column.drop_null())[1])
    else:
        wide = "<f8" if pa.types.is_floating(column.type) else "<i8"
        nothing = False if pa.types.is_boolean(column.type) else 0
        update(_numpy(column.fill_null(nothing)).astype(wide))


def text_of(column: "pa.Array") -> tuple[np.ndarray, memoryview]:
    """Of a column of text without nulls: (n + 1,) int64 where each value begins and the last ends, and the UTF-8."""
    _, offsets, data = column.buffers()
    if offsets is None or not len(column):
        return np.zeros(1, np.int64), memoryview(b"")
    edges = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    return edges - edges[0], memoryview(data or b"")[edges[0] : edges[-1]]


def to_parquet(table: "pa.Table") -> bytes:
    """Parquet with a checksum for every page."""
    import pyarrow.parquet as pq

    sink: Any = io.BytesIO()
    repeated: Any = [name for name in _REPEATED if name.partition(".")[0] in table.column_names]
    options = {"compression": "zstd", "use_dictionary": repeated, "write_page_checksum": True}
    pq.write_table(table.combine_chunks(), sink, **options)
    return sink.getvalue()


def from_parquet(body: bytes) -> "pa.Table":
    """The table of the bytes, whose checksums are compared.

    Raises:
        OSError: the bytes are damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(pa.BufferReader(body), page_checksum_verification=True)
    except pa.ArrowException as error:
        raise OSError(f"damaged Parquet: {error}") from None


def _numpy(column: Any) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False)
