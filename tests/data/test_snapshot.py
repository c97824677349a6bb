"""A snapshot is a version of content: immutable, seen whole or not at all, and growing by what is added."""

import json
import threading
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from semivl.config import ClassDefinition, Classes, DataConfig
from semivl.data import snapshot
from semivl.data.checks import Quarantined
from semivl.data.head import Head, move_head, read_head
from semivl.data.merge import distinct, duplicate, merged, relocated, strength, stronger
from semivl.data.sample import Row
from semivl.data.samples import Samples
from semivl.data.shards import ShardEntry, shard_key
from semivl.data.tables import as_index, content_hash, from_parquet, index_table, sorted_by_key, to_parquet
from semivl.errors import DataError


def row(
    name: str, split="train", mask=True, shard="s1", tags=(), tags_complete=False, caption=None, source=None
) -> Row:
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
        tags_complete=tags_complete,
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
        entries = [ShardEntry(sha256=s, bytes=4, samples=9) for s in sorted({r.shard for r in rows})]
        for entry in entries:
            store.put(shard_key(dataset, entry.sha256), b"tar.")
        return snapshot.commit(store, config, classes, [index_table(rows)], entries, quarantined)

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
    assert list(found.rows()) == sorted(BASE, key=lambda r: r.key)
    assert list(found.rows("train")) == [BASE[0], BASE[2]]
    assert list(found.rows("train", "none")) == [BASE[2]]
    assert list(found.rows(supervision="mask")) == BASE[:2]
    assert list(found.rows("train", {"none", "mask", "tags"})) == [BASE[0], BASE[2]]
    assert list(found.rows("val", frozenset())) == []
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
    def version(name: str, *steps: list[Row]) -> tuple[int, bytes]:
        config = DataConfig(dataset="same-" + name, source="nowhere")  # pyright: ignore[reportCallIssue, reportArgumentType]
        store.put(shard_key("same-" + name, "s1"), b"tar.")
        for rows in steps:
            entries = [ShardEntry(sha256="s1", bytes=4, samples=9)]
            tables = [index_table([row]) for row in rows]
            manifest = snapshot.commit(store, config, classes, tables, entries, [])
        return manifest.samples, store.get(f"datasets/same-{name}/snapshots/{manifest.version}/index.parquet")

    assert version("a", BASE) == version("b", BASE[:2], BASE[2:]) == version("c", BASE[:2], BASE)


def test_growing_keeps_the_parent_and_its_shards(store, dataset, commit):
    first = commit(BASE)
    second = commit([row("d", mask=False, shard="s2")])
    assert (second.parent, second.samples) == (first.version, 4)
    assert [e.sha256 for e in second.shards] == ["s1", "s2"]
    assert (first.added, first.changed, first.removed) == (3, 0, 0)
    assert (second.added, second.changed, second.removed) == (1, 0, 0)
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


def test_sample_that_gains_a_mask_leaves_its_old_shard_which_is_named_no_more(store, dataset, commit):
    commit([*BASE, row("d", mask=False, shard="alone")])
    manifest = commit([row("d", shard="s2")])
    assert [e.sha256 for e in manifest.shards] == ["s1", "s2"]
    assert (manifest.added, manifest.changed) == (0, 1)
    assert manifest.counts["train/mask"] == 2


@examples(deadline=None)
@given(st.permutations([row("a", "val"), row("a"), row("a", mask=False), row("a", "val", source="images/0.jpg")]))
def test_of_the_same_bytes_the_strongest_then_the_first_is_kept(rows):
    kept, doubled = distinct(index_table(rows))
    assert list(Samples(kept)) == [row("a", "val", source="images/0.jpg")]
    assert [(q.code, q.source) for q in doubled] == [("DATA011", "images/a.jpg")] * 3


def plain_distinct(rows: list[Row]) -> tuple[dict[str, Row], list[Quarantined]]:
    kept: dict[str, Row] = {}
    doubled = []
    order = lambda r: (*(not s for s in stronger(r)), r.source, r.shard)  # noqa: E731
    for one in sorted(rows, key=order):
        if one.key in kept:
            doubled.append(duplicate(one.source, kept[one.key].source))
        else:
            kept[one.key] = one
    return kept, doubled


