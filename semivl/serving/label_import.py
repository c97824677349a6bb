"""`semivl import-labels`: what annotators drew becomes a source that the next ingest takes into the same dataset.

    images/KEY.jpg    the image's own bytes, as they are in the snapshot
    masks/KEY.png     class ids
    splits.csv        the split that each image has in the snapshot
    tags.jsonl        its tags there, and whether they are complete
    captions.jsonl    its captions there, one a line

The ingest knows the image by its bytes, so the sample gains its mask, wherever the image came from at first. It takes
over what the folder says of the sample whole, so the words that the sample had go along. Nothing is written before all
of the export was read; each file appears whole, and a later import adds to the folder.
"""

import csv
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from semivl.config import IGNORE, Config, Record
from semivl.data.cache import ShardCache, read_sample
from semivl.data.headers import read_header
from semivl.data.sample import Row
from semivl.data.snapshot import read
from semivl.data.store import open_store
from semivl.errors import LabelError
from semivl.evaluation.overlay import mask_png
from semivl.serving import label_cvat_export, label_studio
from semivl.serving.label_drawn import Dataset, Drawn
from semivl.settings import home

Tool = Literal["label-studio", "cvat"]
_READERS: dict[Tool, Callable[[Path, Dataset], Iterator[Drawn | None]]] = {
    "label-studio": label_studio.read_export,
    "cvat": label_cvat_export.read_export,
}
_SPLITS = "splits.csv"
_TAGS, _CAPTIONS = "tags.jsonl", "captions.jsonl"


class Imported(Record):
    """What came in."""

    images: int
    undrawn: int
    """images of the export that nobody drew on"""
    pixels: dict[str, int]
    """by class, and `nobody labelled`"""
    settings: tuple[str, ...]
    """that let an ingest of the same experiment take the folder in"""


def import_labels(config: Config, export: Path, tool: Tool, output: Path) -> Imported:
    """Brings an export's masks, with their images, into the folder `output`.

    Raises:
        LabelError: LABEL002 the folder holds something else; LABEL004 to LABEL010, LABEL012 the export cannot
            be used.
        DataError: DATA201 there is no snapshot yet.
    """
    output = output.resolve()
    if output.exists() and not (output / _SPLITS).is_file() and not (output.is_dir() and not any(output.iterdir())):
        what = f"{output} is there, and no folder of `semivl import-labels`."
        raise LabelError("LABEL002", what, "Give another folder with --output.")
    store = open_store()
    snapshot = read(store, config.data.dataset)
    cache = ShardCache(store, config.data.dataset, home() / "cache" / "shards", config.compute.cache_bytes)
    rows: dict[str, Row] = {}
    pixels: Counter[int] = Counter()
    undrawn = 0
    with _staged(output) as folder:
        for drawn in _READERS[tool](export, Dataset(snapshot)):
            if drawn is None:
                undrawn += 1
                continue
            image = read_sample(cache, drawn.row)[0]
            name = f"images/{drawn.row.key}.{'png' if read_header(image).format == 'png' else 'jpg'}"
            if name in rows:
                what = f"{export} has the image {drawn.row.key} ({drawn.row.source}) twice."
                raise LabelError("LABEL012", what, "Remove one of the two tasks in the tool, and export again.")
            rows[name] = drawn.row
            (folder / name).write_bytes(image)
            (folder / "masks" / f"{drawn.row.key}.png").write_bytes(mask_png(drawn.mask))
            pixels.update(
                dict(zip(*(part.tolist() for part in np.unique(drawn.mask, return_counts=True)), strict=True))
            )
        if not rows:
            what = f"nobody drew anything in {export}."
            raise LabelError("LABEL010", what, "Submit annotations in the tool, then export; predictions do not count.")
        _moved(folder, output, rows)
    names = dict(enumerate(snapshot.manifest.classes.names)) | {IGNORE: "nobody labelled"}
    counted = {names[i]: count for i, count in sorted(pixels.items())}
    return Imported(images=len(rows), undrawn=undrawn, pixels=counted, settings=ingest_settings(config, output))


def ingest_settings(config: Config, folder: Path) -> tuple[str, ...]:
    """What to set, so that an ingest of the experiment reads that folder in place of its own source."""
    chosen = config.data.model_dump()
    plain = {"train_list", "labelled_list", "evaluation_list", "tag_names"}
    lists = {"annotations", "tags", "captions", "ignore_ids"}
    return (
        f"data.source={folder.resolve()}",
        "data.layout=folder",
        f"data.split_table={_SPLITS}",
        "data.split_column=split",
        *(f"data.{name}=null" for name in sorted(plain) if chosen[name] is not None),
        *(f"data.{name}=[]" for name in sorted(lists) if chosen[name]),
    )


@contextmanager
def _staged(output: Path) -> Iterator[Path]:
    """A folder beside the output, gone at the end."""
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = output.with_name(f".{output.name}.{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        for part in ("images", "masks"):
            (folder / part).mkdir(parents=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _moved(folder: Path, output: Path, rows: dict[str, Row]) -> None:
    """Brings the staged files into the output: the tables first, then images, then masks, so that any kill between can
    be made good by running it again."""
    output.mkdir(exist_ok=True)
    table = output / _SPLITS
    splits = {name: row.split for name, row in rows.items()}
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            splits = {line["image"]: line["split"] for line in csv.DictReader(file)} | splits
    with (folder / _SPLITS).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("image", "split"), *sorted(splits.items())])
    (folder / _SPLITS).replace(table)
    for words, told in ((_TAGS, _tags_of), (_CAPTIONS, _captions_of)):
        _replace_lines(folder / words, output / words, {name: told(row) for name, row in rows.items()})
    for part in ("images", "masks"):
        (output / part).mkdir(exist_ok=True)
        for path in sorted((folder / part).iterdir()):
            path.replace(output / part / path.name)


def _tags_of(row: Row) -> list[dict[str, Any]]:
    """What a line of tags says beside the image's name; none of a sample without tags."""
    return [{"tags": row.tags, "complete": row.tags_complete}] if row.tags or row.tags_complete else []


def _captions_of(row: Row) -> list[dict[str, Any]]:
    return [{"caption": caption} for caption in (row.caption or "").splitlines()]


def _replace_lines(staged: Path, table: Path, told: dict[str, list[dict[str, Any]]]) -> None:
    """The table with those lines in place of all that it said of the same images; no file where it says nothing."""
    known = map(json.loads, table.read_bytes().splitlines()) if table.is_file() else ()
    lines = [line for line in known if line["image"] not in told]
    lines += [{"image": name, **line} for name, said in told.items() for line in said]
    if lines or table.is_file():
        lines.sort(key=lambda line: line["image"])
        staged.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        staged.replace(table)
