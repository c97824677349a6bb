"""WebDataset's tars are read where they lie: listing reads headers and texts, and a broken tar costs what it lacks."""

import io
import json
import tarfile

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from semivl.config import ClassDefinition, Classes
from semivl.data.checks import Checked, Files, Limits, Quarantined, examine
from semivl.data.layouts import list_sources
from semivl.data.layouts.webdataset import webdataset as layout
from semivl.data.sample import Source
from semivl.data.shards import write_shard
from semivl.data.source_files import open_source, read_files
from semivl.data.tar_files import TarFiles
from tests.sources import Memory, Place, config, listed, place, refused, tar_of, write

CLASSES = Classes(classes=tuple(ClassDefinition(name=n) for n in ("background", "cat", "dog")))


@pytest.fixture(params=["folder", "s3"])
def at(request) -> Place:
    return place(request)


def by_name(found: list[Source]) -> dict[str, Source]:
    return {s.image.as_posix(): s for s in found}


def test_members_of_a_key_are_one_sample(tmp_path, at):
    members = {
        "sub/a.jpg": "image a",
        "sub/a.png": "mask a",
        "sub/a.json": json.dumps({"tags": ["cat", "mat"], "caption": "a cat", "url": 5}),
        "sub/a.cls": "2\n",
        "b.jpeg": "image b",
        "b.mask.png": "mask b",
        "b.txt": "ein Bär ",
        "c.PNG": "image c",
        "c.cls": "dog",
        "c.seg.png": "mask c",
        "d.npy": "nothing of ours",
        "d.jpg": "image d",
    }
    write(tmp_path, {"tars/0.tar": tar_of(members), "1.TAR": tar_of({"a.jpg": "another a"}), "names.txt": "x\ny\nz\n"})
    settings = config(at(tmp_path), "webdataset", tag_names="names.txt")
    files = open_source(settings)
    found = by_name(list_sources(settings, files))
    assert {k: (s.mask.as_posix() if s.mask else None, s.tags, s.caption) for k, s in found.items()} == {
        "1.TAR/a.jpg": (None, (), None),
        "tars/0.tar/b.jpeg": ("tars/0.tar/b.mask.png", (), "ein Bär"),
        "tars/0.tar/c.PNG": ("tars/0.tar/c.seg.png", ("dog",), None),
        "tars/0.tar/d.jpg": (None, (), None),
        "tars/0.tar/sub/a.jpg": ("tars/0.tar/sub/a.png", ("cat", "mat", "z"), "a cat"),
    }
    for source in found.values():
        read = read_files(files, source, CLASSES, Limits())
        assert isinstance(read, Files) and (read.image, read.mask)[: 2 if source.mask else 1]
    bodies = {s.image.name: read_files(files, s, CLASSES, Limits()) for s in found.values()}
    assert bodies["b.jpeg"] == Files(b"image b", b"mask b")
    assert files.read("1.TAR/a.jpg") == b"another a"
    assert [i.name for i in files.names()] == sorted(
        [f"tars/0.tar/{n}" for n in members] + ["1.TAR/a.jpg", "names.txt"]
    )


def test_lists_name_samples_by_tar_and_key_or_by_key_alone(tmp_path, at):
    write(tmp_path, {f"{i}.tar": tar_of({f"{i}{k}.jpg": "x", f"{i}{k}.png": "m"}) for i in "01" for k in "ab"})
    write(tmp_path, {"v.txt": "0.tar/0b\n", "l.txt": "1b\n"})
    assert listed(at(tmp_path), layout="webdataset", evaluation_list="v.txt", labelled_list="l.txt") == {
        "0.tar/0b.jpg": ("val", "0.tar/0b.png"),
        "1.tar/1b.jpg": ("train", "1.tar/1b.png"),
    }


def test_a_field_of_the_json_says_the_split(tmp_path):
    def told(split: str | None) -> str:
        return json.dumps({"fold": split} if split else {})

    folds = {"a": "train", "b": "validation", "c": "test", "d": None}
    members = {k: v for n, fold in folds.items() for k, v in ((f"{n}.jpg", "x"), (f"{n}.png", "m"), (f"{n}.json", told(fold)))}  # fmt: skip  # noqa: E501
    write(tmp_path, {"0.tar": tar_of(members)})
    found = listed(tmp_path, layout="webdataset", split_column="fold")
    assert {k[-5]: split for k, (split, _) in found.items()} == {"a": "train", "b": "val", "d": None}
    assert "c" in {k[-5] for k in listed(tmp_path, layout="webdataset")}
    error = refused(write(tmp_path, {"1.tar": tar_of({"e.jpg": "x", "e.json": told("5")})}), layout="webdataset", split_column="fold")  # fmt: skip  # noqa: E501
    assert (error.code, "1.tar/e" in str(error)) == ("DATA109", True)


