"""The evaluation set stays as the dataset grows, until somebody moves it; what a model has seen is known for good."""

from dataclasses import replace

import pytest

from semivl.config import Config, GateConfig
from semivl.data import garbage
from semivl.data.manifest import snapshot_key
from semivl.data.snapshot import Snapshot
from semivl.data.store import Store
from semivl.errors import RegistryError
from semivl.evaluation.scores import evaluation_rows, split_digest
from semivl.registry.frozen import evaluation_set, freeze, frozen_set, frozen_snapshots
from semivl.registry.gate_exposure import exposure
from semivl.registry.tracking import client
from semivl.registry.trained_on import TrainedOn, trained_on
from tests.made_snapshots import Sample, grown, samples
from tests.tiny import CLASSES


def masked(made: list[Sample]) -> list[Sample]:
    """The samples, those with a mask knowing where it lies."""
    return [(image, replace(row, mask_offset=0, mask_bytes=1) if row.mask_sha256 else row) for image, row in made]


@pytest.fixture
def first(store: Store, config: Config) -> Snapshot:
    return grown(store, config.data.dataset, CLASSES, masked(samples()))


def larger(store: Store, config: Config) -> Snapshot:
    """The dataset after more images came, three of them for evaluation."""
    return grown(store, config.data.dataset, CLASSES, masked(samples(seed=7)))


def chosen(store: Store, config: Config, asked: str | None = None) -> tuple[str, int, bool]:
    """The snapshot that is compared on, its evaluation images, and whether the gate will take it."""
    snapshot, digest = evaluation_set(store, config, asked)
    return snapshot.manifest.version, len(evaluation_rows(snapshot, "val")), split_digest(snapshot) == digest


def test_the_set_of_the_first_decision_stays_as_the_dataset_grows(store: Store, config: Config, first: Snapshot):
    assert chosen(store, config) == (first.manifest.version, 3, True)
    assert larger(store, config).manifest.version != first.manifest.version
    assert chosen(store, config) == (first.manifest.version, 3, True)


def test_it_moves_when_somebody_moves_it(store: Store, config: Config, first: Snapshot):
    evaluation_set(store, config)
    after = larger(store, config)
    moved = freeze(store, config.registered_model, after, "dogs came", "ann")
    assert chosen(store, config) == (after.manifest.version, 6, True)
    assert frozen_set(store, config.registered_model) == moved and (moved.reason, moved.by) == ("dogs came", "ann")


def test_another_set_that_is_asked_for_is_not_the_frozen_one(store: Store, config: Config, first: Snapshot):
    evaluation_set(store, config)
    after = larger(store, config).manifest.version
    assert chosen(store, config, after) == (after, 6, False)
    assert chosen(store, config, first.manifest.version) == (first.manifest.version, 3, True)


def test_the_experiment_outranks_the_record(store: Store, config: Config, first: Snapshot):
    evaluation_set(store, config)
    after = larger(store, config)
    pinned = config.model_copy(update={"gate": GateConfig(evaluation_snapshot=after.manifest.version)})
    assert chosen(store, pinned) == (after.manifest.version, 6, True)
    digest = config.model_copy(update={"gate": GateConfig(evaluation_digest=split_digest(after))})
    assert chosen(store, digest)[2] is False


def test_a_frozen_set_that_is_gone_is_told(store: Store, config: Config, first: Snapshot):
    evaluation_set(store, config)
    for name in ("manifest.json", "index.parquet"):
        store.delete(snapshot_key(config.data.dataset, first.manifest.version, name))
    with pytest.raises(RegistryError, match=r"REG022.*semivl freeze"):
        evaluation_set(store, config)
    assert frozen_snapshots(store, config.data.dataset) == ()


def test_what_a_model_saw_is_known_after_its_snapshot_was_collected(store: Store, config: Config, versions: str):
    learned = grown(store, "learned", CLASSES, masked(samples(seed=3)))
    judged = grown(store, config.data.dataset, CLASSES, masked([*samples(), *samples(seed=3)[:1]]))
    for name, value in (("semivl.dataset", "learned"), ("semivl.snapshot", learned.manifest.version)):
        client().set_model_version_tag(versions, "1", name, value)
    rows = evaluation_rows(judged, "val")
    before = exposure(store, versions, 1, rows, "d1", 4)
    assert [(one.snapshot, one.exact) for one in before.overlaps] == [(learned.manifest.version, 0)]
    grown(store, "learned", CLASSES, masked(samples(seed=4)))
    garbage.collect(store, "learned", keep=0, grace=0)
    assert exposure(store, versions, 1, rows, "d1", 4) == before
    later = exposure(store, versions, 1, rows, "d2", 4)
    assert later.overlaps == () and learned.manifest.version in later.unknown[0]


