"""Scores of classes with masks and of classes known by tags alone (spec transfer.md, 6)."""

import numpy as np
import pytest

from semivl.config import ClassDefinition, Classes
from semivl.data.manifest import Manifest
from semivl.data.snapshot import Snapshot
from semivl.data.tables import index_table
from semivl.evaluation.by_strength import by_strength, harmonic, weak_classes
from semivl.evaluation.report_scores import scores_tab
from semivl.evaluation.scores import Evaluation, Scores
from semivl.registry.scores import _summary
from tests.made_shards import picture
from tests.made_snapshots import sample
from tests.registry.cases import counts, scores

NAMES = ("background", "cat", "fox")


def snapshot_of(*rows) -> Snapshot:
    classes = Classes(classes=tuple(ClassDefinition(name=name) for name in NAMES))
    manifest = Manifest.model_construct(classes=classes)
    return Snapshot(manifest, index_table(rows))


def row(name: str, split: str = "train", **fields):
    return sample(name, picture(1), split, **fields)[1]


def test_strong_weak_and_harmonic_are_means_over_the_classes_that_occur():
    found = by_strength({"background": 90.0, "cat": 50.0, "fox": 30.0, "hen": None, "elk": 10.0}, {"fox", "hen", "elk"})
    assert found.weak == ("fox", "hen", "elk")
    assert (found.strong_miou, found.weak_miou) == (70.0, 20.0)
    assert found.harmonic == pytest.approx(2 / (1 / 70 + 1 / 20))


@pytest.mark.parametrize(
    "one, other, expected", [(60.0, 0.0, 0.0), (0.0, 0.0, 0.0), (None, 4.0, None), (4.0, 4.0, 4.0)]
)
def test_the_harmonic_mean_is_0_where_either_is_and_none_where_either_is(one, other, expected):
    assert harmonic(one, other) == expected


def test_a_weak_class_is_in_training_tags_and_in_no_training_mask():
    masks, tags = {"pixels": (9, 5, 0), "supervision": "mask"}, {"tags": ("fox", "cat"), "supervision": "tags"}
    assert weak_classes(snapshot_of(row("a", **masks), row("b", **tags))) == ("fox",)
    only_val = snapshot_of(row("a", **masks), row("b", "val", **tags), row("c", "val", pixels=(1, 1, 1)))
    assert weak_classes(only_val) == ()
    assert by_strength({"cat": 1.0}, ()) is None


def test_scores_kept_before_this_was_known_can_still_be_read():
    old = scores(1, counts()).model_dump(mode="json", exclude={"by_strength"})
    assert "by_strength" not in old and Scores.model_validate(old).by_strength is None
    new = scores(1, counts(), by_strength=by_strength({"class 0": 5.0, "class 1": 3.0}, ("class 1",)))
    assert Scores.model_validate_json(new.model_dump_json()) == new


def test_report_and_description_show_them_where_there_are_any():
    import pyarrow as pa

    per_image = pa.table({"iou": [1.0]})
    none = dict.fromkeys(("class 0", "class 1", "class 2"))
    plain = scores(1, counts(), class_accuracy=none, boundary_iou=none)
    assert scores_tab(Evaluation(plain, per_image, np.eye(3)), ([], [])).values["kinds"] == []
    assert "tags alone" not in _summary(plain)
    apart = by_strength({"class 0": 60.0, "class 1": 30.0}, ("class 1",))
    with_weak = plain.model_copy(update={"by_strength": apart})
    lines = scores_tab(Evaluation(with_weak, per_image, np.eye(3)), ([], [])).values["kinds"]
    assert [line["miou"] for line in lines] == [60.0, 30.0, 40.0]
    assert lines[1]["name"] == "classes known by tags alone: class 1"
    assert "with masks 60.0, of classes known by tags alone 30.0, harmonic mean 40.0." in _summary(with_weak)
