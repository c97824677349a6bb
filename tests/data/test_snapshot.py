"""A snapshot is a version of content: immutable, seen whole or not at all, and growing by what is added."""

import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from semivl.config import ClassDefinition, Classes, DataConfig
from semivl.data import snapshot
from semivl.data.checks import Quarantined
from semivl.data.sample import Row
from semivl.data.shards import ShardEntry
from semivl.data.tables import from_parquet, index_table, rows_of, to_parquet
from semivl.errors import DataError


def row(name: str, split="train", mask=True, shard="s1", tags=(), caption=None, source=None) -> Row:
    key = f"{name:0>16}"
    return Row(
        key=key,
        shard=shard,
        image_offset=512,
        image_bytes=100,
        mask_offset=2048 if mask else None,
        mask_bytes=50 if mask else None,
        sha256=f"{key:0<64}",
        mask_sha256=f"{key:f<64}" if mask else None,
        phash="ff00ff00ff00ff00",
        width=10,
        height=8,
        orientation=1,
        split=split,
        supervision="mask" if mask else "tags" if tags else "caption" if caption else "none",
        tags=tags,
        caption=caption,
        pixels=(60, 10, 10) if mask else (),
        ignored=0,
        brightness=100.0,
        source=source or f"images/{name}.jpg",
    )


BASE = [row("a"), row("b", "val"), row("c", mask=False)]


@pytest.fixture
def commit(store, dataset, classes):
    config = DataConfig(dataset=dataset, source="nowhere")  # pyright: ignore[reportCallIssue, reportArgumentType]

    def run(rows, classes=classes, quarantined=()):
        entries = [ShardEntry(sha256=s, bytes=10_000, samples=9) for s in sorted({r.shard for r in rows})]
        return snapshot.commit(store, config, classes, rows, entries, quarantined)

    return run


def refused(action, *arguments) -> DataError:
    with pytest.raises(DataError) as raised:
        action(*arguments)
    return raised.value


def test_committed_snapshot_reads_back(store, dataset, commit):
    left_out = [Quarantined("images/x.jpg", "DATA003", "cut")]
    manifest = commit(BASE, quarantined=left_out)
    found = snapshot.read(store, dataset)
    assert found.manifest == manifest
    assert found.rows() == sorted(BASE, key=lambda r: r.key)
    assert found.rows("train") == [BASE[0], BASE[2]]
    assert found.rows("train", "none") == [BASE[2]]
    assert found.rows(supervision="mask") == BASE[:2]
    assert (manifest.parent, manifest.samples, manifest.quarantined) == (None, 3, 1)
    assert manifest.counts == {"train": 2, "train/mask": 1, "train/none": 1, "val": 1, "val/mask": 1}
    assert snapshot.head(store, dataset) == manifest.version == manifest.digest
    kept = from_parquet(store.get(f"datasets/{dataset}/snapshots/{manifest.version}/quarantine.parquet"))
    assert kept.to_pylist() == [{"source": "images/x.jpg", "code": "DATA003", "reason": "cut", "bytes": None}]


def test_every_key_is_found_and_no_other(store, dataset, commit):
    commit(BASE)
    found = snapshot.read(store, dataset)
    assert [found.find(r.key) for r in BASE] == BASE
    for key in ("0" * 16, "f" * 16, "000000000000000b" + "0"):
        assert found.find(key) is None


def test_same_content_is_the_same_version_in_any_order_and_writes_nothing(store, dataset, commit):
    first = commit(BASE)
    before = sorted(store.list(f"datasets/{dataset}/"))
    assert commit(BASE[::-1], quarantined=[Quarantined("other", "DATA002", "a ZIP")]) == first
    assert commit([]) == first
    assert sorted(store.list(f"datasets/{dataset}/")) == before


def test_version_does_not_hang_on_the_way_there(store, classes):
    def version(name: str, *steps: list[Row]) -> tuple[str, bytes]:
        config = DataConfig(dataset="same-" + name, source="nowhere")  # pyright: ignore[reportCallIssue, reportArgumentType]
        for rows in steps:
            entries = [ShardEntry(sha256="s1", bytes=1, samples=9)]
            manifest = snapshot.commit(store, config, classes, rows, entries, [])
        return manifest.samples, store.get(f"datasets/same-{name}/snapshots/{manifest.version}/index.parquet")

    assert version("a", BASE) == version("b", BASE[:2], BASE[2:]) == version("c", BASE[:2], BASE)


