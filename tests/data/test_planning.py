"""A plan asks as little as can be, and still tells apart what is not the same."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semivl.data.checks import Files, Quarantined
from semivl.data.layouts import list_named, list_sources
from semivl.data.ledger import Outcome, outcome_table, refused_in, stamp_of
from semivl.data.listing import infos_of, names_in
from semivl.data.names import name_faults
from semivl.data.sample import Named
from semivl.data.source_files import FileInfo, LocalFiles
from semivl.data.store import Store
from semivl.errors import StoreError

NAMED = Named("a.jpg", "train", "a.png", (), False, None, "class", None)
INFOS = {name: FileInfo(name, 1, "1") for name in ("a.jpg", "a.png")}


def test_names_and_what_is_asked_of_them_are_what_the_listing_tells(tmp_path):
    for name in ("a-b/c.jpg", "a/b.jpg", "x.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "nowhere.jpg").symlink_to("gone.jpg")
    files = LocalFiles(tmp_path)
    listed = {info.name: info for info in files.names()}
    assert list(names_in(files)) == list(listed) == ["a-b/c.jpg", "a/b.jpg", "nowhere.jpg", "x.jpg"]
    assert infos_of(files, [*listed, "absent.jpg", "a/b.jpg/c.jpg", "nul\0.jpg"]) == listed
    assert (listed["nowhere.jpg"].size, listed["x.jpg"].size) == (0, 5)


def test_stamp_changes_with_all_that_a_source_says_and_with_its_files():
    stamps = [
        stamp_of(NAMED, INFOS),
        *(stamp_of(NAMED._replace(**{name: "None"}), INFOS) for name in Named._fields),
        stamp_of(NAMED._replace(tags=("None",)), INFOS),
        stamp_of(NAMED._replace(image="\udcff.jpg"), INFOS),
        *(stamp_of(NAMED, {**INFOS, name: FileInfo(name, 1, "2")}) for name in INFOS),
        *(stamp_of(NAMED, {**INFOS, name: FileInfo(name, 2, "1")}) for name in INFOS),
        stamp_of(NAMED, {"a.jpg": INFOS["a.jpg"]}),
    ]
    assert len(set(stamps)) == len(stamps)
    assert stamps[0] == stamp_of(Named(*NAMED), dict(INFOS))


def test_named_are_the_sources(config):
    assert [named.source() for named in list_named(config)] == list_sources(config)


@given(st.text("aA0_-. /:", max_size=12))
def test_names_that_pass_have_plain_parts(name):
    parts = name.split("/")
    sound = not {"", ".", ".."} & {*parts} and not (name[:1].isalpha() and name[1:3] == ":/")
    assert (name not in name_faults([name])) == (sound and name != "")


def test_outcomes_are_kept_as_they_are():
    why = Quarantined("b.jpg", "DATA009", "the file is empty", 0)
    table = outcome_table([Outcome("a.jpg", "1", key="0" * 16), Outcome("b.jpg", "2", refused=why)])
    assert table["name"].to_pylist() == ["a.jpg", "b.jpg"]
    assert refused_in(table) == [why]
    assert refused_in(outcome_table([])) == []


def test_hash_of_an_image_is_its_own_and_no_part_of_what_is_compared():
    hashed, plain = Files(b"image", None), Files(b"image", None)
    assert hashed.sha256 == hashlib.sha256(b"image").hexdigest()
    assert hashed == plain


def test_file_that_is_not_what_was_hashed_does_not_get_into_the_store(store, dataset, tmp_path):
    hasty = Store(store.settings.model_copy(update={"s3_patience": 0.1}))
    (tmp_path / "shard.tar").write_bytes(b"spoilt")
    key = f"datasets/{dataset}/spoilt.tar"
    with pytest.raises(StoreError):
        hasty.put_if_absent(key, tmp_path / "shard.tar", hashlib.sha256(b"whole").hexdigest())
    assert not store.exists(key)
    sha256 = hashlib.sha256(b"spoilt").hexdigest()
    assert hasty.put_if_absent(key, tmp_path / "shard.tar", sha256)
    assert store.get(key) == b"spoilt"
