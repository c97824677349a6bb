"""Which samples a method learns from, and what is said of them before the first step."""

from semivl.data.samples import Samples
from semivl.data.snapshot import Snapshot
from semivl.data.stream import Pools
from semivl.data.tables import where
from semivl.errors import TrainingError
from semivl.methods import Method


def training_pools(snapshot: Snapshot, method: Method) -> Pools:
    """The training samples by what the method sees of them (`Method.needs`).

    Raises:
        TrainingError: TRAIN001 no mask, TRAIN002 no image without one, TRAIN012 no tags, TRAIN013 no captions, for a
            method that needs them.
    """
    needs, nothing = method.needs, Samples(snapshot.index.slice(0, 0))
    without = snapshot.rows("train", ("tags", "caption", "none") if "none" in needs else "tags")
    pools = Pools(
        labelled=snapshot.rows("train", "mask") if "mask" in needs else nothing,
        unlabelled=without if needs & {"none", "tags"} else nothing,
        captioned=snapshot.captioned("train") if "caption" in needs else nothing,
    )
    dataset = f"{snapshot.manifest.dataset}@{snapshot.manifest.version}"
    if "mask" in needs and not pools.labelled:
        raise TrainingError("TRAIN001", f"{dataset} has no labelled training image.", "Add masks and ingest again.")
    if "none" in needs and not pools.unlabelled:
        what = f"{dataset} has no unlabelled image to learn from."
        raise TrainingError("TRAIN002", what, "Add some, or use method supervised.")
    if "tags" in needs and not pools.unlabelled:
        what = f"{dataset} has no tagged image without a mask."
        raise TrainingError("TRAIN012", what, "Add tags.jsonl (docs/layouts.md) and ingest again.")
    if "caption" in needs and not pools.captioned:
        what = f"{dataset} has no captioned training image."
        raise TrainingError("TRAIN013", what, "Add captions.jsonl (docs/layouts.md) and ingest again.")
    return pools


def counts(pools: Pools) -> str:
    """In words, how many samples of each kind a training learns from."""
    kinds = []
    if len(pools.labelled):
        kinds.append(f"{len(pools.labelled):,} labelled")
    if len(pools.unlabelled):
        tagged = len(where(pools.unlabelled.table, "supervision", ["tags"]))
        kinds.append(f"{len(pools.unlabelled):,} unlabelled" + (f" ({tagged:,} with tags)" if tagged else ""))
    if len(pools.captioned):
        kinds.append(f"{len(pools.captioned):,} captioned")
    return f"{' and '.join(kinds)} images" if kinds else "no images: the method learns nothing"
