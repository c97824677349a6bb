"""What method transfer says and refuses of its samples before the first step (spec transfer.md, 7)."""

import pytest

from semivl.config import ClassDefinition, Classes, MethodConfig
from semivl.data.samples import Samples
from semivl.data.stream import Pools
from semivl.data.strength import strengths
from semivl.data.tables import index_table
from semivl.errors import TrainingError
from semivl.methods import create
from tests.made_shards import picture
from tests.made_snapshots import sample

CLASSES = Classes(classes=tuple(ClassDefinition(name=n) for n in ("background", "cat", "duck", "fox", "hen")))
PHOTO = picture(0)


def masked(*pixels: int):
    return sample("m", PHOTO, pixels=pixels, supervision="mask")[1]


def tagged(*tags: str):
    return sample("t", PHOTO, tags=tags, supervision="tags")[1]


def survey(labelled, unlabelled, classes=CLASSES):
    nothing = Samples(index_table([]))
    pools = Pools(Samples(index_table(labelled)), Samples(index_table(unlabelled)), nothing)
    return create(MethodConfig(name="transfer")).survey(pools, classes)


TWO_STRONG = [masked(9, 5, 0, 0, 0), masked(9, 0, 7, 0, 0), masked(9, 1, 1, 0, 0)]


def test_strong_and_weak_classes_are_told_with_counts():
    lines = survey(TWO_STRONG, [tagged("fox"), tagged("fox", "cat"), tagged("hen")])
    assert lines == [
        "Classes with masks (masks that show them): cat (2), duck (2).",
        "Classes known by tags alone (photos tagged): fox (2), hen (1).",
    ]


def test_a_tag_by_another_word_or_case_is_the_class():
    vixen = ClassDefinition(name="fox", definitions=("fox", "vixen"))
    classes = Classes(classes=(*CLASSES.classes[:3], vixen, CLASSES.classes[4]))
    known = strengths(index_table([*TWO_STRONG, tagged("Vixen", "fox"), tagged("dog")]), classes)
    assert known.strong == {"background": 3, "cat": 2, "duck": 2}
    assert known.weak == {"fox": 1} and known.unknown == ("hen",)


@pytest.mark.parametrize(
    "labelled, named", [([masked(9, 5, 0, 0, 0)], r"1 class.*cat"), ([masked(9, 0, 0, 0, 0)], "0 classes")]
)
def test_fewer_than_two_classes_with_masks_are_refused(labelled, named):
    with pytest.raises(TrainingError, match=f"TRAIN040.*{named}"):
        survey(labelled, [tagged("fox"), tagged("hen"), tagged("duck"), tagged("cat")])


def test_weak_classes_that_always_come_together_are_refused_by_name():
    together = [tagged("fox", "hen")] * 39
    with pytest.raises(TrainingError, match=r"TRAIN041.*40 photos tagged fox or hen, 39 "):
        survey(TWO_STRONG, [*together, tagged("hen")])
    assert survey(TWO_STRONG, [*together, tagged("hen"), tagged("hen"), tagged("fox")])
    assert survey(TWO_STRONG, [tagged("fox", "cat")] * 40 + [tagged("hen")]), "a class with masks tells itself apart"


def test_a_class_that_nothing_names_is_refused():
    with pytest.raises(TrainingError, match=r"TRAIN042.*hen"):
        survey(TWO_STRONG, [tagged("fox")])


def test_a_class_that_only_tags_of_photos_with_masks_name_is_refused():
    drawn = sample("m", PHOTO, pixels=(9, 5, 0, 0, 0), supervision="mask", tags=("cat", "hen"))[1]
    with pytest.raises(TrainingError, match=r"TRAIN042.*photos with masks.*hen.*without a mask"):
        survey([*TWO_STRONG, drawn], [tagged("fox")])
    lines = survey([*TWO_STRONG, drawn], [tagged("fox"), tagged("fox"), tagged("Hen")])
    assert lines[-1] == "Classes known by tags alone (photos tagged): fox (2), hen (1)."


def test_samples_whose_classes_all_have_masks_are_told_that_another_method_suits():
    lines = survey([*TWO_STRONG, masked(9, 0, 0, 1, 1)], [tagged("fox")])
    assert lines[-1].startswith("No class is known by tags alone")
