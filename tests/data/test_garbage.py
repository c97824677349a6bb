"""What no kept snapshot names goes, and nothing else, whoever commits meanwhile and wherever it is killed."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from semivl.config import DataConfig
from semivl.data import removal, snapshot
from semivl.data.garbage import collect, drop_cached
from semivl.data.head import read_head
from semivl.data.ingest import ingest
from semivl.data.shards import ShardEntry, shard_key
from semivl.data.store import Store
from semivl.data.tables import index_table
from semivl.errors import DataError
from tests.data.test_removal import key_at
from tests.data.test_snapshot import BASE, refused, row


class Dataset:
    """Commits of samples without pictures, each in a shard of a few bytes."""

    def __init__(self, store: Store, name: str, classes) -> None:
        self.store, self.name, self.classes = store, name, classes
        self.config = DataConfig(dataset=name, source="nowhere")  # pyright: ignore[reportCallIssue, reportArgumentType]

    def put(self, shard: str) -> ShardEntry:
        self.store.put_if_absent(shard_key(self.name, shard), shard.encode())
        return ShardEntry(sha256=shard, bytes=len(shard), samples=1)

    def commit(self, rows, put: bool = True) -> str:
        shards = sorted({r.shard for r in rows})
        entries = [self.put(s) if put else ShardEntry(sha256=s, bytes=len(s), samples=1) for s in shards]
        return snapshot.commit(self.store, self.config, self.classes, [index_table(rows)], entries, []).version

    def versions(self) -> set[str]:
        return {key.split("/")[3] for key in self.store.list(f"datasets/{self.name}/snapshots/")}

    def shards(self) -> set[str]:
        return {key.split("/")[3].removesuffix(".tar") for key in self.store.list(f"datasets/{self.name}/shards/")}


@pytest.fixture
def data(store, dataset, classes) -> Dataset:
    return Dataset(store, dataset, classes)


@pytest.fixture
def grown(data) -> list[str]:
    """Five versions; from each to the next, sample d gets a better row in another shard."""
    versions = [data.commit([*BASE, row("d", mask=False, shard="old")])]
    versions.append(data.commit([row("d", mask=False, tags=("x",), shard="tags")]))
    versions.append(data.commit([row("d", shard="mask")]))
    versions.append(data.commit([row("e", shard="more")]))
    versions.append(data.commit([row("d", "val", shard="val")]))
    for version in versions:
        data.store.put(f"datasets/{data.name}/validations/{version}.json", b"{}")
        data.store.put(f"datasets/{data.name}/docs/{version}/static/page.html", b"<p>")
    return versions


def test_head_its_newest_parents_and_pinned_ones_are_kept(data, grown):
    before = sorted(data.store.list(""))
    expected = collect(data.store, data.name, keep=1, pinned=[grown[1]], grace=0, dry_run=True)
    assert sorted(data.store.list("")) == before
    garbage = collect(data.store, data.name, keep=1, pinned=[grown[1]], grace=0)
    assert garbage == expected
    assert set(garbage.versions) == {grown[0], grown[2]}
    assert data.versions() == {grown[1], grown[3], grown[4]}
    assert data.shards() == {"s1", "tags", "mask", "more", "val"}
    assert garbage.shards == ("old",)
    for kind in ("validations", "docs"):
        left = {k.split("/")[3].removesuffix(".json") for k in data.store.list(f"datasets/{data.name}/{kind}/")}
        assert left == {grown[1], grown[3], grown[4]}
    assert set(garbage.objects) == set(before) - set(data.store.list(""))
    assert read_head(data.store, data.name)[0].removing == ()
    assert not collect(data.store, data.name, keep=1, pinned=[grown[1]], grace=0).objects
    assert snapshot.read(data.store, data.name, grown[3]).manifest.version == grown[3]


def test_what_is_younger_than_the_grace_period_stays(data, grown):
    data.put("under-way")
    garbage = collect(data.store, data.name, keep=0, grace=3600)
    assert (garbage.versions, garbage.shards, garbage.objects) == ((), (), {})
    assert garbage.waiting == 1
    assert {"under-way", "old"} <= data.shards()
    assert data.versions() == set(grown)
    assert collect(data.store, data.name, keep=0, grace=0).shards == ("mask", "old", "tags", "under-way")
    assert data.versions() == {grown[-1]}


def test_other_datasets_are_left_alone(data, grown, store, classes):
    other = Dataset(store, f"{data.name}-b", classes)
    other.commit(BASE)
    other.put("nobodys")
    collect(store, data.name, keep=0, grace=0)
    assert other.shards() == {"s1", "nobodys"}


def test_pin_that_cannot_be_kept_is_told(config, classes, store):
    first = ingest(config, classes)
    assert refused(collect, store, config.dataset, 0, ["0" * 16]).code == "DATA202"
    removal.forget(store, config.dataset, [key_at(config, "u000.jpg")], lambda _: None)
    assert refused(collect, store, config.dataset, 0, [first.version]).code == "DATA212"
    assert refused(collect, store, "nothing").code == "DATA201"


def test_snapshots_with_forgotten_samples_go_and_those_from_before_them_stay(config, classes, store, make):
    first = ingest(config, classes)
    for place, name in enumerate(("late", "other")):
        make.photo(config.source / f"images/{name}.jpg", 4711 + place)
    second = ingest(config, classes)
    third = removal.forget(store, config.dataset, [key_at(config, "late.jpg")], lambda _: None).manifest
    garbage = collect(store, config.dataset)
    assert garbage.holding == garbage.versions == (second.version,)
    needed = {e.sha256 for e in (*first.shards, *third.shards)}
    assert set(garbage.shards) == {e.sha256 for e in second.shards} - needed != set()
    names = {key.split("/")[3] for key in store.list(f"datasets/{config.dataset}/snapshots/")}
    assert names == {first.version, third.version}


def test_content_that_was_there_before_is_the_same_snapshot_again(config, classes, store, make):
    first = ingest(config, classes)
    make.photo(config.source / "images/late.jpg", 4711)
    second = ingest(config, classes)
    assert removal.forget(store, config.dataset, [key_at(config, "late.jpg")], lambda _: None).manifest == first
    assert collect(store, config.dataset).versions == (second.version,)


class Watched(Store):
    """A store that stops before its first removal until it is told to go on."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.settings)
        self.reached, self.go_on = threading.Event(), threading.Event()

    def delete(self, key: str) -> None:
        self.reached.set()
        assert self.go_on.wait(30)
        super().delete(key)


