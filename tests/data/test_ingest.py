"""An ingest keeps the good files, tells of the others, and ends in the same state however it got there."""

import os
import pickle
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from semivl.data import snapshot
from semivl.data.cache import ShardCache, read_sample
from semivl.data.decode import decode_image, decode_mask
from semivl.data.ingest import build_shard, commit, ingest, left_out, plan
from semivl.data.removal import forget
from semivl.data.shards import shard_key
from semivl.data.source_files import LocalFiles
from semivl.data.tables import from_parquet
from semivl.errors import DataError


def sources_of(store, dataset) -> dict[str, tuple[str, str]]:
    return {r.source: (r.split, r.supervision) for r in snapshot.read(store, dataset).rows()}


def quarantine(store, manifest) -> dict[str, str]:
    key = f"datasets/{manifest.dataset}/snapshots/{manifest.version}/quarantine.parquet"
    return {q["source"]: q["code"] for q in from_parquet(store.get(key)).to_pylist()}


def lose_ledger(store, dataset) -> None:
    (key,) = store.list(f"datasets/{dataset}/ledgers/")
    store.delete(key)


def opened(monkeypatch) -> list[str]:
    """The names of the files that are read from now on."""
    names: list[str] = []
    read = LocalFiles.read

    def told(self, name, *rest):
        names.append(name)
        return read(self, name, *rest)

    monkeypatch.setattr(LocalFiles, "read", told)
    return names


def test_every_image_becomes_a_sample(config, classes, store):
    manifest = ingest(config, classes)
    assert manifest.counts == {"train": 10, "train/mask": 4, "train/none": 6, "val": 3, "val/mask": 3}
    assert (manifest.quarantined, sorted(e.samples for e in manifest.shards)) == (0, [3, 5, 5])
    assert sources_of(store, config.dataset)["images/v001.jpg"] == ("val", "mask")