def test_growing_keeps_the_parent_and_its_shards(store, dataset, commit):
    first = commit(BASE)
    second = commit([row("d", mask=False, shard="s2")])
    assert (second.parent, second.samples) == (first.version, 4)
    assert [e.sha256 for e in second.shards] == ["s1", "s2"]
    assert snapshot.read(store, dataset, first.version).manifest == first
    assert len(snapshot.read(store, dataset).rows()) == 4


@pytest.mark.parametrize(
    ("known", "offered", "wins"),
    [
        (row("a"), row("a", mask=False, shard="s2"), "known"),
        (row("a", "val"), row("a", shard="s2"), "known"),
        (row("a", mask=False, tags=("cat",)), row("a", mask=False, shard="s2"), "known"),
        (row("a", mask=False), row("a", shard="s2"), "offered"),
        (row("a"), row("a", "val", shard="s2"), "offered"),
        (row("a"), replace(row("a", shard="s2"), pixels=(1, 2, 77)), "offered"),
        (row("a"), row("a", source="images/renamed.jpg"), "known"),
    ],
    ids=["mask", "evaluation", "tags", "new mask", "to evaluation", "mended mask", "renamed"],
)
def test_sample_is_replaced_unless_less_would_be_known(store, dataset, commit, known, offered, wins):
    commit([known, row("x"), row("y", "val")])
    commit([offered])
    assert snapshot.read(store, dataset).find(known.key) == {"known": known, "offered": offered}[wins]


@examples(deadline=None)
@given(st.permutations([row("a", "val"), row("a"), row("a", mask=False), row("a", "val", source="images/0.jpg")]))
def test_of_the_same_bytes_the_strongest_then_the_first_is_kept(rows):
    kept, doubled = snapshot.distinct(rows)
    assert list(kept.values()) == [row("a", "val", source="images/0.jpg")]
    assert [(q.code, q.source) for q in doubled] == [("DATA011", "images/a.jpg")] * 3


def test_two_commits_at_once_lose_nothing(store, dataset, commit):
    commit(BASE)
    names = "defghij"
    ready = threading.Barrier(len(names))

    def run(name: str) -> None:
        ready.wait()
        commit([row(name, mask=False, shard=f"shard-{name}")])

    threads = [threading.Thread(target=run, args=(n,)) for n in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = snapshot.read(store, dataset)
    assert {r.key[-1] for r in found.rows()} == set("abc" + names)
    assert {e.sha256 for e in found.manifest.shards} == {"s1"} | {f"shard-{n}" for n in names}


def test_other_classes_are_refused_and_other_phrases_are_not(store, dataset, commit, classes):
    first = commit(BASE)
    names = classes.names
    swapped = Classes(classes=tuple(ClassDefinition(name=n) for n in (names[1], names[0], names[2])))  # pyright: ignore[reportCallIssue]
    error = refused(commit, BASE, swapped)
    assert (error.code, names[1] in str(error)) == ("DATA204", True)
    told = Classes(classes=tuple(ClassDefinition(name=n, definitions=(f"a {n}",)) for n in names))  # pyright: ignore[reportCallIssue]
    second = commit([], told)
    assert (second.classes, second.parent) == (told, first.version)


@pytest.mark.parametrize("rows", [[], [row("a", mask=False)], [row("a")], [row("a", "val")]])
def test_dataset_without_training_masks_or_evaluation_is_refused(store, dataset, commit, rows):
    assert refused(commit, rows).code == "DATA205"
    assert list(store.list(f"datasets/{dataset}/")) == []


def test_what_is_not_there(store, dataset, commit):
    assert refused(snapshot.read, store, dataset).code == "DATA201"
    assert snapshot.head(store, dataset) is None
    version = commit(BASE).version
    error = refused(snapshot.read, store, dataset, "0123456789abcdef")
    assert (error.code, version in str(error)) == ("DATA202", True)


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-20], lambda b: b[:300] + b"\0" * 40 + b[340:], lambda b: to_parquet(index_table([]))],
)
def test_damaged_index_is_told(store, dataset, commit, damage):
    version = commit(BASE).version
    key = f"datasets/{dataset}/snapshots/{version}/index.parquet"
    store.put(key, damage(store.get(key)))
    assert refused(snapshot.read, store, dataset).code == "DATA203"


@examples(deadline=None)
@given(st.lists(st.builds(row, st.text("0123456789abcdef", min_size=1, max_size=16), mask=st.booleans(),
                          tags=st.lists(st.text(max_size=5), max_size=3).map(tuple),
                          caption=st.none() | st.text(max_size=20)), max_size=5))  # fmt: skip
def test_rows_go_through_parquet_unchanged_and_to_the_same_bytes(rows):
    body = to_parquet(index_table(rows))
    assert rows_of(from_parquet(body)) == rows
    assert to_parquet(index_table(rows)) == body
