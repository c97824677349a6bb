"""A folder and an S3 prefix give the same names and the same bytes, and nothing from outside of the source."""

import os
import pickle
import random
from pathlib import Path

import pytest

from semivl.config import ClassDefinition, Classes, DataConfig
from semivl.data.checks import Files, Limits, Quarantined
from semivl.data.sample import Source
from semivl.data.source_files import LocalFiles, S3Files, SourceFiles, open_source, read_files
from semivl.errors import DataError, StoreError
from semivl.settings import ROOT
from tests.sources import Place, config, place, tar_of, write

CLASSES = Classes(classes=(ClassDefinition(name="cat"), ClassDefinition(name="dog")))
NAMES = (
    "a-b/x.jpg",
    "a.b",
    "a/x.jpg",
    "a/b/c.txt",
    "a b.jpg",
    "A.jpg",
    "ä/ö.jpg",
    "日本/😀.png",
    "z",
    "a/100%25.jpg",
    "+.jpg",
)


@pytest.fixture(params=["folder", "s3"])
def at(request) -> Place:
    return place(request)


def opened(source: Path | str, layout: str = "folder") -> SourceFiles:
    return open_source(config(source, layout))


def read(source: Path | str, image: str, mask: str | None = None, **limits) -> Files | Quarantined:
    described = Source(Path(image), "train", Path(mask) if mask else None)
    return read_files(opened(source), described, CLASSES, Limits(**limits))


def test_names_are_sorted_as_a_whole_with_their_sizes(tmp_path, at):
    hidden = (".hidden.jpg", ".folder/x.jpg", "a/.DS_Store")
    files = opened(at(write(tmp_path, {n: n for n in (*NAMES, *hidden)})))
    found = [(i.name, i.size) for i in files.names()]
    assert found == sorted((n, len(n.encode())) for n in NAMES)
    assert [i.name for i in files.names("a")] == ["a/100%25.jpg", "a/b/c.txt", "a/x.jpg"]
    assert list(files.names("nowhere")) == list(files.names("a/x")) == []


def test_bytes_and_parts_of_them_are_read(tmp_path, at):
    body = random.Random(3).randbytes(5000)
    files = opened(at(write(tmp_path, {"a b/ö.jpg": body, "empty": ""})))
    for start, length in [
        (0, None),
        (0, 100),
        (0, 5000),
        (0, 9000),
        (7, 100),
        (4990, 100),
        (7, None),
        (5000, 5),
        (6000, 5),
    ]:
        expected = body[start:] if length is None else body[start : start + length]
        assert files.read("a b/ö.jpg", start, length) == expected
    assert files.read("empty") == files.read("empty", 0, 10) == files.read("empty", 5, 10) == b""
    assert (files.has("a b/ö.jpg"), files.has("a b"), files.has("nowhere")) == (True, False, False)
    with pytest.raises(FileNotFoundError):
        files.read("nowhere")
    with pytest.raises(FileNotFoundError):
        files.read("nowhere", 5, 5)


def test_the_stamp_changes_with_the_content(tmp_path, at):
    write(tmp_path, {"a": "one", "b": "two"})
    before = {i.name: i.stamp for i in opened(at(tmp_path)).names()}
    assert before == {i.name: i.stamp for i in opened(at(tmp_path)).names()}
    (tmp_path / "a").unlink()
    write(tmp_path, {"a": "new"})
    after = {i.name: i.stamp for i in opened(at(tmp_path)).names()}
    assert (after["a"] != before["a"], after["b"]) == (True, before["b"])


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/etc/hostname", "a/..", ".."])
def test_names_that_lead_out_are_refused(tmp_path, at, name):
    write(tmp_path, {"outside": "secret", "source/a/x": "x"})
    files = opened(at(tmp_path / "source"))
    with pytest.raises(DataError, match="DATA013"):
        files.read(name)
    assert not files.has(name)


def test_sources_travel_to_other_processes(tmp_path, at):
    source = at(write(tmp_path, {"a": "x", "t.tar": tar_of({"k.jpg": "in a tar"})}))
    files = pickle.loads(pickle.dumps(opened(source)))
    assert (files.read("a"), files.address) == (b"x", str(source).rstrip("/"))
    tars = opened(source, "webdataset")
    assert tars.read("t.tar/k.jpg") == b"in a tar"
    assert pickle.loads(pickle.dumps(tars)).read("t.tar/k.jpg", 3, 1) == b"a"


