"""What is forgotten is gone for good: from every shard that HEAD names, and from every ingest to come."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace

import pytest

from semivl.data import removal, snapshot
from semivl.data.cache import ShardCache, read_sample
from semivl.data.garbage import GRACE, collect
from semivl.data.ingest import ingest
from semivl.data.removal import keys_named
from semivl.data.sample import key_of
from semivl.data.shards import shard_key
from semivl.data.store import Store
from semivl.data.tables import from_parquet
from semivl.errors import DataError
from tests.data.test_ingest_interrupted import begin


def forget(store: Store, dataset: str, *keys: str) -> removal.Forgotten:
    return removal.forget(store, dataset, keys, lambda _: None)


def key_at(config, name: str) -> str:
    return key_of((config.source / "images" / name).read_bytes())


def holding(store: Store, dataset: str, photo: bytes) -> set[str]:
    """All objects of the dataset that have the photo's bytes in them."""
    return {key for key in store.list(f"datasets/{dataset}/") if photo in store.get(key)}


def test_forgotten_sample_leaves_index_and_shards_and_the_others_stay_readable(config, classes, store, tmp_path):
    first = ingest(config, classes)
    before = {r.key: r for r in snapshot.read(store, config.dataset).rows()}
    photo = (config.source / "images/u003.jpg").read_bytes()
    done = forget(store, config.dataset, key_of(photo))
    found = snapshot.read(store, config.dataset)
    assert (found.manifest, done.sources) == (done.manifest, ("images/u003.jpg",))
    assert (found.manifest.parent, found.manifest.removed, found.manifest.samples) == (first.version, 1, 12)
    assert snapshot.forgotten(store, config.dataset) == {key_of(photo)}
    (held,) = done.shards
    assert holding(store, config.dataset, photo) == {shard_key(config.dataset, held)}
    assert held not in {e.sha256 for e in found.manifest.shards}
    assert len({e.sha256 for e in found.manifest.shards} - {e.sha256 for e in first.shards}) == 1
    cache = ShardCache(store, config.dataset, tmp_path / "cache")
    for row in found.rows():
        image, mask = read_sample(cache, row)
        assert hashlib.sha256(image).hexdigest() == row.sha256
        assert (hashlib.sha256(mask).hexdigest() if mask else None) == row.mask_sha256
        place = {name: getattr(before[row.key], name) for name in ("shard", "image_offset", "mask_offset")}
        assert replace(row, **place) == before[row.key]
    collect(store, config.dataset)
    assert holding(store, config.dataset, photo) == set()


def test_store_keeps_the_key_and_nothing_else_of_the_sample(config, classes, store):
    def told(key: str) -> str:
        body = store.get(key)
        return str(from_parquet(body).to_pylist()) if key.endswith(".parquet") else body.decode(errors="replace")

    ingest(config, classes)
    row = snapshot.read(store, config.dataset).find(key_at(config, "m001.jpg"))
    assert row
    words = (row.key, row.sha256[16:], row.source)
    for done in (False, True):
        if done:
            forget(store, config.dataset, row.key)
            collect(store, config.dataset)
        kept = {key: told(key) for key in store.list(f"datasets/{config.dataset}/") if "/ledgers/" not in key}
        found = {word: [key for key, text in kept.items() if word in text] for word in words}
        if done:
            assert found == {row.key: [f"datasets/{config.dataset}/HEAD"], words[1]: [], words[2]: []}
        else:
            assert all(found.values())


def test_forgetting_again_is_the_same_and_an_unknown_key_is_told(config, classes, store):
    ingest(config, classes)
    key = key_at(config, "u000.jpg")
    once = forget(store, config.dataset, key)
    before = sorted(store.list(f"datasets/{config.dataset}/"))
    assert forget(store, config.dataset, key) == replace(once, sources=(), shards=())
    assert sorted(store.list(f"datasets/{config.dataset}/")) == before
    with pytest.raises(DataError) as raised:
        forget(store, config.dataset, "0" * 16)
    assert (raised.value.code, "0" * 16 in str(raised.value)) == ("DATA211", True)


def test_all_samples_of_a_shard_may_be_forgotten(config, classes, store):
    first = ingest(config, classes)
    rows = snapshot.read(store, config.dataset).rows()
    shard = first.shards[0].sha256
    keys = [r.key for r in rows if r.shard == shard]
    done = forget(store, config.dataset, *keys)
    assert {e.sha256 for e in done.manifest.shards} == {e.sha256 for e in first.shards} - {shard}
    assert done.manifest.samples == 13 - len(keys)


