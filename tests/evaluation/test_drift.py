"""Drift is told of images that differ, in words that say where; of few images nothing is told."""

from typing import Any

import numpy as np
import pytest

from semivl.config import DriftConfig
from semivl.data.samples import Samples
from semivl.data.snapshot import Snapshot
from semivl.data.store import Store
from semivl.data.tables import keys_of
from semivl.errors import ConfigError
from semivl.evaluation import drift as rooms
from semivl.evaluation.drift import Drift, Measured, compare
from semivl.evaluation.features import kept
from tests.evaluation.conftest import classes_of
from tests.made_snapshots import grown, samples

CLASSES = ("ground", "cat", "dog")
CONFIG = DriftConfig(min_new=20, permutations=599)  # pyright: ignore[reportCallIssue]


def side(seed: int, count: int = 40, shares: bool = True, **shift: float) -> Measured:
    """Images drawn alike, but for the shifts."""
    random = np.random.default_rng(seed)
    figures = {
        "brightness": random.normal(120 + shift.get("brightness", 0), 20, count),
        "width": np.full(count, 500.0),
        "height": random.choice([333.0, 375.0], count),
        "aspect": random.normal(1.4, 0.1, count),
    }
    seen = random.dirichlet([4 + shift.get("ground", 0), 1, 1], count) if shares else None
    return Measured(count, random.normal(shift.get("embedding", 0), 1, (count, 6)), figures, seen)


def alarms(found: rooms.Found) -> list[str]:
    return [test.name for test in found.tests if test.drifted]


def test_equal_sets_alarm_no_more_often_than_stated() -> None:
    loose = DriftConfig(false_alarms=0.2, permutations=99, min_new=20)  # pyright: ignore[reportCallIssue]
    told = [bool(alarms(compare(side(n), side(1000 + n, 25), CLASSES, loose))) for n in range(150)]
    assert np.mean(told) <= 0.2 + 3 * np.sqrt(0.2 * 0.8 / 150)


@pytest.mark.parametrize(
    ("shift", "name", "words"),
    [
        ({"embedding": 1.0}, "embedding", "apart"),
        ({"ground": 12.0}, "predicted classes", "ground 6"),
        ({"brightness": -60.0}, "brightness", "of 255"),
    ],
)
def test_each_shift_is_told_by_its_own_test_in_words(shift: dict, name: str, words: str) -> None:
    found = compare(side(1), side(2, **shift), CLASSES, CONFIG)
    assert alarms(found) == [name]
    [test] = [t for t in found.tests if t.drifted]
    assert words in test.words
    assert test.p_value <= test.threshold == pytest.approx(CONFIG.false_alarms / 6)
    assert found.class_shares.keys() == set(CLASSES)


def test_without_a_champion_its_test_is_left_out_and_said() -> None:
    found = compare(side(1, shares=False), side(2, shares=False), CLASSES, CONFIG)
    assert [t.kind for t in found.tests] == ["embedding", *["images"] * 4]
    assert {t.threshold for t in found.tests} == {CONFIG.false_alarms / 5}
    assert "no champion" in found.left_out[0] and found.class_shares == {}


def test_a_reference_of_fitted_images_alone_leaves_the_classes_out() -> None:
    before = side(1)
    assert before.shares is not None
    found = compare(before._replace(shares=before.shares[:7]), side(2), CLASSES, CONFIG)
    assert len(found.tests) == 5 and "7 before and 40 new" in found.left_out[0]


@pytest.mark.parametrize(("before", "now", "told"), [(40, 19, "19 new images"), (5, 40, "5 images in the reference")])
def test_too_few_images_are_no_verdict(before: int, now: int, told: str) -> None:
    found = compare(side(1, before), side(2, now), CLASSES, CONFIG)
    assert found.tests == () and told in found.left_out[0] and "min_new is 20" in found.left_out[0]