def test_lineage_goes_back_over_every_warm_start(store: Store, versions: str):
    for number, parent in ((1, ""), (2, "1"), (3, "2")):
        tags = {"semivl.dataset": "d", "semivl.snapshot": f"s{number}", "semivl.parent_version": parent}
        for name, value in tags.items():
            client().set_model_version_tag(versions, str(number), name, value)
    assert trained_on(versions, 3) == tuple(
        TrainedOn(dataset="d", snapshot=f"s{n}", model=versions, model_version=n) for n in (3, 2, 1)
    )
    client().set_model_version_tag(versions, "1", "semivl.parent_version", "3")
    assert len(trained_on(versions, 3)) == 3, "a circle ends"


def tag(model: str, version: int, **tags: str) -> None:
    for name, value in tags.items():
        client().set_model_version_tag(model, str(version), f"semivl.{name}", value)


def test_lineage_goes_back_over_teachers_their_parents_and_their_teachers(store: Store, versions: str):
    teacher = f"{versions}-teacher"
    client().create_registered_model(teacher)
    for number in (1, 2):
        client().create_model_version(teacher, "s3://nowhere/model")
        tag(teacher, number, dataset="d", snapshot=f"of-teacher-{number}")
    tag(versions, 1, dataset="d", snapshot="s1")
    tag(versions, 2, dataset="d", snapshot="s2", parent_version="1", teacher=f"{teacher}/2")
    tag(teacher, 2, parent_version="1", teacher=f"{versions}/1")
    tag(teacher, 1, teacher=f"{versions}/2")
    assert [(one.model, one.model_version, one.snapshot) for one in trained_on(versions, 2)] == [
        (versions, 2, "s2"),
        (versions, 1, "s1"),
        (teacher, 2, "of-teacher-2"),
        (teacher, 1, "of-teacher-1"),
    ]


def test_what_a_teacher_saw_is_seen_by_the_gate(store: Store, config: Config, versions: str):
    seen_before = grown(store, f"{versions}-taught", CLASSES, masked(samples(seed=3)))
    photo = next((image, row) for image, row in masked(samples(seed=3)) if row.split == "train")
    judged = grown(store, config.data.dataset, CLASSES, [*masked(samples()), evaluated(photo)])
    own = grown(store, f"{versions}-own", CLASSES, masked(samples(seed=5)))
    tag(versions, 1, dataset=seen_before.manifest.dataset, snapshot=seen_before.manifest.version)
    tag(versions, 2, dataset=own.manifest.dataset, snapshot=own.manifest.version)
    rows = evaluation_rows(judged, "val")
    assert [one.exact for one in exposure(store, versions, 2, rows, versions, 4).overlaps] == [0]
    tag(versions, 2, teacher=f"{versions}/1")
    found = exposure(store, versions, 2, rows, versions, 4)
    assert [one.exact for one in found.overlaps] == [0, 1] and found.unknown == ()


def evaluated(sample: Sample) -> Sample:
    """The sample among the evaluation images, with a mask."""
    image, row = sample
    masked_as = {"mask_sha256": row.mask_sha256 or "0" * 64, "mask_offset": 0, "mask_bytes": 1}
    return image, replace(row, split="val", supervision="mask", **masked_as)


def test_what_a_teacher_in_a_folder_saw_is_unknown_to_the_gate_and_no_more(store: Store, config: Config, versions: str):
    own = grown(store, config.data.dataset, CLASSES, masked(samples()))
    tag(versions, 1, dataset=config.data.dataset, snapshot=own.manifest.version, teacher="/runs/a/model")
    assert len(trained_on(versions, 1)) == 1
    assert "/runs/a/model" in exposure(store, versions, 1, [], versions, 4).unknown[0]


@pytest.mark.parametrize(("spoil", "code"), [("tags", "REG020"), ("parent", "REG004"), ("teacher", "REG004")])
def test_a_lineage_with_a_gap_is_told_and_unknown_to_the_gate(store: Store, versions: str, spoil: str, code: str):
    if spoil != "tags":
        before = {"semivl.parent_version": "99"} if spoil == "parent" else {"semivl.teacher": "none-of-these/1"}
        tags = {"semivl.dataset": "d", "semivl.snapshot": "s"} | before
        for name, value in tags.items():
            client().set_model_version_tag(versions, "1", name, value)
    with pytest.raises(RegistryError, match=code):
        trained_on(versions, 1)
    assert exposure(store, versions, 1, [], "d1", 4).unknown


def test_gc_keeps_the_frozen_set(store: Store, config: Config, first: Snapshot):
    evaluation_set(store, config)
    larger(store, config)
    dataset = config.data.dataset
    assert frozen_snapshots(store, dataset) == (first.manifest.version,)
    assert first.manifest.version in garbage.collect(store, dataset, keep=0, grace=0, dry_run=True).versions
    assert garbage.collect(store, dataset, 0, frozen_snapshots(store, dataset), 0).versions == ()


def test_other_datasets_frozen_sets_are_not_pinned(store: Store, config: Config, first: Snapshot):
    evaluation_set(store, config)
    assert frozen_snapshots(store, "another") == ()
