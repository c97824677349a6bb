"""A million files are listed within a minute, and ten times as many files take ten times as long."""

import json
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from semivl.data.layouts import list_sources
from semivl.data.source_files import FileInfo, LocalFiles
from semivl.data.tar_files import TarFiles
from tests.sources import Memory, config, tar_of

MILLION = 1_000_000
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Numbered:
    """`count` images with masks, tags, captions and a split each, without a byte of any."""

    folders: tuple[str, ...]
    count: int

    @property
    def address(self) -> str:
        return "nowhere"

    def names(self, folder: str = "") -> Iterator[FileInfo]:
        for each in self.folders:
            if each == folder or not folder:
                ending = "jpg" if each in ("images", "JPEGImages", "train2017") else "png"
                yield from (FileInfo(f"{each}/{i // 1000:04}/{i:07}.{ending}", 1, "") for i in range(self.count))

    def has(self, name: str) -> bool:
        return name in ("val.txt", "labelled.txt", "tags.csv", "captions.jsonl", "splits.csv")

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        names = (f"{i // 1000:04}/{i:07}" for i in range(self.count))
        if name == "val.txt":
            return "\n".join(n for i, n in enumerate(names) if i % 10 == 0).encode()
        if name == "labelled.txt":
            return "\n".join(n for i, n in enumerate(names) if i % 10 == 1).encode()
        if name == "splits.csv":
            return (
                "image,split\n" + "".join(f"{n}.jpg,{'val' if n[-1] == '0' else 'train'}\n" for n in names)
            ).encode()
        if name == "tags.csv":
            return ("image,tags\n" + "".join(f"{n}.jpg,cat;dog\n" for n in names)).encode()
        return "".join(json.dumps({"image": f"{n}.jpg", "caption": "a cat"}) + "\n" for n in names).encode()


def cpu_seconds(layout: str, folders: tuple[str, ...], count: int, **fields) -> float:
    begin = time.process_time()
    found = list_sources(config("nowhere", layout, **fields), Numbered(folders, count))
    taken = time.process_time() - begin
    assert len(found) == count
    assert found[7].tags == ("cat", "dog") and found[7].caption == "a cat"
    assert sum(s.split == "val" for s in found) == (count // 10 if "evaluation_list" in fields or "split_table" in fields else 0)  # fmt: skip  # noqa: E501
    return taken


@pytest.mark.parametrize(
    ("layout", "folders", "fields"),
    [
        ("folder", ("images", "masks"), {"evaluation_list": "val.txt", "labelled_list": "labelled.txt"}),
        ("folder", ("images", "masks"), {"split_table": "splits.csv"}),
        ("voc", ("JPEGImages", "SegmentationClass"), {}),
    ],
)
def test_a_million_images_in_two_minutes_of_a_busy_machine(layout, folders, fields):
    small = cpu_seconds(layout, folders, MILLION // 10, **fields)
    large = cpu_seconds(layout, folders, MILLION, **fields)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"\n{layout} {sorted(fields)}: {small:.1f} s, {large:.1f} s of CPU; at most {memory:.2f} GB in this process")
    assert large < 120
    assert large < 20 * small
    assert memory < 4


def test_a_million_members_of_tars_in_minutes():
    body = tar_of({f"{i:05}.{field}": "{}" for i in range(5000) for field in ("jpg", "json", "cls", "txt")})
    files = TarFiles(Memory({f"{i:03}.tar": body for i in range(50)}))
    begin = time.process_time()
    found = list_sources(config("memory", "webdataset"), files)
    taken = time.process_time() - begin
    print(f"\n{taken:.1f} s of CPU")
    assert len(found) == 250_000
    assert taken < 300


def test_a_hundred_thousand_files_on_disk_in_seconds(tmp_path):
    for i in range(100):
        (tmp_path / f"images/{i}").mkdir(parents=True)
        for j in range(1000):
            (tmp_path / f"images/{i}/{j}.jpg").touch()
    begin = time.process_time()
    names = [info.name for info in LocalFiles(tmp_path).names("images")]
    print(f"\n{time.process_time() - begin:.1f} s of CPU")
    assert len(names) == 100_000 and names == sorted(names)
    assert time.process_time() - begin < 12