def plain_merged(known: dict[str, Row], new: dict[str, Row]) -> dict[str, Row]:
    """What `merge` does on columns, a row at a time."""
    result = dict(known)
    for key, offered in new.items():
        old = known.get(key)
        weaker = old and stronger(old) > stronger(offered)
        same = old and replace(offered, source=old.source) == old
        if not (weaker or same):
            result[key] = offered
    return dict(sorted(result.items()))


some_rows = st.lists(
    st.builds(
        row,
        st.sampled_from("abcd"),
        split=st.sampled_from(["train", "val"]),
        mask=st.booleans(),
        shard=st.sampled_from(["s1", "s2"]),
        tags=st.sampled_from([(), ("cat",), ("cat", "dog"), ("dog", "cat")]),
        tags_complete=st.booleans(),
        caption=st.sampled_from([None, "", "a cat"]),
        source=st.sampled_from(["images/0.jpg", "images/1.jpg"]),
    ),
    max_size=8,
)


@examples(deadline=None, max_examples=300)
@given(st.lists(some_rows, max_size=4))
def test_merging_columns_is_merging_rows(steps):
    table, rows = index_table([]), {}
    for step in steps:
        new, doubled = distinct(index_table(step))
        expected, expected_doubled = plain_distinct(step)
        assert [list(Samples(new)), sorted(map(str, doubled))] == [
            [expected[key] for key in sorted(expected)],
            sorted(map(str, expected_doubled)),
        ]
        result, before = merged(table, new), rows
        rows = plain_merged(before, expected)
        assert list(Samples(result.index)) == list(rows.values())
        assert result.added == len(rows) - len(before)
        assert result.changed == sum(rows[key] != before[key] for key in before)
        table = result.index


@given(some_rows)
def test_strength_orders_as_stronger_does(rows):
    ranks = strength(index_table(rows)).tolist()
    for one, rank in zip(rows, ranks, strict=True):
        assert rank == sum(bit << place for bit, place in zip(stronger(one), (4, 3, 2, 1, 0), strict=True))


@examples(deadline=None)
@given(some_rows, st.integers(1, 5), st.booleans())
def test_version_is_of_what_the_table_says_not_of_how_it_lies_in_memory(rows, cut, dictionaries):
    table = index_table(rows)
    laid_out = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    if dictionaries:
        for name in ("shard", "split", "key"):
            at = laid_out.schema.get_field_index(name)
            laid_out = laid_out.set_column(at, name, laid_out[name].dictionary_encode())
    laid_out = laid_out.set_column(9, "width", laid_out["width"].cast(pa.int64()))
    assert content_hash("", laid_out) == content_hash("", table)
    assert content_hash("", from_parquet(to_parquet(laid_out))) == content_hash("", table)


@pytest.mark.parametrize(
    "change",
    [{"caption": ""}, {"caption": "x"}, {"tags": ("a", "b")}, {"tags": ("ab",)}, {"tags_complete": True},
     {"mask_offset": None}, {"pixels": ()}, {"pixels": (10, 60, 10)}, {"brightness": 100.01}, {"source": "b"},
     {"orientation": 2}],
    ids=str,
)  # fmt: skip
def test_version_tells_any_two_contents_apart(change):
    both = [row("a", tags=("a",)), replace(row("a", tags=("a",)), **change)]
    assert len({content_hash("", index_table([one])) for one in both}) == 2
    assert content_hash("", index_table(both)) != content_hash("", index_table(both[::-1]))


def test_rows_of_a_shard_that_was_rewritten_take_the_new_place():
    known = sorted_by_key(index_table([row("a", shard="new"), row("b", shard="new"), row("c", "val", shard="s2")]))
    offered = [row("a", "val", shard="old"), row("b", mask=False, shard="old"), row("d", shard="s2")]
    placed, lost = relocated(known, sorted_by_key(index_table(offered)), {"new", "s2"})
    assert list(Samples(placed)) == [row("a", "val", shard="new"), row("d", shard="s2")]
    assert lost == 0  # HEAD knows a mask of b by now
    for gone in (row("e", shard="old"), replace(row("a", shard="old"), mask_sha256="0" * 64)):
        assert relocated(known, index_table([gone]), {"new", "s2"})[1] == 1