def test_links_are_followed_within_the_source_alone(tmp_path):
    write(tmp_path, {"outside/x.jpg": "secret", "source/real/y.jpg": "y"})
    root = tmp_path / "source"
    for name, target in {
        "in.jpg": "real/y.jpg",
        "out.jpg": "../outside/x.jpg",
        "absolute.jpg": tmp_path / "outside/x.jpg",
        "folder": "real",
        "out-folder": "../outside",
        "nowhere.jpg": "gone.jpg",
        "round.jpg": "round.jpg",
    }.items():
        (root / name).symlink_to(target)
    files = LocalFiles(root)
    assert [i.name for i in files.names()] == sorted(
        ["absolute.jpg", "folder", "in.jpg", "nowhere.jpg", "out-folder", "out.jpg", "real/y.jpg", "round.jpg"]
    )
    assert files.read("in.jpg") == files.read("folder/y.jpg") == b"y"
    for name in ("out.jpg", "absolute.jpg", "out-folder/x.jpg", "out-folder"):
        fault = read(root, name)
        assert isinstance(fault, Quarantined) and (fault.code, "link" in fault.reason) == ("DATA013", True)
        assert not files.has(name)
    codes = [
        fault.code for n in ("folder", "nowhere.jpg", "round.jpg") if isinstance(fault := read(root, n), Quarantined)
    ]
    assert codes == ["DATA001"] * 3
    with pytest.raises(DataError, match=r"DATA013 out-folder is a link"):
        list(files.names("out-folder"))


def test_the_source_itself_may_be_a_link(tmp_path):
    write(tmp_path, {"real/y.jpg": "y"})
    (tmp_path / "link").symlink_to("real")
    files = LocalFiles(tmp_path / "link")
    assert ([i.name for i in files.names()], files.read("y.jpg")) == (["y.jpg"], b"y")


def test_pipe_and_folder_in_a_photos_place_are_told(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for name in ("pipe.jpg", "folder.jpg", "a\0b.jpg", "x" * 300):
        fault = read(tmp_path, name)
        assert isinstance(fault, Quarantined) and fault.code == "DATA001", name


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(tmp_path):
    write(tmp_path, {"a.jpg": "x", "folder/b.jpg": "x"})
    (tmp_path / "a.jpg").chmod(0)
    (tmp_path / "folder").chmod(0)
    fault = read(tmp_path, "a.jpg")
    assert isinstance(fault, Quarantined) and fault.code == "DATA001"
    with pytest.raises(DataError, match="DATA112"):
        list(LocalFiles(tmp_path).names())


def test_image_and_mask_are_read_whole(tmp_path, at):
    source = at(write(tmp_path, {"a.jpg": "image", "a.png": "mask", "empty": ""}))
    assert read(source, "a.jpg", "a.png") == Files(b"image", b"mask")
    assert read(source, "a.jpg") == Files(b"image", None)
    for image, mask, expected in [
        ("gone.jpg", None, ("gone.jpg", "DATA001")),
        ("a.jpg", "gone.png", ("gone.png", "DATA008")),
        ("empty", "a.png", ("empty", "DATA009")),
        ("a.jpg", "empty", ("empty", "DATA009")),
        ("../a.jpg", None, ("../a.jpg", "DATA013")),
        ("a.jpg", "/a.png", ("/a.png", "DATA013")),
    ]:
        fault = read(source, image, mask)
        assert isinstance(fault, Quarantined) and (fault.source, fault.code) == expected


def test_no_more_is_read_than_a_file_may_have(tmp_path, at):
    """A byte more, so that the checks see that it is too large."""
    found = read(at(write(tmp_path, {"a.jpg": bytes(10_000)})), "a.jpg", max_bytes=100)
    assert isinstance(found, Files) and len(found.image) == 101


def test_a_source_without_an_answer_is_no_fault_of_a_file(store, monkeypatch):
    lost = store.settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:9", "s3_patience": 0.1})
    files = S3Files(type(store)(lost), "")
    with pytest.raises(StoreError, match="STORE001"):
        read_files(files, Source(Path("a.jpg"), "train"), CLASSES, Limits())
    with pytest.raises(StoreError, match="STORE001"):
        next(files.names())


def test_the_whole_bucket_can_be_the_source(store):
    store.put("a/b.jpg", b"x")
    for address in (f"s3://{store.bucket}", f"s3://{store.bucket}/"):
        files = opened(address)
        assert ([i.name for i in files.names()], files.read("a/b.jpg")) == (["a/b.jpg"], b"x")
        assert files.address == f"s3://{store.bucket}"


def test_relative_sources_count_from_the_checkout():
    files = open_source(DataConfig(dataset="d", source=Path("conf/splits")))  # pyright: ignore[reportCallIssue]
    assert isinstance(files, LocalFiles) and files.root == ROOT / "conf/splits"
    assert files.has("voc/92.txt")