def test_shard_that_an_ingest_found_cannot_go_unseen(data, grown):
    """The ingest found its shard in the store, left by one that was killed; gc is about to remove it."""
    watched = Watched(data.store)
    data.put("left")
    thread = threading.Thread(target=collect, args=(watched, data.name, 9), kwargs={"grace": 0})
    thread.start()
    assert watched.reached.wait(30)
    new = [row("f", shard="left")]
    assert refused(data.commit, new, False).code == "DATA210"
    other = data.commit([row("g", shard="fresh")])  # what is not going may be committed
    watched.go_on.set()
    thread.join()
    assert refused(data.commit, new, False).code == "DATA210"
    assert (snapshot.head(data.store, data.name), "left" in data.shards()) == (other, False)
    data.commit(new)
    assert "left" in data.shards()


def test_ingests_and_collections_at_once_leave_all_that_head_names(data, classes):
    data.commit(BASE)
    faults: list[BaseException] = []
    done = threading.Event()

    def commits(name: str) -> None:
        for turn in range(6):
            one = row(name, mask=turn % 2 == 0, tags=("x",) * turn, shard=f"{name}{turn % 3}")
            for _ in range(50):
                try:
                    data.commit([one])
                    break
                except DataError as error:
                    if error.code != "DATA210":
                        faults.append(error)

    def collects() -> None:
        while not done.wait(0.05):  # without a pause it could remove every shard before its commit
            collect(data.store, data.name, keep=0, grace=0)

    committing = [threading.Thread(target=commits, args=(name,)) for name in "def"]
    collecting = threading.Thread(target=collects)
    for thread in (*committing, collecting):
        thread.start()
    for thread in committing:
        thread.join()
    done.set()
    collecting.join()
    found = snapshot.read(data.store, data.name)
    assert faults == []
    assert {r.key[-1] for r in found.rows()} == set("abcdef")
    assert {e.sha256 for e in found.manifest.shards} <= data.shards()
    assert read_head(data.store, data.name)[0].removing == ()


KILLED = """
import os, signal, sys
from semivl.data.garbage import collect
from semivl.data.store import Store, open_store
delete, left = Store.delete, [int(sys.argv[2])]
def killed(self, key):
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    delete(self, key)
Store.delete = killed
collect(open_store(), sys.argv[1], keep=1, grace=0)
"""


@pytest.mark.parametrize("removed", [0, 1, 3, 5, 12])
def test_killed_collection_is_finished_by_the_next_one(data, grown, environment, removed):
    before = set(data.store.list(""))
    expected = collect(data.store, data.name, keep=1, grace=0, dry_run=True)
    process = subprocess.run([sys.executable, "-c", KILLED, data.name, str(removed)], env={**os.environ, **environment})
    assert process.returncode == -signal.SIGKILL
    for version in data.versions():
        manifest = data.store.get_with_etag(f"datasets/{data.name}/snapshots/{version}/manifest.json")
        if manifest:  # whatever can be seen is whole
            assert {e.sha256 for e in snapshot.read(data.store, data.name, version).manifest.shards} <= data.shards()
    collect(data.store, data.name, keep=1)  # a day's grace: what was begun is finished all the same
    assert set(data.store.list("")) == before - set(expected.objects)
    assert read_head(data.store, data.name)[0].removing == ()


def test_copies_in_the_local_cache_are_dropped(tmp_path):
    for name in ("aa.tar", "aa.tar.good", ".aa.tar.x1", "bb.tar"):
        (tmp_path / name).write_bytes(b"x")
    assert drop_cached(tmp_path, ["aa", "cc"]) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["bb.tar"]
    assert drop_cached(tmp_path / "none", ["aa"]) == 0
