"""Columns: what tables of a source say of its images: tags, captions, splits. CSV, JSONL, Parquet, COCO's captions."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

from semivl.config import DataConfig
from semivl.data.coco_json import captions_of
from semivl.data.lists import find_file
from semivl.data.source_files import SourceFiles
from semivl.data.table_rows import SURPLUS, rows
from semivl.errors import DataError

SplitName = Literal["train", "val", "out"]
"""what a source calls an image's split; `out`: neither learned from nor scored"""

_IMAGE = ("image", "file_name", "filename", "image_name", "path", "file")
_COMPLETE = "complete"
_CAPTION = ("caption", "text")
_TAGS = ("tags", "tag", "labels", "label")
"""names of the columns, the first that a table has"""
_SPLITS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "out",
    "testing": "out",
}


class Tags(NamedTuple):
    """What tables say of an image's tags."""

    names: list[str]
    complete: bool | None
    """whether they name all that is there; None where no row says so or otherwise, False where rows disagree"""


def read_tags(files: SourceFiles, config: DataConfig) -> dict[str, Tags]:
    """Each image's tags in `config.tags`, else in tags.jsonl and tags.csv; of several lines all.

    They are complete where a column `complete` says so in one of the lines, and in no other line the contrary.
    """
    tags: dict[str, Tags] = {}
    for name in config.tags or _there(files, "tags.jsonl", "tags.csv"):
        for image, (names, complete) in _values(name, find_file(files, name), _TAGS, _as_tags):
            known = tags.get(image, Tags([], None))
            said = [one for one in (known.complete, complete) if one is not None]
            tags[image] = Tags([*known.names, *names], all(said) if said else None)
    return tags


def read_captions(files: SourceFiles, config: DataConfig) -> dict[str, list[str]]:
    """Each image's captions in `config.captions`, else in captions.jsonl and captions.csv."""
    captions: dict[str, list[str]] = {}
    for name in config.captions or _there(files, "captions.jsonl", "captions.csv"):
        data = find_file(files, name)
        coco = name.lower().endswith(".json")
        for image, caption in captions_of(name, data) if coco else _values(name, data, _CAPTION, _as_caption):
            captions.setdefault(image, []).append(caption)
    return captions


def read_splits(files: SourceFiles, config: DataConfig) -> Iterator[tuple[str, SplitName | None]]:
    """Each image with its split in `config.split_table`; None where the table leaves it open.

    Raises:
        DataError: DATA103 there is no such table; DATA108 it lacks a column; DATA109 a value that is no split.
    """
    if config.split_table is None:
        return
    data = find_file(files, config.split_table)
    for image, value in _values(config.split_table, data, (config.split_column,), lambda value, *_: [value]):
        yield image, as_split(value[0], config, config.split_table)


def as_split(value: Any, config: DataConfig, where: str) -> SplitName | None:
    """The split that a source's word stands for, `config.split_names` before the usual names; DATA109 for none."""
    if value is None or value == "":
        return None
    named: dict[str, SplitName] = {name.casefold(): split for name, split in config.split_names.items()}
    known = _SPLITS | named
    split = known.get(str(value).strip().casefold())
    if split is None:
        raise DataError(
            "DATA109",
            f"{where} has the split {value!r}, which is none of {', '.join(known)}.",
            "Say in `data.split_names` what it stands for: train, val or out.",
        )
    return split


def _there(files: SourceFiles, *names: str) -> list[str]:
    return [name for name in names if files.has(name)]


def _as_tags(value: Any, kind: str, row: dict[str, Any]) -> tuple[list[str], bool | None] | None:
    """JSON has lists, a CSV's cell has tags with semicolons between."""
    if isinstance(value, str) and kind != ".jsonl":
        value = [tag.strip() for tag in value.split(";") if tag.strip()]
    said = str(row.get(_COMPLETE, "")).strip().lower()
    if said not in _BOOLEANS or not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        return None
    return value, _BOOLEANS[said]


_BOOLEANS: dict[str, bool | None] = {
    "true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "": None, "none": None,
}  # fmt: skip


def _as_caption(value: Any, *_: Any) -> str | None:
    return value if isinstance(value, str) else None


def _values(
    name: str, data: bytes, columns: tuple[str, ...], read: Callable[[Any, str, dict[str, Any]], Any]
) -> Iterator[tuple[str, Any]]:
    """Each row's image, and its value in the first of the columns as `read` gives it; DATA105 where that is None."""
    kind = PurePosixPath(name).suffix.lower()
    for number, row in rows(name, data, kind):
        if not isinstance(row, dict):
            row = {}
        image, column = _first(row, _IMAGE), _first(row, columns)
        if kind != ".jsonl" and (image is None or column is None):
            lacking, known = (_IMAGE if image is None else columns)[0], ", ".join(filter(None, row))
            raise DataError("DATA108", f"{name} has no column {lacking}; it has {known}.", "Name the column so.")
        if row.get(SURPLUS):
            what = f"line {number} of {name} has more cells than the table has columns: {row[SURPLUS][0]!r} is in none."
            raise DataError("DATA105", what, _whole_cell(kind, columns))
        value = read(row[column], kind, row) if column else None
        if image is None or not isinstance(row[image], str) or value is None:
            shape = {"image": "NAME.jpg", columns[0]: ["…"] if columns is _TAGS else "…"}
            wanted = json.dumps(shape, ensure_ascii=False) if kind == ".jsonl" else f"an image and its {columns[0]}"
            raise DataError("DATA105", f"line {number} of {name} cannot be used.", f"Write {wanted}.")
        yield row[image], value


def _whole_cell(kind: str, columns: tuple[str, ...]) -> str:
    """How to write what spread over several cells into one."""
    if columns is _TAGS:
        return "Put semicolons between tags: dog;cat."
    if kind == ".tsv":
        return "Take the tabs out of its text."
    return 'Put text with commas in it into quotes: "a dog, on a lawn".'


def _first(row: dict[str, Any], columns: Iterable[str]) -> str | None:
    return next((column for column in columns if column in row), None)
