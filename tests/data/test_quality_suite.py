"""A suite is a file that a user edits: what cannot be run is told before anything runs, with what was likely meant."""

import pandas as pd
import pytest

from semivl.config import CONF, Suite, load, load_suite
from semivl.data import rules
from semivl.data.data_docs import code_words
from semivl.data.quality import validate
from semivl.data.quality_tables import COLUMNS, class_table, sample_table
from semivl.errors import ConfigError
from tests.made_snapshots import grown, samples


def with_rule(**changes) -> Suite:
    """A suite of one rule."""
    rule = {"demand": "widths are positive", "expectation": "ColumnValuesToBeBetween"}
    return Suite.model_validate({"rules": {"FARM001": rule | {"arguments": {"column": "width"}} | changes}})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"expectation": "ColumnValuesToBeBetwen"}, "did you mean ColumnValuesToBeBetween?"),
        ({"expectation": "ColumnDistanceToExceed"}, "did you mean ColumnDistancesToExceed?"),
        ({"arguments": {"column": "widht", "min_value": 1}}, "no column widht (did you mean width?)"),
        ({"arguments": {"column": "width", "min_valeu": 1}}, "takes no min_valeu (did you mean min_value?)"),
        ({"arguments": {"column": "width", "severity": "warning"}}, "takes no severity"),
        ({"arguments": {"min_value": 1}}, "column: field required"),
        ({"table": "classes"}, "table classes has no column width"),
        (
            {
                "table": "pairs",
                "expectation": "ColumnDistancesToExceed",
                "arguments": {"column": "within_split", "max_distance": 30},
            },
            "max_distance: ensure this value is less than or equal to 8",
        ),
    ],
)
def test_rule_that_cannot_be_run_is_told_with_what_was_meant(changes, told):
    with pytest.raises(ConfigError) as raised:
        rules.require_usable(with_rule(**changes))
    assert raised.value.code == "CONF003" and "FARM001" in str(raised.value) and told in str(raised.value)


def test_unusable_suite_leaves_the_snapshot_unvalidated(store, dataset, classes):
    snap = grown(store, dataset, classes, samples())
    before = set(store.list("datasets/"))
    with pytest.raises(ConfigError, match="CONF003"):
        validate(store, snap, with_rule(expectation="Nothing"))
    assert set(store.list("datasets/")) == before


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rules:\n  FARM001: {demand: x, expectation: y}\n  FARM001: {demand: z, expectation: y}\n", "FARM001"),
        ("rules:\n  Farm1: {demand: x, expectation: y}\n", "Farm1"),
        ("rules:\n  FARM001: {demand: x, expectation: y, severity: fatal}\n", "'critical' or 'warning'"),
        ("rules:\n  FARM001: {demand: x, expectation: y, severty: warning}\n", "did you mean severity?"),
        ("rules: {}\n", "rules"),
    ],
)
def test_file_at_fault_names_the_line_or_the_field(tmp_path, monkeypatch, text, told):
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "farm.yaml").write_text(text)
    monkeypatch.setattr("semivl.config.experiment.CONF", tmp_path)
    with pytest.raises(ConfigError) as raised:
        load_suite("farm")
    assert raised.value.code in ("CONF002", "CONF003") and told in str(raised.value)


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "suite").glob("*.yaml")))
def test_every_suite_in_conf_can_be_run(name):
    rules.require_usable(load_suite(name))


def test_every_rule_of_ours_is_explained():
    assert set(load_suite().rules) <= set(code_words())


def test_experiment_changes_one_argument_and_keeps_the_rest():
    changed = load("demo", {"suite": {"rules": {"DATA323": {"arguments": {"max_distance": 2}}}}}).suite
    given = changed.rules["DATA323"].arguments
    assert given == load_suite().rules["DATA323"].arguments | {"max_distance": 2}
    assert changed.digest != load_suite().digest == load("demo").suite.digest
    assert list(changed.rules) == list(load_suite().rules)


def test_tables_have_the_columns_that_rules_may_name(store, dataset, classes):
    from semivl.data.quality_pairs import find_alike

    snap = grown(store, dataset, classes, samples())
    tables = {"samples": sample_table(snap), "classes": class_table(snap, None), "pairs": find_alike(snap, 4).table}
    assert {name: set(table.columns) for name, table in tables.items()} == {k: set(v) for k, v in COLUMNS.items()}


def test_own_rules_of_a_user_run_beside_ours(store, dataset, classes):
    snap = grown(store, dataset, classes, samples())
    rule = {"demand": "pictures are large", "expectation": "ColumnValuesToBeBetween", "severity": "warning"}
    arguments = {"column": "width", "min_value": 64}
    suite = Suite.model_validate({"rules": {"FARM001": rule | {"arguments": arguments}}})
    found = validate(store, snap, suite)
    assert found.success and found.checked == 1
    assert found.warnings[0].startswith("FARM001 pictures are large: not so for 13 of 13: ")
    assert "images/m000.jpg (48)" in found.warnings[0]


def test_expectation_that_raises_is_told_and_fails():
    suite = with_rule(arguments={"column": "split", "min_value": 1})
    rules.require_usable(suite)
    table = pd.DataFrame({"name": ["a"], "split": ["train"]})
    (outcome,) = rules.run_rules(suite.rules, table, {}).values()
    assert not outcome.met and "could not be checked (Column values" in str(outcome)


@pytest.mark.parametrize(
    ("expectation", "arguments", "met"),
    [
        ("ColumnDistinctValuesToBeInSet", {"column": "split", "value_set": ["val"]}, False),
        ("ColumnDistinctValuesToContainSet", {"column": "split", "value_set": ["train"]}, True),
        ("ColumnToExist", {"column": "width"}, True),
        (
            "ColumnQuantileValuesToBeBetween",
            {"column": "width", "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[1, 10]]}},
            False,
        ),
    ],
)
def test_any_expectation_of_the_library_has_an_outcome(expectation, arguments, met):
    suite = with_rule(expectation=expectation, arguments=arguments)
    rules.require_usable(suite)
    table = pd.DataFrame({"name": ["a", "b"], "split": ["train", "val"], "width": [20, 30]})
    (outcome,) = rules.run_rules(suite.rules, table, {}).values()
    assert outcome.met == met and outcome.expected and "None" not in str(outcome)


def test_rules_that_compare_with_the_parent_look_at_samples_alone():
    distribution = {"expectation": "ColumnDistributionToStayNearParent"}
    with pytest.raises(ConfigError, match="looks at the table samples alone"):
        rules.require_usable(
            with_rule(**distribution, table="classes", arguments={"column": "share", "max_distance": 0.1})
        )


def test_suite_without_rules_of_pairs_says_that_none_were_looked_for(store, dataset, classes):
    snap = grown(store, dataset, classes, samples())
    rule = {"demand": "pictures are there", "expectation": "ColumnValuesToBeBetween"}
    suite = Suite.model_validate({"rules": {"FARM001": rule | {"arguments": {"column": "width", "min_value": 1}}}})
    found = validate(store, snap, suite)
    assert any("not searched for" in sentence for sentence in found.summary)
    assert b"Not searched for" in store.get(found.pages["near_duplicates"])
