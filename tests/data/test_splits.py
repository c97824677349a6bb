"""Which images a first ingest keeps for evaluation, where neither a list nor a column says so, and that they stay."""

from pathlib import Path

import pytest

from semivl.data import snapshot
from semivl.data.ingest import ingest
from semivl.data.shards import sha256_of_file
from semivl.data.splits import rank


def splits_of(store, dataset) -> dict[str, str]:
    return {row.source: row.split for row in snapshot.read(store, dataset).rows()}


def test_split_by_hash_stays_as_data_grow(config, classes, store, make):
    config = config.model_copy(update={"evaluation_list": None, "evaluation_share": 0.5})
    ingest(config, classes)
    before = splits_of(store, config.dataset)
    for place in range(8):
        make.photo(config.source / f"images/a{place}.jpg", 900 + place)
        make.mask(config.source / f"masks/a{place}.png")
    ingest(config, classes)
    after = splits_of(store, config.dataset)
    assert {name: after[name] for name in before} == before
    assert {"train", "val"} == {split for name, split in after.items() if "/a" in name}


def test_of_two_masked_images_one_is_for_evaluation(config, classes, store, make, tmp_path):
    two = make.source(tmp_path / "two", labelled=2, evaluation=0, unlabelled=1)
    for name, share in (("low", 0.001), ("high", 0.999)):
        named = {"source": two, "evaluation_list": None, "evaluation_share": share}
        named["dataset"] = f"{config.dataset}-{name}"
        counts = ingest(config.model_copy(update=named), classes).counts
        assert (counts["train/mask"], counts["val/mask"]) == (1, 1)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_what_a_table_says_of_splits_stays_where_the_hash_leaves_a_side_empty(config, classes, store, make, share):
    """All masked photos are for training by the table, or all for evaluation, but for one that it leaves open: the
    last to go by its rank."""
    side, other = ("train", "val") if share < 0.5 else ("val", "train")
    masked = sorted(p.stem for p in (config.source / "masks").iterdir())
    ranked = sorted(masked, key=lambda name: rank(sha256_of_file(config.source / f"images/{name}.jpg")))
    left_open = ranked[-1] if share < 0.5 else ranked[0]
    told = "".join(f"{name},{side}\n" for name in masked if name != left_open)
    (config.source / "splits.csv").write_text(f"image,split\n{told}")
    changed = {"evaluation_list": None, "split_table": "splits.csv", "evaluation_share": share}
    ingest(config.model_copy(update=changed), classes)
    splits = {Path(name).stem: split for name, split in splits_of(store, config.dataset).items()}
    assert {name: splits[name] for name in masked} == dict.fromkeys(masked, side) | {left_open: other}
