"""Shards: plain WebDataset tars, the same bytes for the same samples, with the place of every member known.

Training reads members by offset; any WebDataset reader reads the tars as they are.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

from semivl.config import Record
from semivl.data.checks import Checked
from semivl.data.sample import Row

_TOLD = ("caption", "height", "orientation", "sha256", "source", "supervision", "tags", "width")
"""what KEY.json says of a sample; not its split, which is the snapshot's to decide"""


class ShardEntry(Record):
    """A shard in a manifest. `samples` counts those in the tar; a later snapshot may use fewer."""

    sha256: str
    bytes: int
    samples: int


def shard_key(dataset: str, sha256: str) -> str:
    """Where a shard lies in the store."""
    return f"datasets/{dataset}/shards/{sha256}.tar"


def write_shard(samples: Iterable[Checked], path: Path) -> tuple[str, list[Row]]:
    """Writes the tar, one sample in memory at a time; its SHA-256 and the rows with their places in it.

    Without a sample no file is written, and there is no hash.
    """
    samples = iter(samples)
    first = next(samples, None)
    if first is None:
        return "", []
    from webdataset.writer import TarWriter  # imports torch: only where there is something to write

    rows = []
    with path.open("wb") as file, TarWriter(file, encoder=False, mtime=0) as tar:  # pyright: ignore[reportArgumentType]
        for sample in chain([first], samples):
            tar.write(_members(sample))
            rows.append(sample.row)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    with tarfile.open(path) as tar:
        places = {member.name: member.offset_data for member in tar}
    return sha256, [_placed(row, sha256, places) for row in rows]


def _members(sample: Checked) -> dict[str, Any]:
    told = {k: v for k, v in asdict(sample.row).items() if k in _TOLD and v not in (None, ())}
    members: dict[str, Any] = {
        "__key__": sample.row.key,
        sample.ending: sample.files.image,
        "json": json.dumps(told, sort_keys=True).encode(),
    }
    return members if sample.files.mask is None else members | {"mask.png": sample.files.mask}


def _placed(row: Row, sha256: str, places: dict[str, int]) -> Row:
    image = places[f"{row.key}.jpg"] if f"{row.key}.jpg" in places else places[f"{row.key}.png"]
    return replace(row, shard=sha256, image_offset=image, mask_offset=places.get(f"{row.key}.mask.png"))