def test_broken_files_are_left_out_and_told_and_the_rest_goes_on(config, classes, store, make):
    images, masks = config.source / "images", config.source / "masks"
    whole = (images / "u000.jpg").read_bytes()
    (images / "u000.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "u001.jpg").write_bytes(b"PK\x03\x04 not a photo")
    (images / "u002.jpg").write_bytes(b"")
    make.mask(masks / "m000.png", np.full((32, 48), 9, np.uint8))
    make.mask(masks / "m001.png", size=(47, 32))
    (config.source / "val.txt").open("a").write("gone\n")
    make.photo(images / "z-again.jpg", 500 + 3)  # the bytes of u003
    manifest = ingest(config, classes)
    assert manifest.counts == {"train": 5, "train/mask": 2, "train/none": 3, "val": 3, "val/mask": 3}
    assert quarantine(store, manifest) == {
        "images/gone": "DATA001",
        "images/u000.jpg": "DATA003",
        "images/u001.jpg": "DATA002",
        "images/u002.jpg": "DATA009",
        "images/z-again.jpg": "DATA011",
        "masks/m000.png": "DATA004",
        "masks/m001.png": "DATA005",
    }
    assert manifest.quarantined == 7


def test_ingest_again_ends_in_the_same_state_and_writes_nothing(config, classes, store):
    first = ingest(config, classes)
    before = sorted(store.list(f"datasets/{config.dataset}/"))
    planned = plan(config, classes)
    assert (planned.groups, len(planned.known)) == ((), 13)
    assert commit(config, classes, planned, []) == first
    assert sorted(store.list(f"datasets/{config.dataset}/")) == before


def test_growing_writes_new_samples_only(config, classes, store, make):
    first = ingest(config, classes)
    make.photo(config.source / "images/a-new.jpg", 77)  # first by name: it moves every group
    second = ingest(config, classes)
    assert second.parent == first.version
    added = [e for e in second.shards if e not in first.shards]
    assert ([e.samples for e in added], set(first.shards) < set(second.shards)) == ([1], True)
    assert sources_of(store, config.dataset)["images/a-new.jpg"] == ("train", "none")


def test_only_new_and_changed_files_are_opened(config, classes, store, make, monkeypatch):
    (config.source / "images/broken.jpg").write_bytes(b"PK\x03\x04 not a photo")
    ingest(config, classes)
    names = opened(monkeypatch)
    make.photo(config.source / "images/new.jpg", 77)
    make.photo(config.source / "images/u003.jpg", 78)
    make.mask(config.source / "masks/u005.png")
    second = ingest(config, classes)
    pictures = {n for n in names if n.startswith(("images/", "masks/"))}
    assert pictures == {"images/new.jpg", "images/u003.jpg", "images/u005.jpg", "masks/u005.png"}
    assert second.samples == 13 + 2  # the new photo, and the new content under a known name
    assert quarantine(store, second) == {"images/broken.jpg": "DATA002"}


def test_lost_ledger_costs_only_reading(config, classes, store):
    first = ingest(config, classes)
    lose_ledger(store, config.dataset)
    assert ingest(config, classes) == first


def test_other_limits_are_a_reason_to_look_again(config, classes, store):
    ingest(config, classes)
    stricter = config.model_copy(update={"max_pixels": 1})
    assert len(plan(stricter, classes).known) == 0


def test_killed_ingest_goes_on_after_its_finished_groups(config, classes, store, monkeypatch):
    groups = plan(config, classes).groups
    for group in groups[:2]:
        build_shard(config, classes, group)
    names = opened(monkeypatch)
    manifest = ingest(config, classes)
    done = {p.source.image.as_posix() for group in groups[:2] for p in group}
    assert manifest.samples == 13
    assert done.isdisjoint(names)
    assert not list(store.list(f"datasets/{config.dataset}/groups/"))


def test_finished_group_whose_shard_is_gone_is_built_again(config, classes, store):
    built = build_shard(config, classes, plan(config, classes).groups[0])
    assert built.entry is not None
    store.delete(shard_key(config.dataset, built.entry.sha256))
    assert ingest(config, classes).samples == 13
    assert store.exists(shard_key(config.dataset, built.entry.sha256))


def test_result_is_the_same_whatever_the_number_of_workers(config, classes, store):
    found = []
    for workers in (1, 3):
        named = config.model_copy(update={"dataset": f"{config.dataset}-{workers}"})
        manifest = ingest(named, classes, workers)
        rows = [asdict(row) for row in snapshot.read(store, named.dataset).rows()]
        found.append((manifest.shards, rows))
    assert found[0] == found[1]


def test_forgotten_photo_is_not_taken_in_again(config, classes, store):
    ingest(config, classes)
    (row,) = [r for r in snapshot.read(store, config.dataset).rows() if r.source == "images/u001.jpg"]
    forget(store, config.dataset, [row.key])
    ingest(config, classes)
    assert "images/u001.jpg" not in sources_of(store, config.dataset)
    refusals = {q.source: q.code for q in left_out(plan(config, classes), [])}
    assert refusals["images/u001.jpg"] == "DATA208"


def test_new_mask_of_a_known_image_is_taken_in(config, classes, store, make):
    ingest(config, classes)
    make.mask(config.source / "masks/u004.png")
    ingest(config, classes)
    assert sources_of(store, config.dataset)["images/u004.jpg"] == ("train", "mask")


def test_mended_mask_replaces_the_old_one(config, classes, store, make, tmp_path):
    ingest(config, classes)
    ids = decode_mask((config.source / "masks/m002.png").read_bytes()).copy()
    ids[5:9, 5:9] = 2
    make.mask(config.source / "masks/m002.png", ids)
    ingest(config, classes)
    (row,) = [r for r in snapshot.read(store, config.dataset).rows() if r.source == "images/m002.jpg"]
    _, mask = read_sample(ShardCache(store, config.dataset, tmp_path / "cache"), row)
    assert mask is not None
    assert (decode_mask(mask) == ids).all()


def test_unlabelled_copies_of_known_images_take_nothing_away(config, classes, store, tmp_path):
    manifest = ingest(config, classes)
    copies = tmp_path / "more"
    (copies / "images").mkdir(parents=True)
    for name in ("v000", "m000"):
        body = (config.source / f"images/{name}.jpg").read_bytes()
        (copies / f"images/copy-{name}.jpg").write_bytes(body)
    assert ingest(config.model_copy(update={"source": copies, "evaluation_list": None}), classes) == manifest


@pytest.mark.parametrize("order", [("m000", "v000"), ("v000", "m000"), ("u000", "v000"), ("u000", "m000")])
@pytest.mark.parametrize("shard_samples", [100, 2])
def test_same_bytes_twice_are_one_sample_the_better_known(config, classes, store, order, shard_samples):
    images = config.source / "images"
    weaker, stronger = sorted(order, key=lambda name: "umv".index(name[0]))
    (images / f"{weaker}.jpg").write_bytes((images / f"{stronger}.jpg").read_bytes())
    manifest = ingest(config.model_copy(update={"shard_samples": shard_samples}), classes)
    found = sources_of(store, config.dataset)
    assert (f"images/{weaker}.jpg" in found, f"images/{stronger}.jpg" in found) == (False, True)
    assert quarantine(store, manifest) == {f"images/{weaker}.jpg": "DATA011"}
    assert ingest(config, classes) == manifest
    lose_ledger(store, config.dataset)
    assert ingest(config, classes) == manifest


def test_where_the_better_known_copy_is_broken_the_other_one_stays(config, classes, store, make):
    images = config.source / "images"
    (images / "u000.jpg").write_bytes((images / "m000.jpg").read_bytes())
    make.mask(config.source / "masks/m000.png", size=(9, 9))
    manifest = ingest(config, classes)
    assert sources_of(store, config.dataset)["images/u000.jpg"] == ("train", "none")
    assert quarantine(store, manifest) == {"masks/m000.png": "DATA005"}


def test_deleted_shard_is_written_again(config, classes, store):
    manifest = ingest(config, classes)
    lost = shard_key(config.dataset, manifest.shards[0].sha256)
    store.delete(lost)
    assert ingest(config, classes) == manifest
    assert store.exists(lost)


def test_webdataset_reads_the_shards_of_the_store(config, classes, store, tmp_path):
    manifest = ingest(config, classes)
    paths = []
    for entry in manifest.shards:
        paths.append(str(tmp_path / f"{entry.sha256}.tar"))
        store.download(shard_key(config.dataset, entry.sha256), tmp_path / f"{entry.sha256}.tar")
    read = {s["__key__"]: s for s in webdataset.WebDataset(paths, shardshuffle=False)}
    rows = snapshot.read(store, config.dataset).rows()
    assert read.keys() == {r.key for r in rows}
    cache = ShardCache(store, config.dataset, tmp_path / "cache")
    for row in rows:
        assert (read[row.key]["jpg"], read[row.key].get("mask.png")) == read_sample(cache, row)


def test_seen_size_is_that_of_the_decoded_sample(config, classes, store, make, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    make.photo(config.source / "images/turned.jpg", 9, exif=exif)
    make.mask(config.source / "masks/turned.png", size=(32, 48))
    ingest(config, classes)
    cache = ShardCache(store, config.dataset, tmp_path / "cache")
    rows = snapshot.read(store, config.dataset).rows(supervision="mask")
    assert {r.orientation for r in rows} == {1, 6}
    for row in rows:
        image, mask = read_sample(cache, row)
        assert mask is not None
        assert decode_image(image).shape[:2] == decode_mask(mask).shape == (row.height, row.width)


def test_first_source_without_masks_is_refused_before_it_is_read(config, classes, make, tmp_path):
    bare = make.source(tmp_path / "bare", labelled=0, evaluation=0)
    changed = config.model_copy(update={"source": bare, "evaluation_list": None})
    with pytest.raises(DataError) as raised:
        plan(changed, classes)
    assert raised.value.code == "DATA205"
    ingest(config, classes)
    assert len(plan(changed, classes).groups) == 2  # once there are masks, images without are welcome


def test_source_whose_masks_are_all_broken_is_refused_with_nothing_visible(config, classes, store, make):
    for mask in (config.source / "masks").glob("m*.png"):
        make.mask(mask, size=(9, 9))
    with pytest.raises(DataError) as raised:
        ingest(config, classes)
    assert raised.value.code == "DATA205"
    assert snapshot.head(store, config.dataset) is None


def test_source_with_evaluation_masks_alone_is_taken(config, classes, store, make, tmp_path):
    source = make.source(tmp_path / "named", labelled=0, evaluation=2)
    ingest(config.model_copy(update={"source": source}), classes)
    found = snapshot.read(store, config.dataset).manifest.counts
    assert found["val"] == 2 and found["train"] and "train/mask" not in found


def test_other_classes_are_refused_before_anything_is_written(config, classes, store, make):
    ingest(config, classes)
    make.photo(config.source / "images/new.jpg", 99)
    before = sorted(store.list(f"datasets/{config.dataset}/"))
    fewer = classes.model_copy(update={"classes": classes.classes[:2]})
    with pytest.raises(DataError) as raised:
        ingest(config, fewer)
    assert raised.value.code == "DATA204"
    assert sorted(store.list(f"datasets/{config.dataset}/")) == before


def test_scratch_of_a_killed_ingest_goes_after_a_day(config, classes, environment):
    scratch = Path(environment["SEMIVL_HOME"]) / "tmp"
    for name, age in (("old", 25), ("new", 1)):
        (scratch / name).mkdir(parents=True)
        (scratch / name / "shard.tar").write_bytes(b"cut")
        os.utime(scratch / name, (time.time() - age * 3600,) * 2)
    ingest(config, classes)
    assert [p.name for p in scratch.iterdir()] == ["new"]


def test_result_of_a_shard_is_small_and_plain(config, classes):
    built = [build_shard(config, classes, group) for group in plan(config, classes).groups]
    assert pickle.loads(pickle.dumps(built)) == built
    assert max(len(pickle.dumps(b)) for b in built) < 20_000


def test_file_that_could_not_be_read_for_now_is_looked_at_again(config, classes, store, monkeypatch):
    read = LocalFiles.read

    def fails(self, name, *rest):
        if name == "images/u001.jpg":
            raise OSError(5, "input/output error")
        return read(self, name, *rest)

    monkeypatch.setattr(LocalFiles, "read", fails)
    assert quarantine(store, ingest(config, classes)) == {"images/u001.jpg": "DATA001"}
    monkeypatch.setattr(LocalFiles, "read", read)
    ingest(config, classes)
    assert "images/u001.jpg" in sources_of(store, config.dataset)


def test_first_sample_moved_to_training_stays_there(config, classes, store, make, tmp_path):
    """All hashes say evaluation; with the ledger lost, every file is looked at again."""
    two = make.source(tmp_path / "two", labelled=2, evaluation=0, unlabelled=1)
    config = config.model_copy(update={"source": two, "evaluation_list": None, "evaluation_share": 0.999})
    first = ingest(config, classes)
    lose_ledger(store, config.dataset)
    assert ingest(config, classes) == first


def test_name_with_control_characters_is_left_out_and_nothing_else(config, classes, store, make):
    make.photo(config.source / "images/a\x01b.jpg", 71)
    make.photo(config.source / "images/a_b.jpg", 72)
    manifest = ingest(config, classes)
    assert quarantine(store, manifest) == {"images/a\\x01b.jpg": "DATA020"}
    assert not any("\x01" in source for source in sources_of(store, config.dataset))
    assert manifest.samples == 14


def test_source_that_tells_less_brings_no_old_mask_back(config, classes, store, make, tmp_path):
    """An ingest of bare images recognises a sample before, and commits after, its mask was mended."""
    ingest(config, classes)
    bare = tmp_path / "bare"
    (bare / "images").mkdir(parents=True)
    (bare / "images/m000.jpg").write_bytes((config.source / "images/m000.jpg").read_bytes())
    less = config.model_copy(update={"source": bare, "evaluation_list": None})
    planned = plan(less, classes)
    built = [build_shard(less, classes, group) for group in planned.groups]
    ids = decode_mask((config.source / "masks/m000.png").read_bytes()).copy()
    ids[5:9, 5:9] = 2
    make.mask(config.source / "masks/m000.png", ids)
    mended = ingest(config, classes)
    assert commit(less, classes, planned, built) == mended


def test_shard_that_was_cut_is_written_again(config, classes, store):
    manifest = ingest(config, classes)
    key = shard_key(config.dataset, manifest.shards[0].sha256)
    whole = store.get(key)
    store.put(key, whole[:-512])
    assert ingest(config, classes) == manifest
    assert store.get(key) == whole


def test_damaged_ledger_is_as_none(config, classes, store):
    manifest = ingest(config, classes)
    (key,) = store.list(f"datasets/{config.dataset}/ledgers/")
    told = store.client.head_object(Bucket=store.bucket, Key=key)["Metadata"]
    body = bytearray(store.get(key))
    body[100] ^= 1
    store.client.put_object(Bucket=store.bucket, Key=key, Body=bytes(body), Metadata=told)
    assert ingest(config, classes) == manifest
