"""What versions say of one another, and of one sample, is what was done to them."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples

from semivl.data import history, removal, snapshot
from semivl.data.ingest import ingest
from semivl.data.shards import shard_key
from semivl.data.snapshot import Snapshot
from semivl.data.tables import index_table
from tests.data.test_removal import key_at
from tests.data.test_snapshot import plain_distinct, refused, some_rows


@pytest.fixture
def manifest(config, classes, store):
    return ingest(config, classes)


@pytest.fixture
def versions(config, classes, store, make, manifest) -> list[str]:
    """One that is whole; one with a new photo and a mask more; one without a photo."""
    make.photo(config.source / "images/new.jpg", 77)
    make.mask(config.source / "masks/u004.png")
    second = ingest(config, classes)
    third = removal.forget(store, config.dataset, [key_at(config, "u000.jpg")], lambda _: None).manifest
    return [manifest.version, second.version, third.version]


def test_log_leads_back_to_the_first_version(config, store, versions):
    found = list(history.log(store, config.dataset))
    assert [m.version for m in found] == versions[::-1]
    assert [(m.added, m.changed, m.removed) for m in found] == [(0, 0, 1), (1, 1, 0), (13, 0, 0)]
    assert [m.created_by.split()[2:] for m in found] == [["forget"], [], []]
    assert [m.version for m in history.log(store, config.dataset, versions[1])] == versions[1::-1]
    assert refused(history.log, store, config.dataset, "0" * 16).code == "DATA202"


def test_diff_names_what_came_went_and_changed(config, store, versions):
    first, second, third = (snapshot.read(store, config.dataset, v) for v in versions)
    found = history.diff(first, third)
    assert found.added["key"].to_pylist() == [key_at(config, "new.jpg")]
    assert found.removed.to_pylist() == [
        {"key": key_at(config, "u000.jpg"), "split": "train", "supervision": "none", "source": "images/u000.jpg"}
    ]
    by_source = {row["source"]: row["what"] for row in found.changed.to_pylist()}
    masked = by_source.pop("images/u004.jpg")
    assert set(masked.split(", ")) >= {"supervision", "mask_sha256", "pixels", "ignored", "place"}
    assert set(by_source.values()) <= {"place"}  # its neighbours in the shard that was written anew
    nothing = history.diff(second, second)
    assert [len(t) for t in (nothing.added, nothing.removed, nothing.changed)] == [0, 0, 0]


@examples(deadline=None)
@given(some_rows, some_rows)
def test_diff_of_columns_is_that_of_rows(earlier, later):
    old, new = plain_distinct(earlier)[0], plain_distinct(later)[0]

    def made(rows) -> Snapshot:
        named = type("Named", (), {"classes": range(3)})
        return Snapshot(named, index_table(rows[key] for key in sorted(rows)))  # pyright: ignore[reportArgumentType]

    found = history.diff(made(old), made(new))
    assert found.added["key"].to_pylist() == sorted(new.keys() - old.keys())
    assert found.removed["key"].to_pylist() == sorted(old.keys() - new.keys())
    assert found.changed["key"].to_pylist() == sorted(k for k in old.keys() & new.keys() if old[k] != new[k])
    back = history.diff(made(new), made(old))
    assert back.changed["what"].to_pylist() == found.changed["what"].to_pylist()


def test_class_shares_are_those_of_all_masks(config, store, manifest):
    found = snapshot.read(store, config.dataset)
    totals = np.sum([row.pixels for row in found.rows(supervision="mask")], axis=0)
    assert history.class_shares(found) == pytest.approx(tuple(totals / totals.sum()))
    assert history.class_shares(Snapshot(found.manifest, index_table([]))) == (0, 0, 0)


def test_sample_is_found_by_key_and_by_path(config, store, manifest):
    for row in snapshot.read(store, config.dataset).rows():
        assert history.show(store, config.dataset, row.key) == row
        assert history.show(store, config.dataset, row.source) == row
    assert refused(history.show, store, config.dataset, "images/none.jpg").code == "DATA211"
    assert refused(history.show, store, config.dataset, "0" * 16).code == "DATA211"


def test_lineage_tells_when_a_sample_came_and_gained_its_mask(config, store, versions):
    def told(name: str) -> list[tuple[str, str]]:
        key = history.show(store, config.dataset, name).key
        return [(e.version, e.what) for e in history.events(store, config.dataset, key)]

    assert told("images/u004.jpg")[-2:] == [(versions[1], "gained its mask"), (versions[0], "came")]
    assert told("images/new.jpg") == [(versions[1], "came")]
    moved = [
        r.source
        for r in snapshot.read(store, config.dataset).rows()
        if (versions[2], "moved to another shard") in told(r.source)
    ]
    first, last = (snapshot.read(store, config.dataset, v) for v in versions[1:])
    assert moved == [r.source for r in last.rows() if r.shard != getattr(first.find(r.key), "shard", None)] != []


def test_saved_sample_is_the_sources_own_files(config, store, manifest, tmp_path):
    row = history.show(store, config.dataset, "images/m001.jpg")
    image, mask = history.save(store, config.dataset, row, tmp_path / "out")
    assert image.read_bytes() == (config.source / "images/m001.jpg").read_bytes()
    assert hashlib.sha256(mask.read_bytes()).hexdigest() == row.mask_sha256
    unlabelled = history.show(store, config.dataset, "images/u001.jpg")
    assert [p.name for p in history.save(store, config.dataset, unlabelled, tmp_path)] == [f"{unlabelled.key}.jpg"]
    at = shard_key(config.dataset, row.shard)
    body = bytearray(store.get(at))
    body[row.image_offset + 9] ^= 1
    store.put(at, bytes(body))
    assert refused(history.save, store, config.dataset, row, tmp_path).code == "DATA207"
