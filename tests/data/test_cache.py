"""The cache gives exactly the shard that was asked for, whatever happened to its files."""

from multiprocessing import get_context

import pytest

from semivl.data import snapshot
from semivl.data.cache import ShardCache, read_sample
from semivl.data.ingest import ingest
from semivl.data.shards import shard_key
from semivl.errors import DataError, StoreError


@pytest.fixture
def snap(config, classes, store):
    ingest(config, classes)
    return snapshot.read(store, config.dataset)


@pytest.fixture
def cache(store, config, tmp_path) -> ShardCache:
    return ShardCache(store, config.dataset, tmp_path / "cache")


def originals(config, row) -> tuple[bytes, bytes | None]:
    image = config.source / row.source
    mask = config.source / "masks" / image.with_suffix(".png").name
    return image.read_bytes(), mask.read_bytes() if row.mask_offset else None


def test_samples_are_the_source_s_own_bytes(snap, cache, config):
    assert len(snap.rows()) == 13
    for row in snap.rows():
        assert read_sample(cache, row) == originals(config, row)


def test_shard_is_downloaded_once(snap, cache, store, config, tmp_path):
    (shard,) = {r.shard for r in snap.rows("val")}
    path = cache.path(shard)
    store.delete(shard_key(config.dataset, shard))
    assert cache.path(shard) == path
    assert ShardCache(store, config.dataset, tmp_path / "cache").path(shard) == path


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:700] + b"\0\1" + b[702:], lambda b: b""])
def test_damaged_file_is_fetched_again(snap, cache, config, damage):
    row = snap.rows("val")[0]
    path = cache.folder / f"{row.shard}.tar"
    whole = cache.path(row.shard).read_bytes()
    path.write_bytes(damage(whole))
    again = ShardCache(cache.store, config.dataset, cache.folder)
    assert read_sample(again, row) == originals(config, row)
    assert path.read_bytes() == whole


def test_file_that_goes_or_shrinks_in_use_is_fetched_again(snap, cache, config):
    row = snap.rows("val")[0]
    path = cache.path(row.shard)
    path.unlink()
    assert read_sample(cache, row) == originals(config, row)
    path.write_bytes(path.read_bytes()[: row.image_offset + 1])
    assert read_sample(cache, row) == originals(config, row)


def test_damaged_shard_in_the_store_is_told_and_not_kept(snap, cache, store, config):
    row = snap.rows("val")[0]
    store.put(shard_key(config.dataset, row.shard), b"other bytes")
    with pytest.raises(DataError) as raised:
        read_sample(cache, row)
    assert (raised.value.code, row.shard in str(raised.value)) == ("DATA207", True)
    assert not list(cache.folder.glob("*.tar"))


def test_shard_that_is_not_there(cache):
    with pytest.raises(StoreError) as raised:
        cache.path("0" * 64)
    assert raised.value.code == "STORE003"


def _read_all(cache, rows, answers) -> None:
    answers.put([read_sample(cache, row) for row in rows])


def test_processes_share_a_folder(snap, cache, config):
    context = get_context("spawn")
    answers = context.Queue()
    rows = snap.rows()
    readers = [context.Process(target=_read_all, args=(cache, rows, answers)) for _ in range(3)]
    for reader in readers:
        reader.start()
    expected = [originals(config, row) for row in rows]
    assert [answers.get(timeout=120) for _ in readers] == [expected] * 3
    for reader in readers:
        reader.join()
    assert sorted(p.suffix for p in cache.folder.iterdir()) == [".lock"] * 3 + [".tar"] * 3
