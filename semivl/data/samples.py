"""Samples: the rows of a snapshot as a sequence that makes a Row when it is asked for one.

A million rows stay columns: a few hundred megabytes of Arrow, not gigabytes of Python objects. Any index costs the
same few microseconds, so that a permutation may be read in its own order.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from semivl.data.sample import Row
from semivl.data.tables import compute, index_schema, text_of

if TYPE_CHECKING:
    import pyarrow as pa

_LEFT_BEHIND = ("sha256", "mask_sha256", "phash", "pixels", "ignored", "brightness", "source")
_REPEATED = ("shard", "split", "supervision")


class Samples(Sequence[Row]):
    """The rows of an index table, in its order.

    Pickled, it carries what reading and choosing samples takes (where they lie, sizes, split, supervision, tags,
    caption), some 80 bytes a sample; in the copy's rows the hashes, counts and source are None.
    """

    def __init__(self, table: "pa.Table") -> None:
        self._table = table.combine_chunks()

    @property
    def table(self) -> "pa.Table":
        """The rows as columns of the index."""
        return self._table

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> "Samples": ...
    def __getitem__(self, place: int | slice) -> "Row | Samples":
        if isinstance(place, slice):
            return Samples(self._table.take(np.arange(len(self))[place]))
        size = len(self)
        if not -size <= place < size:
            raise IndexError(place)
        return self._row(place % size)

    def __iter__(self) -> Iterator[Row]:
        return map(self._row, range(len(self)))

    def __repr__(self) -> str:
        return f"{len(self)} samples"

    def __getstate__(self) -> dict[str, Any]:
        small = self._table.drop_columns([name for name in _LEFT_BEHIND if name in self._table.column_names])
        for name in _REPEATED:
            place = small.schema.get_field_index(name)
            small = small.set_column(place, name, small[name].combine_chunks().dictionary_encode())
        return {"_table": small}

    def _row(self, place: int) -> Row:
        same, differ = self._values
        row = object.__new__(Row)  # the frozen dataclass' own way costs as much as all that is read here
        fields = row.__dict__
        fields.update(same)
        for name, value in differ:
            fields[name] = value(place)
        return row

    @cached_property
    def _values(self) -> tuple[dict[str, Any], list[tuple[str, Callable[[int], Any]]]]:
        """The fields that are the same in all rows, and what gives the others by their place."""
        same: dict[str, Any] = dict.fromkeys(index_schema().names)
        differ = []
        for name in self._table.column_names:
            column = self._table[name].combine_chunks()
            if _is_constant(column):
                value = column[0].as_py() if len(column) else None
                same[name] = tuple(value) if isinstance(value, list) else value
            else:
                differ.append((name, _values_of(name, column)))
        return same, differ


def _is_constant(column: "pa.Array") -> bool:
    import pyarrow as pa

    pc = compute()
    if column.null_count in (0, len(column)) and pa.types.is_list(column.type):
        return not len(column.flatten())
    if pa.types.is_dictionary(column.type):
        column = column.indices
    return column.null_count == len(column) or (not column.null_count and pc.all(pc.equal(column, column[0])).as_py())


def _values_of(name: str, column: "pa.Array") -> Callable[[int], Any]:
    """What gives a column's value by its place."""
    import pyarrow as pa

    pc = compute()
    if column.null_count:
        present = column.is_valid().to_numpy(zero_copy_only=False)
        packed = np.cumsum(present) - 1
        return partial(_nullable, present.item, packed.item, _values_of(name, column.drop_null()))
    if name in _REPEATED and not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    if pa.types.is_dictionary(column.type):
        return partial(_named, column.dictionary.to_pylist(), column.indices.to_numpy().item)
    if pa.types.is_list(column.type):
        edges = np.concatenate([[0], np.cumsum(pc.list_value_length(column).to_numpy())])
        return partial(_listed, edges.item, column.flatten())
    if pa.types.is_boolean(column.type):
        return column.to_numpy(zero_copy_only=False).item
    if pa.types.is_string(column.type):
        edges, text = text_of(column)
        return partial(_text, edges.item, text)
    return column.to_numpy().item


def _nullable(present: Callable[[int], bool], packed: Callable[[int], int], value: Callable, place: int) -> Any:
    return value(packed(place)) if present(place) else None


def _named(names: list[str], code: Callable[[int], int], place: int) -> str:
    return names[code(place)]


def _listed(edge: Callable[[int], int], values: "pa.Array", place: int) -> tuple[Any, ...]:
    start, end = edge(place), edge(place + 1)
    return tuple(values.slice(start, end - start).to_pylist()) if end > start else ()


def _text(edge: Callable[[int], int], text: memoryview, place: int) -> str:
    return str(text[edge(place) : edge(place + 1)], "utf8")