@pytest.mark.parametrize(
    "wrong",
    [{"false_alarms": 0}, {"false_alarms": 0.001}, {"permutations": 98}, {"min_new": 600}, {"images": 1}, {"x": 1}],
)
def test_settings_that_could_never_alarm_are_refused(wrong: dict) -> None:
    from semivl.config import check

    with pytest.raises(ConfigError, match="CONF003"):
        check(DriftConfig, wrong, "drift")


def test_the_plane_is_that_of_the_covariance_and_has_no_chance_in_it() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(60, 5)) * [5, 3, 1, 1, 1] + 7
    points = rooms.plane(rows[:40], rows[40:])
    assert [new for *_, new in points] == [False] * 40 + [True] * 20
    spread = np.array([p[:2] for p in points]).var(0, ddof=1)
    assert spread == pytest.approx(np.linalg.eigvalsh(np.cov(rows.T))[::-1][:2], rel=1e-4)
    assert rooms.plane(rows[:40], rows[40:]) == points


def test_new_samples_are_those_that_the_reference_has_not(store: Store) -> None:
    classes = classes_of(*CLASSES)
    made, more = samples(), samples(0, 0, 5, seed=9)
    before = grown(store, "d", classes, made)
    now = grown(store, "d", classes, more)
    new = rooms.new_samples(before, now)
    assert set(new["key"].to_pylist()) == {row.key for _, row in more}
    assert len(rooms.new_samples(now, before)) == 0
    fitted = {row.key for _, row in made if row.supervision == "mask" and row.split == "train"}
    assert set(rooms.not_fitted(now.index)["key"].to_pylist()) == set(now.index["key"].to_pylist()) - fitted
    found = rooms.figures(new)
    assert found["width"].tolist() == [48.0] * 5 and found["aspect"].tolist() == [1.5] * 5


def test_a_draw_stays_when_others_come(store: Store) -> None:
    classes = classes_of(*CLASSES)
    before = grown(store, "d", classes, samples(unlabelled=40))
    first = set(rooms.drawn(before.index, 20)["key"].to_pylist())
    later = grown(store, "d", classes, samples(0, 0, 10, seed=9))
    then = set(rooms.drawn(later.index, 20)["key"].to_pylist())
    assert len(first) == len(then) == 20
    assert len(first & then) >= 20 - 10
    assert sorted(first, key=lambda k: k[::-1]) == sorted(before.index["key"].to_pylist(), key=lambda k: k[::-1])[:20]
    assert len(rooms.drawn(before.index, 1000)) == len(before.index)


def test_features_are_computed_once_for_an_image(store: Store) -> None:
    snapshot: Snapshot = grown(store, "d", classes_of(*CLASSES), samples())
    asked: list[str] = []

    def compute(rows: Any) -> np.ndarray:
        asked.extend(row.key for row in rows)
        return np.array([[int(row.key[:4], 16), len(row.source)] for row in rows], np.float32)

    rows = Samples(snapshot.index)
    some = kept(store, "f", rows[:5], compute)
    every = kept(store, "f", rows[::-1], compute)
    assert sorted(asked) == sorted(row.key for row in rows)
    assert np.array_equal(every[::-1][:5], some)
    assert np.array_equal(every[:, 0], [int(k[:4].decode(), 16) for k in keys_of(snapshot.index)[::-1]])
    assert len(kept(store, "f", rows[:0], compute)) == 0


def test_a_record_is_read_back_and_one_of_another_shape_is_made_again(store: Store) -> None:
    found = compare(side(1), side(2), CLASSES, CONFIG)
    kept_one = Drift(
        dataset="d", reference="a", current="b", reference_images=40, current_images=40, compared=(40, 40),
        false_alarms=0.01, tests=found.tests, drifted=False, class_shares=found.class_shares,
        points=rooms.plane(side(1).embedding, side(2).embedding),
    )  # fmt: skip
    assert rooms.read_drift(store, "d", "a", "b") is None
    rooms.save_drift(store, kept_one)
    assert rooms.read_drift(store, "d", "a", "b") == kept_one
    store.put("drift/d/a/b.json", b'{"dataset": "d"}')
    assert rooms.read_drift(store, "d", "a", "b") is None
    assert "40 new images of d@b against a" in rooms.verdict(kept_one)