def test_shard_that_is_gone_or_going_is_not_committed(store, dataset, commit, classes):
    commit(BASE)
    config = DataConfig(dataset=dataset, source="nowhere")  # pyright: ignore[reportCallIssue, reportArgumentType]
    entries = [ShardEntry(sha256="s9", bytes=4, samples=1)]

    def add():
        return snapshot.commit(store, config, classes, [index_table([row("d", shard="s9")])], entries, [])

    assert refused(add).code == "DATA210"
    store.put(shard_key(dataset, "s9"), b"tar.")
    current, etag = read_head(store, dataset)
    assert current and move_head(store, dataset, current.model_copy(update={"removing": ("s9",)}), etag)
    assert refused(add).code == "DATA210"
    current, etag = read_head(store, dataset)
    assert current and move_head(store, dataset, current.model_copy(update={"removing": ()}), etag)
    assert add().samples == 4


def test_forgotten_sample_does_not_come_back(store, dataset, commit):
    version = commit(BASE).version
    _, etag = read_head(store, dataset)
    head = Head(version=version, forgotten=(row("d").key, row("e").key))
    assert move_head(store, dataset, head, etag)
    assert snapshot.forgotten(store, dataset) == {row("d").key, row("e").key}
    assert refused(commit, [row("d", shard="s2")]).code == "DATA209"  # the new shard holds its bytes
    manifest = snapshot.commit(
        store,
        DataConfig(dataset=dataset, source="nowhere"),  # pyright: ignore[reportCallIssue, reportArgumentType]
        snapshot.read(store, dataset).manifest.classes,
        [index_table([row("d"), row("f")])],
        shards=[],
        quarantined=[],
    )
    assert [r.key[-1] for r in snapshot.read(store, dataset).rows()] == list("abcf")
    assert manifest.quarantined == 1
    assert read_head(store, dataset)[0] == head.model_copy(update={"version": manifest.version})


def test_snapshot_of_an_earlier_version_of_the_software_is_read(store, dataset, commit):
    version = commit(BASE).version
    at = f"datasets/{dataset}/snapshots/{version}/"
    old = json.loads(store.get(at + "manifest.json"))
    for name in ("created", "added", "changed", "removed"):
        del old[name]
    store.put(at + "manifest.json", json.dumps(old).encode())
    store.put(at + "index.parquet", to_parquet(index_table(BASE).drop_columns(["brightness"])))
    found = snapshot.read(store, dataset)
    assert found.manifest.created is None
    assert list(found.rows()) == [replace(r, brightness=None) for r in BASE]
    second = commit([row("d", mask=False, shard="s2")])
    assert (second.parent, second.samples) == (version, 4)


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
def test_dataset_without_training_images_or_evaluation_is_refused(store, dataset, commit, rows):
    assert refused(commit, rows).code == "DATA205"
    assert [key for key in store.list(f"datasets/{dataset}/") if "/shards/" not in key] == []


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
                          tags=st.lists(st.text(max_size=5), max_size=3).map(tuple), tags_complete=st.booleans(),
                          caption=st.none() | st.text(max_size=20)), max_size=5))  # fmt: skip
def test_rows_go_through_parquet_unchanged_and_to_the_same_bytes(rows):
    body = to_parquet(index_table(rows))
    assert list(Samples(from_parquet(body))) == rows
    assert to_parquet(index_table(rows)) == body


def test_index_from_before_tags_could_be_complete_keeps_its_version():
    table = index_table([row("a", mask=False, tags=("cat",)), row("b")])
    older = table.drop_columns(["tags_complete"])
    assert content_hash("", older) == content_hash("", table)
    assert [r.tags_complete for r in Samples(as_index(older))] == [False, False]