def test_unlabelled_self_of_a_sample_is_found_where_no_index_names_it(config, classes, store, make):
    ingest(config, classes)
    photo = (config.source / "images/u004.jpg").read_bytes()
    make.mask(config.source / "masks/u004.png")
    ingest(config, classes)
    collect(store, config.dataset, keep=0, grace=0)
    assert len(holding(store, config.dataset, photo)) == 2
    done = forget(store, config.dataset, key_of(photo))
    assert len(done.shards) == 2
    collect(store, config.dataset)
    assert holding(store, config.dataset, photo) == set()
    for entry in done.manifest.shards:
        with tarfile.open(fileobj=io.BytesIO(store.get(shard_key(config.dataset, entry.sha256)))) as tar:
            assert len({name.partition(".")[0] for name in tar.getnames()}) == entry.samples


def test_damaged_shard_is_not_written_anew(config, classes, store):
    ingest(config, classes)
    row = snapshot.read(store, config.dataset).find(key_at(config, "u000.jpg"))
    assert row
    at = shard_key(config.dataset, row.shard)
    body = bytearray(store.get(at))
    body[700] ^= 1
    store.put(at, bytes(body))
    with pytest.raises(DataError) as raised:
        forget(store, config.dataset, row.key)
    assert raised.value.code == "DATA207"
    assert snapshot.forgotten(store, config.dataset) == frozenset()


FORGET = """
import os, signal, sys
from semivl.data import removal
from semivl.data.store import Store, open_store
put = Store._put
def killed(self, key, *rest):
    done = put(self, key, *rest)
    if sys.argv[3] in key:
        os.kill(os.getpid(), signal.SIGKILL)
    return done
Store._put = killed
removal.forget(open_store(), sys.argv[1], [sys.argv[2]], print)
"""


@pytest.mark.parametrize("last", ["shards/", "index.parquet", "manifest.json", "HEAD"])
def test_forget_killed_after_each_kind_of_write_ends_in_the_same_state(config, classes, store, environment, last):
    ingest(config, classes)
    reference = config.model_copy(update={"dataset": f"{config.dataset}-whole"})
    ingest(reference, classes)
    key = key_at(config, "u003.jpg")
    expected = forget(store, reference.dataset, key).manifest
    process = subprocess.run(
        [sys.executable, "-c", FORGET, config.dataset, key, last], env={**os.environ, **environment}
    )
    assert process.returncode == -signal.SIGKILL
    known = snapshot.read(store, config.dataset).find(key)
    assert (known is None) == (last == "HEAD")
    manifest = forget(store, config.dataset, key).manifest
    assert manifest.shards == expected.shards
    assert list(snapshot.read(store, config.dataset).rows()) == list(snapshot.read(store, reference.dataset).rows())
    assert snapshot.forgotten(store, config.dataset) == {key}
    collect(store, config.dataset, grace=0)
    left = {k.rsplit("/", 1)[-1] for k in store.list(f"datasets/{config.dataset}/shards/")}
    assert left == {f"{e.sha256}.tar" for e in manifest.shards}


def test_ingest_under_way_does_not_bring_it_back(config, classes, store, environment, make):
    ingest(config, classes)
    make.photo(config.source / "images/z.jpg", 4242)
    gone, new = key_at(config, "u000.jpg"), key_at(config, "z.jpg")
    process = subprocess.Popen(
        [sys.executable, "-c", PAUSED, config.model_dump_json(), classes.model_dump_json()],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "built\n"
    forget(store, config.dataset, gone)
    begin(process)
    assert process.wait(timeout=60) == 0
    found = snapshot.read(store, config.dataset)
    assert (found.find(gone), found.manifest.samples) == (None, 13)
    assert found.find(new)
    collect(store, config.dataset, grace=GRACE)
    assert holding(store, config.dataset, (config.source / "images/u000.jpg").read_bytes()) == set()


def test_all_samples_that_came_by_a_path_are_found(config, classes, store, make):
    ingest(config, classes)
    make.photo(config.source / "images/u000.jpg", 999)
    ingest(config, classes)
    assert len(keys_named(store, config.dataset, "images/u000.jpg")) == 2
    with pytest.raises(DataError) as raised:
        keys_named(store, config.dataset, "images/none.jpg")
    assert raised.value.code == "DATA211"


PAUSED = """
import sys
from semivl.config import Classes, DataConfig
from semivl.data.ingest import build_shard, commit, plan
config, classes = DataConfig.model_validate_json(sys.argv[1]), Classes.model_validate_json(sys.argv[2])
planned = plan(config, classes)
results = [build_shard(config, classes, group) for group in planned.groups]
print("built", flush=True)
sys.stdin.readline()
commit(config, classes, planned, results)
"""
