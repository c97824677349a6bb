"""Tags as what is known of classes: there, absent, unknown."""

from dataclasses import replace

import pytest

from semivl.config import ClassDefinition, Classes
from semivl.data.strength import strengths, tagged_classes
from semivl.data.tables import index_table
from semivl.data.tags import TagReader
from tests.made_shards import picture
from tests.made_snapshots import sample

CLASSES = Classes(
    classes=(
        ClassDefinition(name="background", definitions=("grass",)),
        ClassDefinition(name="cat", definitions=("kitten", "Fox")),
        ClassDefinition(name="fox"),
    )
)
_, ROW = sample("a", picture(0))


@pytest.mark.parametrize(
    ("tags", "complete", "told"),
    [
        ((), False, [-1, -1, -1]),
        ((), True, [-1, 0, 0]),
        (("cat",), False, [-1, 1, -1]),
        (("cat",), True, [-1, 1, 0]),
        (("Kitten", "a word of no class"), True, [-1, 1, 0]),
        (("fox",), True, [-1, 0, 1]),
        (("grass", "background"), True, [-1, 0, 0]),
    ],
    ids=["no tags", "complete, none", "positive-only", "complete", "by a definition", "the name goes first", "ground"],
)
def test_tags_tell_what_is_there_absent_and_unknown(tags, complete, told):
    assert TagReader(CLASSES).read(replace(ROW, tags=tags, tags_complete=complete)).tolist() == told


def test_the_background_is_neither_weak_nor_unknown_whatever_tags_and_masks_say():
    """`grass` is one of its definitions; of partial masks none shows it."""
    rows = [
        replace(ROW, key=f"{place:016}", tags=tags) for place, tags in enumerate([("Grass", "Fox"), ("background",)])
    ]
    known = strengths(index_table(rows), CLASSES)
    assert (known.strong, known.weak, known.unknown) == ({}, {"fox": 1}, ("cat",))
    assert list(tagged_classes(index_table(rows), CLASSES)) == [{"fox"}, set()]
