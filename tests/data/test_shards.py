"""A shard is an ordinary tar, the same bytes for the same samples, and its rows say where everything lies."""

import hashlib
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import webdataset
from webdataset.writer import TarWriter

from semivl.data.checks import Checked, Files, Limits, examine
from semivl.data.sample import Source, key_of
from semivl.data.shards import _members, keys_in, rewrite_shard, write_shard
from semivl.data.source_files import LocalFiles, read_files


@pytest.fixture
def samples(tmp_path, classes, make) -> list[Checked]:
    make.photo(tmp_path / "plain.jpg", 1)
    make.photo(tmp_path / "masked.png", 2)
    make.mask(tmp_path / "masked_ids.png")
    make.photo(tmp_path / "told.jpg", 3)
    sources = [
        Source(Path("plain.jpg"), "train"),
        Source(Path("masked.png"), "val", Path("masked_ids.png")),
        Source(Path("told.jpg"), "train", tags=("cat",), caption="eine Katze, größer"),
    ]
    read = [read_files(LocalFiles(tmp_path), source, classes, Limits()) for source in sources]
    checked = [examine(s, f, classes, Limits()) for s, f in zip(sources, read, strict=True) if isinstance(f, Files)]
    return [c for c in checked if isinstance(c, Checked)]


def test_same_samples_are_the_same_bytes(tmp_path, samples):
    first = write_shard(samples, tmp_path / "1.tar")
    second = write_shard(iter(samples), tmp_path / "2.tar")
    assert first == second
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    assert first[0] == hashlib.sha256((tmp_path / "1.tar").read_bytes()).hexdigest()
    assert write_shard(samples[:2], tmp_path / "3.tar")[0] != first[0]


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_tar_is_byte_for_byte_what_webdataset_writes(tmp_path, samples, count):
    chosen = [
        replace(s, row=replace(s.row, key=f"{n:016x}")) for n, s in enumerate(samples * (count // 3 + 1)) if n < count
    ]
    write_shard(chosen, tmp_path / "own.tar")
    with (tmp_path / "theirs.tar").open("wb") as file, TarWriter(file, encoder=False, mtime=0) as tar:
        for sample in chosen:
            tar.write({"__key__": sample.row.key} | _members(sample))
    assert (tmp_path / "own.tar").read_bytes() == (tmp_path / "theirs.tar").read_bytes()


def test_shard_without_a_sample_is_what_it_would_have_been_without(tmp_path, samples):
    _, rows = write_shard(samples, tmp_path / "whole.tar")
    kept = [samples[0], samples[2]]
    expected = write_shard(kept, tmp_path / "expected.tar")
    assert rewrite_shard(tmp_path / "whole.tar", [rows[2], rows[0]], tmp_path / "less.tar") == expected
    assert keys_in(tmp_path / "whole.tar") == {s.row.key for s in samples}
    assert keys_in(tmp_path / "less.tar") == {s.row.key for s in kept}
    assert rewrite_shard(tmp_path / "whole.tar", [], tmp_path / "none.tar") == ("", [])


def test_rows_say_where_the_members_lie(tmp_path, samples):
    sha256, rows = write_shard(samples, tmp_path / "s.tar")
    body = (tmp_path / "s.tar").read_bytes()
    for sample, row in zip(samples, rows, strict=True):
        place = {"shard": "", "image_offset": 0, "mask_offset": None}
        assert (row.shard, replace(row, **place)) == (sha256, sample.row)
        assert body[row.image_offset :][: row.image_bytes] == sample.files.image
        assert row.key == key_of(sample.files.image)
        if sample.files.mask is None:
            assert (row.mask_offset, row.mask_bytes) == (None, None)
        else:
            assert body[row.mask_offset :][: row.mask_bytes] == sample.files.mask


def test_webdataset_reads_the_same_samples(tmp_path, samples):
    write_shard(samples, tmp_path / "s.tar")
    read = list(webdataset.WebDataset(str(tmp_path / "s.tar"), shardshuffle=False))
    assert [r["__key__"] for r in read] == [s.row.key for s in samples]
    for sample, found in zip(samples, read, strict=True):
        assert found[sample.ending] == sample.files.image
        assert found.get("mask.png") == sample.files.mask
        told = json.loads(found["json"])
        assert (told["sha256"], told["source"]) == (sample.row.sha256, sample.row.source)
        assert told.get("caption") == sample.row.caption
        assert tuple(told.get("tags", ())) == sample.row.tags


def test_what_a_sample_has_not_is_not_in_the_tar(tmp_path, samples):
    write_shard(samples, tmp_path / "s.tar")
    with tarfile.open(tmp_path / "s.tar") as tar:
        assert [m.name.partition(".")[2] for m in tar] == [
            "jpg",
            "json",
            "json",
            "mask.png",
            "png",
            "jpg",
            "json",
        ]
        assert {m.mtime for m in tar.getmembers()} == {0}
        assert all(m.size for m in tar.getmembers())


def test_no_sample_is_no_file(tmp_path):
    assert write_shard([], tmp_path / "s.tar") == ("", [])
    assert not (tmp_path / "s.tar").exists()
