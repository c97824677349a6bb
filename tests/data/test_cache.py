"""The cache gives exactly the shard that was asked for, whatever happened to its files, and keeps to its bound."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from semivl.data.cache import ShardCache, read_sample
from semivl.data.prefetch import FetchAhead
from semivl.data.sample import Row
from semivl.data.shards import shard_key
from semivl.data.store import Store
from semivl.errors import DataError, StoreError
from tests.faults import FaultProxy
from tests.made_shards import mask, picture, put_shards

SAMPLES = [(picture(i), mask(i) if i % 3 else None) for i in range(13)]


@pytest.fixture
def rows(store: Store) -> list[Row]:
    return put_shards(store, "seen", SAMPLES, 5)


@pytest.fixture
def cache(store: Store, tmp_path: Path) -> ShardCache:
    return ShardCache(store, "seen", tmp_path / "cache")


def like(cache: ShardCache, max_bytes: int | None = None) -> ShardCache:
    """What another process has: another cache in the same folder."""
    return ShardCache(cache.store, cache.dataset, cache.folder, max_bytes)


def held(cache: ShardCache) -> int:
    """Bytes of shards in the folder, while others may be at work there."""
    found = 0
    for file in cache.folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += file.stat().st_size if file.suffix in (".tar", ".part") else 0
    return found


def shards(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row.shard for row in rows))


def test_samples_are_the_bytes_that_were_stored(rows, cache):
    assert [read_sample(cache, row) for row in rows] == SAMPLES


def test_shard_is_downloaded_once(rows, cache):
    path = cache.path(rows[0].shard)
    cache.store.delete(shard_key("seen", rows[0].shard))
    assert cache.path(rows[0].shard) == path
    assert like(cache).path(rows[0].shard) == path


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:700] + b"\0\1" + b[702:], lambda b: b""])
def test_damaged_file_is_fetched_again(rows, cache, damage):
    path = cache.path(rows[0].shard)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert read_sample(like(cache), rows[0]) == SAMPLES[0]
    assert path.read_bytes() == whole


def test_a_stamped_file_is_trusted_and_a_changed_one_hashed_anew(rows, cache):
    path, stamp = cache.path(rows[0].shard), cache.folder / f"{rows[0].shard}.ok"
    assert not stamp.exists(), "a file that was changed just now may change again within the same tick"
    long_ago = time.time_ns() - 10**10
    os.utime(path, ns=(long_ago, long_ago))
    like(cache).path(rows[0].shard)
    assert stamp.exists()
    whole = path.read_bytes()
    path.write_bytes(b"\0" + whole[1:])
    os.utime(path, ns=(long_ago, long_ago))
    assert like(cache).path(rows[0].shard).read_bytes() != whole, "nobody hashes what bears a stamp"
    os.utime(path, ns=(long_ago, long_ago + 1))
    assert like(cache).path(rows[0].shard).read_bytes() == whole


def test_file_that_goes_or_shrinks_in_use_is_fetched_again(rows, cache):
    path = cache.path(rows[0].shard)
    path.unlink()
    assert read_sample(cache, rows[0]) == SAMPLES[0]
    path.write_bytes(path.read_bytes()[: rows[0].image_offset + 1])
    assert read_sample(cache, rows[0]) == SAMPLES[0]


def test_a_shard_that_is_open_is_read_on_when_its_name_is_gone(rows, cache):
    read_sample(cache, rows[0])
    shutil.rmtree(cache.folder)
    cache.store.delete(shard_key("seen", rows[0].shard))
    assert [read_sample(cache, row) for row in rows[:5]] == SAMPLES[:5]
    with pytest.raises(StoreError, match="STORE003"):
        cache.path(rows[0].shard)


def test_the_disk_gets_the_room_of_a_removed_shard_back(rows, cache, monkeypatch):
    read_sample(cache, rows[0])
    path = cache.path(rows[0].shard)
    path.unlink()
    first = cache.open(rows[0].shard)
    assert first and first.is_removed() and cache.open(rows[0].shard) is first, "nobody looks at every read"
    monkeypatch.setattr("semivl.data.cache._TOUCH_SECONDS", 0.0)
    again = cache.open(rows[0].shard)
    assert again and again is not first and not again.is_removed()


def test_damaged_shard_in_the_store_is_told_and_not_kept(rows, cache):
    cache.store.put(shard_key("seen", rows[0].shard), b"other bytes")
    with pytest.raises(DataError) as raised:
        read_sample(cache, rows[0])
    assert (raised.value.code, rows[0].shard in str(raised.value)) == ("DATA207", True)
    assert not held(cache)


def test_shard_that_is_not_there(cache):
    with pytest.raises(StoreError) as raised:
        cache.path("0" * 64)
    assert raised.value.code == "STORE003"


def test_the_least_recently_used_shard_goes_out_first(rows, cache):
    first, second, third = shards(rows)
    sizes = {name: cache.path(name).stat().st_size for name in (first, second, third)}
    shutil.rmtree(cache.folder)
    for name in (first, second):
        assert like(cache, 10**9).open(name)
    like(cache, 10**9).open(first)
    like(cache, sizes[first] + sizes[third]).path(third)
    assert {p.stem for p in cache.folder.glob("*.tar")} == {first, third}


def test_a_bound_below_one_shard_is_told(rows, cache):
    small = like(cache, 5000)
    with pytest.raises(DataError, match=r"DATA232.*5,000 bytes"):
        small.path(rows[0].shard)
    assert read_sample(small, rows[0]) == SAMPLES[0], "a sample needs no room"


def test_what_the_folder_may_not_hold_is_read_by_range_and_drives_out_nothing(rows, cache, caplog):
    one = len(cache.store.get(shard_key("seen", rows[0].shard)))
    small = like(cache, 2 * one)
    for _ in range(3):
        assert [read_sample(small, row) for row in rows] == SAMPLES
        assert [p.stem for p in sorted(small.folder.glob("*.tar"), key=os.path.getmtime)] == shards(rows)[:2]
    assert caplog.text.count("compute.cache_bytes") == 1


def test_a_damaged_sample_in_the_store_is_told(rows, cache):
    key = shard_key("seen", rows[0].shard)
    whole = cache.store.get(key)
    cache.store.put(key, whole[:600] + b"\0" + whole[601:])
    with pytest.raises(DataError, match="DATA207"):
        read_sample(like(cache, 1), rows[0])


def _read_all(cache: ShardCache, rows, answers, rounds: int = 1) -> None:
    order = np.random.default_rng(os.getpid()).permutation(len(rows) * rounds) % len(rows)
    most = 0
    for place in order:
        assert read_sample(cache, rows[place]) == SAMPLES[place]
        most = max(most, held(cache))
    answers.put(most)


def _in_three_processes(cache: ShardCache, rows, rounds: int = 1) -> list[int]:
    context = get_context("spawn")
    answers = context.Queue()
    readers = [context.Process(target=_read_all, args=(cache, rows, answers, rounds)) for _ in range(3)]
    for reader in readers:
        reader.start()
    most = [answers.get(timeout=60) for _ in readers]
    for reader in readers:
        reader.join()
    return most


def test_processes_share_a_folder(rows, cache):
    _in_three_processes(cache, rows)
    assert sorted(p.suffix for p in cache.folder.iterdir() if p.suffix != ".ok") == [".lock"] * 4 + [".tar"] * 3


def test_processes_that_share_too_small_a_folder_read_right_and_keep_to_the_bound(store, cache):
    rows = put_shards(store, "seen", SAMPLES, 2)
    largest = max(len(store.get(shard_key("seen", name))) for name in shards(rows))
    most = _in_three_processes(like(cache, 3 * largest), rows, rounds=20)
    assert largest < max(most) <= 3 * largest


def test_shards_are_fetched_before_their_step_but_not_all_at_once(store, cache):
    rows = put_shards(store, "seen", SAMPLES * 2, 1)
    names = shards(rows)
    ahead = FetchAhead(cache, ((step, [name]) for step, name in enumerate(names)))
    try:
        for reached, expected in ((0, 8), (2, 10), (13, 13)):
            ahead.reached(reached)
            assert _comes_to(lambda: len(list(cache.folder.glob("*.tar"))), expected)
    finally:
        ahead.close()
    assert cache.path(names[0]).is_file()


def test_fetching_ahead_ends_where_the_folder_is_full(rows, cache):
    one = len(cache.store.get(shard_key("seen", rows[0].shard)))
    small = like(cache, one)
    ahead = FetchAhead(small, ((step, [name]) for step, name in enumerate(shards(rows))))
    ahead._thread.join(timeout=60)
    assert not ahead._thread.is_alive() and {p.stem for p in small.folder.glob("*.tar")} == {rows[0].shard}


def test_a_fault_while_fetching_ahead_is_left_to_the_reader(rows, cache):
    cache.store.delete(shard_key("seen", rows[0].shard))
    ahead = FetchAhead(cache, [(0, shards(rows))])
    ahead._thread.join(timeout=60)
    assert not ahead._thread.is_alive()
    with pytest.raises(StoreError, match="STORE003"):
        read_sample(cache, rows[0])


def _comes_to(found, expected: int) -> bool:
    """Whether it is that number within a while, and stays so for a moment."""
    until = time.monotonic() + 20
    while time.monotonic() < until and found() < expected:
        time.sleep(0.02)
    time.sleep(0.2)
    return found() == expected


@pytest.mark.parametrize("max_bytes", [None, 1], ids=["whole shards", "by range"])
def test_samples_come_whole_over_a_line_that_breaks_and_flips_bits(store, tmp_path, max_bytes):
    rows = put_shards(store, "seen", SAMPLES * 4, 2)
    chances = dict.fromkeys(("refused", "cut_answer", "truncated", "slow_down", "internal", "corrupt_answer"), 0.05)
    with FaultProxy(store.settings.s3_endpoint, chances, seed=3) as proxy:
        broken = Store(store.settings.model_copy(update={"s3_endpoint": proxy.address}))
        cache = ShardCache(broken, "seen", tmp_path / "cache", max_bytes)
        assert [read_sample(cache, row) for row in rows] == SAMPLES * 4
    assert len(proxy.injected) >= 4, proxy.injected


FULL_DISK = """
import sys
from pathlib import Path
from semivl.data.cache import ShardCache
from semivl.data.store import open_store
from semivl.errors import DataError
folder = Path(sys.argv[1])
for name in sys.argv[2:]:
    try:
        print(ShardCache(open_store(), "seen", folder, 10**9).path(name).name)
    except DataError as error:
        print(error.code, "bytes are free" in str(error))
"""


def test_a_full_disk_first_loses_old_shards_and_is_then_told(store, environment, tmp_path):
    """A disk of 320 kB of its own, in a namespace of mounts; shards of 100 kB, and one that never fits."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = f"mount -t tmpfs -o size=320k none {place}"
    enter = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*enter, mounted], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount in a namespace")
    samples = [(picture(seed, 200, 160, smooth=False), None) for seed in range(32)]
    assert 20_000 < len(samples[0][0]) < 25_000
    names = shards(put_shards(store, "seen", samples[:16], 4) + put_shards(store, "seen", samples[16:], 16))
    command = f'{mounted} && exec {sys.executable} -c "$0" {place} {" ".join(names)}'
    ran = subprocess.run([*enter, command, FULL_DISK], capture_output=True, text=True, check=True, env=os.environ)
    assert ran.stdout.splitlines() == [f"{name}.tar" for name in names[:-1]] + ["DATA231 True"]
