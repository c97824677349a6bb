"""Rows of a source's tables, as `semivl.data.columns` takes them apart: CSV, tabs, JSONL, Parquet.

In a CSV quotes hold a cell together. Between tabs nothing has to be held together: there a quote is a character like
others, but for a cell that is quoted as a whole.
"""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from semivl.errors import DataError

SURPLUS = None
"""the key of a row's cells for which the table has no column"""


def rows(name: str, data: bytes, kind: str) -> Iterator[tuple[int, Any]]:
    """Number and content of each row of a table of that ending; the first line of a row where it has several.

    Raises:
        DataError: DATA105 quotes of a CSV that are not closed, or not doubled within a cell; DATA108 no such table.
    """
    try:
        if kind == ".jsonl":
            yield from _jsonl(data)
        elif kind == ".parquet":
            yield from enumerate(_parquet(data), start=1)
        else:
            yield from _separated(name, data.decode("utf-8-sig"), tabs=kind == ".tsv")
    except (UnicodeDecodeError, OSError, ValueError) as error:
        remedy = "Save it as a CSV in UTF-8 with a header, as JSONL or as Parquet, and name it so."
        raise DataError("DATA108", f"{name} cannot be read as a table ({error}).", remedy) from None


def _separated(name: str, text: str, *, tabs: bool) -> Iterator[tuple[int, dict[str | None, Any]]]:
    """Rows by the header's names. A cell that a row lacks is None; nameless columns at the header's end are none."""
    header: list[str] = []
    for number, cells in _cells(name, text, tabs=tabs):
        if not cells:
            continue
        if not header:
            header = cells
            while header and not header[-1].strip():
                header.pop()
            continue
        row: dict[str | None, Any] = {**dict.fromkeys(header), **dict(zip(header, cells, strict=False))}
        surplus = [cell for cell in cells[len(header) :] if cell.strip()]
        yield number, row | {SURPLUS: surplus} if surplus else row


def _cells(name: str, text: str, *, tabs: bool) -> Iterator[tuple[int, list[str]]]:
    """The first line and the cells of each row."""
    file = io.StringIO(text, newline="")
    reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(file, strict=True)
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            remedy = (
                "Shorten the cell." if tabs else "Close the cell's quotes, and double those that are part of its text."
            )
            raise DataError("DATA105", f"line {first} of {name} cannot be used ({error}).", remedy) from None
        yield first, [_unquoted(cell) for cell in cells] if tabs else cells


def _unquoted(cell: str) -> str:
    """What quotes around all of a cell hold, with the doubled ones within made single; any other cell as it is."""
    within = cell[1:-1].replace('""', "")
    if len(cell) < 2 or not cell.startswith('"') or not cell.endswith('"') or '"' in within:
        return cell
    return cell[1:-1].replace('""', '"')


def _jsonl(data: bytes) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(data.splitlines(), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                yield number, None


def _parquet(data: bytes) -> Iterator[dict[str, Any]]:
    from pyarrow import parquet

    for batch in parquet.ParquetFile(io.BytesIO(data)).iter_batches():
        yield from batch.to_pylist()
