"""Damage is found wherever it is done, and named with what to do."""

import json

import pyarrow as pa
import pytest

from semivl.data import snapshot
from semivl.data.ingest import ingest
from semivl.data.sample import Row
from semivl.data.shards import shard_key
from semivl.data.tables import from_parquet, to_parquet
from semivl.data.verify import Damage, verify


@pytest.fixture
def found(config, classes, store):
    ingest(config, classes)
    return snapshot.read(store, config.dataset)


def damages(store, found, quick: bool = False) -> list[Damage]:
    return [damage for looked in verify(store, found, quick) for damage in looked.damages]


def flip(store, key: str, at: int) -> None:
    body = bytearray(store.get(key))
    body[at] ^= 1
    store.put(key, bytes(body))


def test_sound_snapshot_is_compared_whole(store, found):
    looked = list(verify(store, found))
    assert [one.damages for one in looked] == [()] * (1 + len(found.manifest.shards))
    assert sum(one.samples for one in looked) == found.manifest.samples
    assert sum(one.bytes for one in looked) == sum(e.bytes for e in found.manifest.shards)
    assert [one.bytes for one in verify(store, found, quick=True)] == [0] * len(looked)


@pytest.mark.parametrize("part", ["image", "mask", "between"])
def test_one_bit_is_found_and_its_sample_named(config, store, found, part):
    row = found.rows("val")[0]
    places = {"image": row.image_offset + 40, "mask": row.mask_offset + 40, "between": row.image_offset - 500}
    flip(store, shard_key(config.dataset, row.shard), places[part])
    (damage,) = damages(store, found)
    assert damage.what == store.address(shard_key(config.dataset, row.shard))
    assert (f"the {part} of {row.key} ({row.source})" in damage.why) == (part != "between")
    assert "semivl-ingest" in damage.remedy
    assert damages(store, found, quick=True) == []


def test_missing_and_cut_shards_are_found_without_reading_any(config, store, found):
    missing, cut = (shard_key(config.dataset, e.sha256) for e in found.manifest.shards[:2])
    store.delete(missing)
    store.put(cut, store.get(cut)[:-1])
    expected = {store.address(missing): "it is not there", store.address(cut): "bytes, not"}
    for quick in (True, False):
        told = {damage.what: damage.why for damage in damages(store, found, quick)}
        assert told.keys() == expected.keys()
        assert all(expected[what] in why for what, why in told.items())


@pytest.mark.parametrize(("column", "value"), [("width", 1), ("split", "train"), ("source", "x"), ("sha256", "0" * 64)])
def test_index_that_was_changed_by_hand_is_found(config, store, found, column, value):
    at = f"datasets/{config.dataset}/snapshots/{found.manifest.version}/index.parquet"
    table = from_parquet(store.get(at))
    rows = table[column].to_pylist()
    place = rows.index(next(v for v in rows if v != value))
    rows[place] = value
    field = table.schema.get_field_index(column)
    values = pa.array(rows, table.schema.field(field).type)
    store.put(at, to_parquet(table.set_column(field, column, values)))
    told = damages(store, snapshot.read(store, config.dataset))
    assert all("index" in damage.what for damage in told)
    assert len(told) == (2 if column == "sha256" else 1)


def test_damaged_shard_is_mended_as_the_remedy_says(config, classes, store, found):
    row: Row = found.rows()[0]
    key = shard_key(config.dataset, row.shard)
    flip(store, key, row.image_offset + 3)
    store.delete(key)
    ingest(config, classes)
    assert damages(store, snapshot.read(store, config.dataset)) == []


def test_version_of_before_02_is_not_taken_for_damaged(config, store, found):
    at = f"datasets/{config.dataset}/snapshots/{found.manifest.version}/manifest.json"
    old = json.loads(store.get(at)) | {"version": "0123456789abcdef"}
    for name in ("created", "added", "changed", "removed"):
        del old[name]
    index = store.get(at.replace("manifest.json", "index.parquet"))
    for name, body in (("manifest.json", json.dumps(old).encode()), ("index.parquet", index)):
        store.put(f"datasets/{config.dataset}/snapshots/0123456789abcdef/{name}", body)
    assert damages(store, snapshot.read(store, config.dataset, "0123456789abcdef")) == []


def test_bytes_that_rotted_on_the_server_are_told_and_the_other_shards_looked_at(config, store, found):
    """The object keeps the hash that was put with it, as on a bad disk."""
    key = shard_key(config.dataset, found.manifest.shards[0].sha256)
    told = store.client.head_object(Bucket=store.bucket, Key=key)["Metadata"]
    body = bytearray(store.get(key))
    body[700] ^= 1
    store.client.put_object(Bucket=store.bucket, Key=key, Body=bytes(body), Metadata=told)
    (damage,) = damages(store, found)
    assert damage.what == store.address(key) and "not those that were put" in damage.why
    assert sum(one.samples for one in verify(store, found)) > 0
