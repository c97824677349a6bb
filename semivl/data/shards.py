"""Shards: plain WebDataset tars, the same bytes for the same samples, with the place of every member known.

Training reads members by offset; any WebDataset reader reads the tars as they are. They are byte for byte what
webdataset's own TarWriter makes (a test compares them), written twice as fast, and hashed on the way to the disk.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from struct import Struct
from typing import BinaryIO

from semivl.config import Record
from semivl.data.checks import Checked
from semivl.data.sample import Row

_TOLD = ("caption", "height", "orientation", "sha256", "source", "supervision", "tags", "tags_complete", "width")
"""what KEY.json says of a sample; not its split, which is the snapshot's to decide"""
_BLOCK, _RECORD = 512, 10_240
_FLUSHED = 1 << 20
"""bytes that are hashed and written at a time: other threads get their turn after each, so that they are not few"""
_json = json.JSONEncoder(sort_keys=True).encode
"""json.dumps makes such an encoder for every call"""
_HEADER = Struct("100s 8s 8s 8s 12s 12s 8s 1s 100s 8s 32s 32s 183x")
"""name, mode, owner, group, size, time, checksum, kind, link, format, names of owner and group"""


class ShardEntry(Record):
    """A shard in a manifest. `samples` counts those in the tar; a later snapshot may use fewer."""

    sha256: str
    bytes: int
    samples: int


def shards_of(dataset: str) -> str:
    """What the keys of a dataset's shards begin with."""
    return f"datasets/{dataset}/shards/"


def shard_key(dataset: str, sha256: str) -> str:
    """Where a shard lies in the store."""
    return f"{shards_of(dataset)}{sha256}.tar"


def write_shard(samples: Iterable[Checked], path: Path) -> tuple[str, list[Row]]:
    """Writes the tar, one sample in memory at a time; its SHA-256 and the rows with their places in it.

    Without a sample no file is written, and there is no hash.
    """
    return _written(((sample.row, _members(sample)) for sample in samples), path)


def rewrite_shard(old: Path, rows: Sequence[Row], path: Path) -> tuple[str, list[Row]]:
    """Writes a tar of those samples of an old one that have a row; as `write_shard` would have written it.

    What the old one holds besides, such as a sample's unlabelled self, is left behind.
    """
    kept = {row.key: row for row in rows}
    members: dict[str, dict[str, bytes]] = {}
    with tarfile.open(old) as tar:
        for member in tar:
            key, _, ending = member.name.partition(".")
            file = tar.extractfile(member)
            if key in kept and file:
                members.setdefault(key, {})[ending] = file.read()
    return _written(((kept[key], found) for key, found in members.items()), path)


def keys_in(path: Path) -> set[str]:
    """The keys of all samples that a tar holds, whether an index names them or not."""
    with tarfile.open(path) as tar:
        return {name.partition(".")[0] for name in tar.getnames()}


def sha256_of_file(path: Path) -> str:
    """What the file would be named as a shard."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _written(samples: Iterable[tuple[Row, dict[str, bytes]]], path: Path) -> tuple[str, list[Row]]:
    samples = iter(samples)
    first = next(samples, None)
    if first is None:
        return "", []
    with path.open("wb") as file:
        tar = _Tar(file)
        placed = [(row, {ending: tar.add(row.key, ending, members[ending]) for ending in sorted(members)})
                  for row, members in chain([first], samples)]  # fmt: skip
        sha256 = tar.finish()
    return sha256, [_placed(row, sha256, places) for row, places in placed]


class _Tar:
    """A USTAR archive in the making: headers with nothing of this machine or hour in them, and the hash of it all."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.size, self.hash = file, 0, hashlib.sha256()
        self._waiting = bytearray()

    def add(self, key: str, ending: str, content: bytes) -> int:
        """Writes a member; where its content begins."""
        self._write(_header(f"{key}.{ending}", len(content)))
        start = self.size
        self._write(content)
        self._write(bytes(-self.size % _BLOCK))
        return start

    def finish(self) -> str:
        """Writes the end of the archive; its SHA-256."""
        self._write(bytes(2 * _BLOCK))
        self._write(bytes(-self.size % _RECORD))
        self._flush()
        return self.hash.hexdigest()

    def _write(self, data: bytes) -> None:
        self._waiting += data
        self.size += len(data)
        if len(self._waiting) >= _FLUSHED:
            self._flush()

    def _flush(self) -> None:
        self.file.write(self._waiting)
        self.hash.update(self._waiting)
        self._waiting.clear()


def _header(name: str, size: int) -> bytes:
    """The member's block (POSIX.1-1988, ustar): of no hour and no machine, owned by whom webdataset says."""
    unsigned = _HEADER.pack(
        name.encode(), b"0000444", b"0000000", b"0000000", b"%011o" % size, b"00000000000", b" " * 8, b"0", b"",
        b"ustar\x0000", b"bigdata", b"bigdata",
    )  # fmt: skip
    return unsigned[:148] + b"%06o\x00" % sum(unsigned) + unsigned[155:]


def _members(sample: Checked) -> dict[str, bytes]:
    told = {name: getattr(sample.row, name) for name in _TOLD}
    told = {name: value for name, value in told.items() if value not in (None, (), False)}
    members = {sample.ending: sample.files.image, "json": _json(told).encode()}
    return members if sample.files.mask is None else members | {"mask.png": sample.files.mask}


def _placed(row: Row, shard: str, places: dict[str, int]) -> Row:
    image = places["jpg" if "jpg" in places else "png"]
    return replace(row, shard=shard, image_offset=image, mask_offset=places.get("mask.png"))
