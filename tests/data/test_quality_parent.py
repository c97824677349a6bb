"""What a snapshot is compared with its parent for, and what is said where there is none."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semivl.config import load_suite
from semivl.data import rules
from semivl.data.manifest import snapshot_key
from semivl.data.quality import validate
from semivl.data.quality_tables import class_table
from semivl.data.sample import Row
from tests.made_shards import picture
from tests.made_snapshots import grown, sample, samples


def codes(found: tuple[str, ...]) -> set[str]:
    return {words.split()[0] for words in found}


def dark(number: int, **fields) -> tuple[bytes, Row]:
    """A training picture unlike the others: small, and as if taken at night; it is mostly dog."""
    image = picture(9000 + number, 24, 20)
    return sample(f"n{number:03}", image, mask=(0, 30, 400), brightness=3.0 + number, **fields)


def test_first_snapshot_meets_what_needs_a_parent_and_says_so(store, dataset, classes):
    found = validate(store, grown(store, dataset, classes, samples()))
    assert {"DATA325", "DATA326", "DATA327", "DATA328", "DATA329"} <= codes(found.not_compared)
    assert any("first snapshot" in sentence for sentence in found.summary)
    assert not codes(found.not_compared) & codes(found.warnings)


def test_parent_that_is_gone_is_told_and_stops_nothing(store, dataset, classes):
    first = grown(store, dataset, classes, samples())
    second = grown(store, dataset, classes, [dark(0)])
    store.delete(snapshot_key(dataset, first.manifest.version, "index.parquet"))
    store.delete(snapshot_key(dataset, first.manifest.version, "manifest.json"))
    found = validate(store, second)
    assert {"DATA325", "DATA326"} <= codes(found.not_compared)
    assert any(f"parent {first.manifest.version} is no longer kept" in sentence for sentence in found.summary)


def test_growth_of_the_same_kind_is_no_drift(store, dataset, classes):
    grown(store, dataset, classes, samples(labelled=20, unlabelled=40))
    second = grown(store, dataset, classes, samples(labelled=20, evaluation=0, unlabelled=40, seed=1))
    found = validate(store, second)
    assert codes(found.warnings) == {"DATA332"} and codes(found.not_compared) == {"DATA329"}
    assert any("+20 training masks" in sentence for sentence in found.summary)


def test_drift_of_classes_light_and_size_is_a_warning_with_figures(store, dataset, classes):
    first = grown(store, dataset, classes, samples(labelled=4))
    second = grown(store, dataset, classes, [dark(n) for n in range(13)])
    assert second.manifest.parent == first.manifest.version
    found = validate(store, second)
    assert found.success
    assert {"DATA325", "DATA326", "DATA327", "DATA328"} <= codes(found.warnings)
    told = {words.split()[0]: words for words in found.warnings}
    assert "dog" in told["DATA325"] and "cat" in told["DATA325"]
    assert "distance 0.500; median" in told["DATA327"] and "48 in the parent" in told["DATA327"]
    summary = " ".join(found.summary)
    assert "+13 training masks" in summary and "13 added" in summary and "dog 0.0 to" in summary


def test_share_of_classes_is_that_of_all_labelled_training_pixels(store, dataset, classes):
    first = grown(store, dataset, classes, samples(labelled=4))
    second = grown(store, dataset, classes, [dark(n) for n in range(13)])
    pixels = np.array([r.pixels for r in second.rows("train", "mask")]).sum(0)
    before = np.array([r.pixels for r in first.rows("train", "mask")]).sum(0)
    table = class_table(second, first)
    assert np.allclose(table["share"], pixels / pixels.sum())
    assert np.allclose(table["share_change"], pixels / pixels.sum() - before / before.sum())
    assert table["train_masks"].tolist() == [4, 17, 13]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0, 255), min_size=1, max_size=40),
    st.lists(st.floats(0, 255), min_size=1, max_size=3000),
)
def test_distance_from_the_parent_is_that_of_kolmogorov_and_smirnov(here, before):
    from semivl.data.expectations import QUANTILES, kolmogorov_smirnov, quantiles

    told = kolmogorov_smirnov(np.sort(here), np.array(quantiles(np.array(before))))
    one, other, values = np.array(here), np.array(before), np.array([*here, *before])
    largest = max(abs((one <= value).mean() - (other <= value).mean()) for value in values)
    assert told == pytest.approx(largest, abs=1 / QUANTILES + 1e-9)


def test_captions_are_asked_for_names_and_definitions_of_classes(store, dataset, classes):
    told = ["Two CATS asleep", "a concatenated category", "nothing of it", "a dog.", None]
    table = pd.DataFrame({"name": list("abcde"), "caption": pd.Series(told, dtype="str")})
    rule = load_suite().rules["DATA329"]
    strict = rule.model_copy(update={"arguments": {"column": "caption", "mostly": 0.6}})
    given = {"DATA329": {"phrases": ["cat", "dog"]}}
    (met,) = rules.run_rules({"DATA329": rule}, table, given).values()
    (unmet,) = rules.run_rules({"DATA329": strict}, table, given).values()
    assert met.met and met.found == "so for 2 of 4"
    assert not unmet.met and [name for name, _ in unmet.rows] == ["b", "c"]
    captioned = grown(store, dataset, classes, [*samples(), dark(0, caption="a dog"), dark(1, caption="no one")])
    assert "DATA329" not in codes(validate(store, captioned).warnings)