def test_tags_beside_the_tars_are_attached(tmp_path):
    write(tmp_path, {"0.tar": tar_of({"a.jpg": "x", "b.jpg": "x"}), "tags.csv": "image,tags\n0.tar/a.jpg,cat\nb,dog\n"})
    assert [s.tags for s in list_sources(config(tmp_path, "webdataset"))] == [("cat",), ("dog",)]


def test_our_own_shards_can_be_a_source_again(tmp_path, make, classes, at):
    make.source(tmp_path / "first", labelled=2, evaluation=0, unlabelled=2)
    write(tmp_path / "first", {"captions.csv": "image,caption\nm000.jpg,a cat\nm000.jpg,it sits\n"})
    first = config(tmp_path / "first")
    samples = [_checked(first, source, classes) for source in list_sources(first)]
    (tmp_path / "tars").mkdir()
    write_shard(iter(samples), tmp_path / "tars/shard.tar")
    second = config(at(tmp_path / "tars"), "webdataset")
    again = [_checked(second, source, classes) for source in list_sources(second)]
    assert {s.row.key: (s.files, s.row.caption) for s in again} == {
        s.row.key: (s.files, s.row.caption) for s in samples
    }


def _checked(settings, source, classes) -> Checked:
    files = read_files(open_source(settings), source, classes, Limits())
    assert isinstance(files, Files)
    found = examine(source, files, classes, Limits())
    assert isinstance(found, Checked)
    return found


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_samples_are_those_that_webdataset_reads(tmp_path, kind):
    long = "very/long/folder/" * 5 + "name" * 30 if kind != tarfile.USTAR_FORMAT else "sub/é"
    members = {f"{key}.{field}": f"{key} {field}" for key in ("a", "sub/b", long) for field in ("jpg", "txt")}
    (tmp_path / "0.tar").write_bytes(tar_of(members, kind))
    theirs = {s["__key__"]: (s["jpg"], s["txt"]) for s in webdataset.WebDataset(str(tmp_path / "0.tar"), shardshuffle=False)}  # fmt: skip  # noqa: E501
    found = list_sources(config(tmp_path, "webdataset"))
    files = open_source(config(tmp_path, "webdataset"))
    ours = {s.image.as_posix()[6:-4]: (files.read(s.image.as_posix()), (s.caption or "").encode()) for s in found}
    assert ours == theirs


def test_listing_reads_headers_and_texts_alone():
    big = bytes(100_000)
    members = {
        f"{i}.{field}": big if field == "jpg" else '{"caption": "x"}' for i in range(20) for field in ("jpg", "json")
    }
    memory = Memory({"0.tar": tar_of(members)})
    found = list_sources(config("memory", "webdataset"), TarFiles(memory))
    assert [s.caption for s in found] == ["x"] * 20
    assert sum(length for _, _, length in memory.reads) < 20 * 10_000
    memory.reads.clear()
    TarFiles(memory).read("0.tar/7.jpg", 5, 10)
    assert memory.reads[-1][2] == 10


@settings(deadline=None, max_examples=60)
@given(st.floats(0, 0.999), st.sampled_from([tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT]))
def test_tar_cut_anywhere_gives_what_is_whole_and_is_told(share, kind):
    whole = tar_of({f"{i}.jpg": bytes([i]) * 700 for i in range(1, 6)}, kind)
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    files = TarFiles(Memory({"0.tar": whole[: int(share * end)], "1.tar": whole}))
    found = layout(files, config("memory", "webdataset")).images
    assert "0.tar" in found and len([n for n in found if n.startswith("1.tar/")]) == 5
    for name in found:
        if "/" in name:
            assert files.read(name) == bytes([int(name[6])]) * 700
    fault = read_files(files, by_name(list_sources(config("memory", "webdataset"), files))["0.tar"], CLASSES, Limits())
    assert isinstance(fault, Quarantined) and (fault.source, fault.code) == ("0.tar", "DATA118")


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=5))
def test_damaged_tar_is_read_or_told_but_never_raises(damages):
    body = bytearray(tar_of({f"{i}.{field}": b"{}" for i in range(5) for field in ("jpg", "json")}, tarfile.PAX_FORMAT))
    for share, value in damages:
        body[int(share * len(body))] = value
    files = TarFiles(Memory({"0.tar": bytes(body)}))
    assert all(name.startswith("0.tar") for name in (i.name for i in files.names()))


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


GOOD = member("a.jpg", size=3) + b"abc" + bytes(509)
END = bytes(1024)


