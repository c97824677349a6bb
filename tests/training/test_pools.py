"""Which samples a method is given, by the supervision that it needs."""

import pytest

from semivl.config import ClassDefinition, Classes
from semivl.errors import TrainingError
from semivl.methods import Method
from semivl.training.pools import counts, training_pools
from tests.made_shards import picture
from tests.made_snapshots import grown, sample

CLASSES = Classes(classes=tuple(ClassDefinition(name=n) for n in ("background", "cat", "dog")))  # pyright: ignore
MASK = (700, 800, 0)
KINDS = {
    "masked": {"mask": MASK},
    "masked-told": {"mask": MASK, "tags": ("cat",), "caption": "a cat"},
    "tagged": {"tags": ("cat",), "supervision": "tags"},
    "tagged-told": {"tags": ("dog",), "caption": "a dog", "supervision": "tags"},
    "captioned": {"caption": "a dog", "supervision": "caption"},
    "empty-caption": {"caption": ""},
    "bare": {},
}


def method(*needs: str) -> Method:
    made = Method(None)
    made.needs = frozenset(needs)  # pyright: ignore[reportAttributeAccessIssue]
    return made


@pytest.fixture(scope="module")
def snapshot(new_store):
    made = [sample(name, picture(n), **told) for n, (name, told) in enumerate(KINDS.items())]
    made.append(sample("val", picture(99), "val", MASK, caption="a cat", tags=("cat",)))
    return grown(new_store(), "pools", CLASSES, made)


def names(rows) -> set[str]:
    return {row.source.removeprefix("images/").removesuffix(".jpg") for row in rows}


@pytest.mark.parametrize(
    ("needs", "labelled", "unlabelled", "captioned"),
    [
        ((), set(), set(), set()),
        (("mask",), {"masked", "masked-told"}, set(), set()),
        (
            ("mask", "none"),
            {"masked", "masked-told"},
            {"tagged", "tagged-told", "captioned", "empty-caption", "bare"},
            set(),
        ),
        (("mask", "tags"), {"masked", "masked-told"}, {"tagged", "tagged-told"}, set()),
        (("caption",), set(), set(), {"masked-told", "tagged-told", "captioned"}),
    ],
    ids=["nothing", "masks", "masks and the rest", "masks and tags", "captions"],
)
def test_a_method_is_given_what_it_needs_and_no_evaluation_sample(snapshot, needs, labelled, unlabelled, captioned):
    pools = training_pools(snapshot, method(*needs))
    assert tuple(names(pool) for pool in pools) == (labelled, unlabelled, captioned)


def test_how_many_of_each_kind_is_told(snapshot):
    told = counts(training_pools(snapshot, method("mask", "none", "caption")))
    assert told == "2 labelled and 5 unlabelled (2 with tags) and 3 captioned images"
    assert "learns nothing" in counts(training_pools(snapshot, method()))


@pytest.mark.parametrize(
    ("needs", "code"),
    [(("mask",), "TRAIN001"), (("none",), "TRAIN002"), (("tags",), "TRAIN012"), (("caption",), "TRAIN013")],
)
def test_what_is_missing_is_told_under_its_code(new_store, needs, code):
    kind = KINDS["masked" if code == "TRAIN002" else "bare"]
    made = [sample("val", picture(99), "val", MASK, caption="a cat", tags=("cat",)), sample("one", picture(1), **kind)]
    snapshot = grown(new_store(), "poor", CLASSES, made)
    with pytest.raises(TrainingError) as raised:
        training_pools(snapshot, method(*needs))
    assert (raised.value.code, "poor@" in str(raised.value)) == (code, True)