@pytest.mark.parametrize(
    ("body", "code", "word", "before"),
    [
        (b"", "DATA118", "cut short", 0),
        (b"just words" * 100, "DATA118", "no tar", 0),
        (GOOD, "DATA118", "end mark", 1),
        (GOOD + b"rubbish" * 100, "DATA118", "no tar", 1),
        (GOOD + member("../b.jpg") + END, "DATA119", "../b.jpg", 1),
        (GOOD + member("x/../../b.jpg") + END, "DATA119", "leads out", 1),
        (GOOD + member("/etc/b.jpg") + END, "DATA119", "/etc/b.jpg", 1),
        (GOOD + member("b.jpg", tarfile.SYMTYPE, linkname="/etc/passwd") + END, "DATA119", "link", 1),
        (GOOD + member("b.jpg", tarfile.LNKTYPE, linkname="a.jpg") + END, "DATA119", "link", 1),
        (GOOD + member("b.jpg", tarfile.CHRTYPE) + END, "DATA119", "device", 1),
        (GOOD + GOOD + END, "DATA119", "twice", 1),
        (GOOD + member("b.jpg", size=1 << 40) + END, "DATA118", "cut short", 1),
        (GOOD + member("x", tarfile.XHDTYPE, size=1 << 40) + END, "DATA118", "header of", 1),
        (GOOD + member("x", tarfile.GNUTYPE_LONGNAME, size=1 << 40) + END, "DATA118", "header of", 1),
        (GOOD + member("x", tarfile.GNUTYPE_LONGNAME, size=1) * 5000 + END, "DATA118", "", 1),
    ],
)  # fmt: skip
def test_hostile_tar_costs_its_rest_alone_and_is_told(body, code, word, before):
    files = TarFiles(Memory({"0.tar": body, "1.tar": GOOD + END}))
    found = by_name(list_sources(config("memory", "webdataset"), files))
    assert found.keys() == {"0.tar", "1.tar/a.jpg"} | ({"0.tar/a.jpg"} if before else set())
    fault = read_files(files, found["0.tar"], CLASSES, Limits())
    assert isinstance(fault, Quarantined)
    assert (fault.code, word in fault.reason, fault.source) == (code, True, "0.tar")


def test_negative_size_does_not_go_round_in_circles():
    header = bytearray(member("b.jpg"))
    header[124:136] = b"\xff" * 10 + b"\xfc\x00"  # -1024: back to the first member
    header[148:156] = b"%06o\0 " % sum(bytes(header[:148]) + b" " * 8 + bytes(header[156:]))
    files = TarFiles(Memory({"0.tar": GOOD + bytes(header) + END}))
    assert [i.name for i in files.names()] == ["0.tar", "0.tar/a.jpg"]


@pytest.mark.parametrize("name", ["0.tar.gz", "0.tgz"])
def test_compressed_tar_is_told(tmp_path, name):
    with tarfile.open(tmp_path / name, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO(b""))
    (source,) = list_sources(config(tmp_path, "webdataset"))
    fault = read_files(open_source(config(tmp_path, "webdataset")), source, CLASSES, Limits())
    assert isinstance(fault, Quarantined) and (fault.code, "compressed" in fault.reason) == ("DATA118", True)


@pytest.mark.parametrize(
    ("members", "code", "word"),
    [
        ({"a.jpg": "x", "a.png": "m", "a.mask.png": "m"}, "DATA111", "0.tar/a"),
        ({"a.jpg": "x", "a.jpeg": "x"}, "DATA122", "0.tar/a"),
        ({"a.jpg": "x", "a.json": "{"}, "DATA123", "0.tar/a.json"),
        ({"a.jpg": "x", "a.json": "[" * 100_000}, "DATA123", "0.tar/a.json"),
        ({"a.jpg": "x", "a.json": '{"tags": "cat"}'}, "DATA123", "0.tar/a.json"),
        ({"a.jpg": "x", "a.json": '{"caption": ["cat"]}'}, "DATA123", "0.tar/a.json"),
        ({"a.jpg": "x", "a.txt": b"\xff\xfe"}, "DATA123", "0.tar/a.txt"),
        ({"a.jpg": "x", "a.txt": b"x" * (1 << 20) + b"x"}, "DATA123", "0.tar/a.txt"),
        ({"a.jpg": "x", "a.cls": "7"}, "DATA123", "0.tar/a.cls"),
    ],
)
def test_sample_that_cannot_be_understood_names_tar_and_key(tmp_path, members, code, word):
    write(tmp_path, {"0.tar": tar_of(members), "names.txt": "a\nb\n"})
    error = refused(tmp_path, layout="webdataset", tag_names="names.txt")
    assert (error.code, word in str(error)) == (code, True)


def test_sample_without_an_image_stays_in_the_list(tmp_path):
    write(tmp_path, {"0.tar": tar_of({"a.jpg": "x", "b.json": "{}", "c.mask.png": "m"})})
    assert listed(tmp_path, layout="webdataset").keys() == {"0.tar/a.jpg", "0.tar/b", "0.tar/c"}


def test_tar_of_a_folder_is_read_and_what_a_system_left_in_it_left_alone():
    body = tar_of(
        {"./cat.jpg": "image", "./._cat.jpg": "a Mac's", "./.DS_Store": "", "README.md": "words", "dog.webp": "image"}
    )
    files = TarFiles(Memory({"a.tar": body}))
    found = {s.image.as_posix() for s in list_sources(config("memory", "webdataset"), files)}
    assert found == {"a.tar/cat.jpg", "a.tar/dog.webp"}
    assert files.read("a.tar/cat.jpg") == b"image"
