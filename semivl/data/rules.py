"""The rules of a suite: checked before anything runs, then run by Great Expectations; each becomes an outcome."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from semivl.config import Rule, Suite
from semivl.data.quality_tables import COLUMNS
from semivl.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

NAMED = 20
"""rows that are named of those that do not meet a rule"""
_NAMING_COLUMNS = ("column", "column_A", "column_B", "column_list", "column_set")
_OURS_TO_SET = {
    "batch_id", "catch_exceptions", "condition_parser", "description", "id", "meta", "notes", "rendered_content",
    "result_format", "severity", "windows",
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of one rule."""

    code: str
    rule: Rule
    met: bool
    expected: str
    """the expectation in Great Expectations' words, or ours"""
    found: str
    """in words"""
    compared: bool = True
    """False: there was nothing to look at, so that it counts as met"""
    rows: tuple[tuple[str, str], ...] = ()
    """name and value of the first NAMED rows that do not meet it"""
    unmet: int = 0
    """all rows that do not meet it"""

    def __str__(self) -> str:
        named = ", ".join(name if value in ("", name) else f"{name} ({value})" for name, value in self.rows)
        more = f", and {self.unmet - len(self.rows):,} more" if self.unmet > len(self.rows) else ""
        return f"{self.code} {self.rule.demand}: {self.found}" + (f": {named}{more}" if self.rows else "")


def require_usable(suite: Suite) -> None:
    """CONF003 names each rule that cannot be run, and what was likely meant."""
    faults = [f"{code}: {fault}" for code, rule in suite.rules.items() for fault in _faults(rule)]
    if faults:
        raise ConfigError("CONF003", f"the suite's {'; '.join(faults)}.", "Mend the file in conf/suite.")


def run_rules(rules: dict[str, Rule], table: "pd.DataFrame", given: dict[str, dict[str, Any]]) -> dict[str, Outcome]:
    """The outcome of each rule on the table, by code.

    Args:
        given: by code, arguments that come from the snapshots; what the suite says goes before.
    """
    made = {code: _expectation(code, rule, given.get(code, {})) for code, rule in rules.items()}
    results = {result.expectation_config.meta["code"]: result for result in _validated(table, list(made.values()))}
    return {code: _outcome(code, rule, _in_words(made[code]), results[code]) for code, rule in rules.items()}


def takes(rule: Rule, argument: str) -> bool:
    """Whether the rule's expectation has an argument of that name."""
    return argument in _fields(rule)


def _fields(rule: Rule) -> frozenset[str]:
    return frozenset(_kinds()[rule.expectation].__fields__) - _OURS_TO_SET


@cache
def _kinds() -> dict[str, Any]:
    """The classes of Great Expectations and ours, by their names without `Expect`."""
    import great_expectations.expectations as theirs

    from semivl.data import expectations as ours

    found = {name: kind for module in (theirs, ours) for name, kind in vars(module).items()}
    return {
        name.removeprefix("Expect"): kind
        for name, kind in found.items()
        if name.startswith("Expect") and isinstance(kind, type) and not kind.is_abstract()
    }


def _faults(rule: Rule) -> Iterator[str]:
    kind = _kinds().get(rule.expectation)
    if kind is None:
        yield f"there is no expectation {rule.expectation}{_meant(rule.expectation, _kinds())}"
        return
    fields = _fields(rule)
    unknown = [name for name in rule.arguments if name not in fields]
    yield from (f"{rule.expectation} takes no {name}{_meant(name, fields)}" for name in unknown)
    if not unknown:
        try:
            kind(**rule.arguments)
        except ValueError as error:  # a pydantic of the library's own
            yield from (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in getattr(error, "errors", list)())
    if "parent_quantiles" in fields and rule.table != "samples":
        yield f"{rule.expectation} looks at the table samples alone"
    known = COLUMNS[rule.table]
    for name in _named_columns(rule):
        if name not in known:
            yield f"table {rule.table} has no column {name}{_meant(name, known)}"


def _named_columns(rule: Rule) -> Iterator[str]:
    for field in _NAMING_COLUMNS:
        value = rule.arguments.get(field, ())
        yield from [value] if isinstance(value, str) else value


def _meant(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else f" (known: {', '.join(sorted(known))})"


def _expectation(code: str, rule: Rule, given: dict[str, Any]) -> Any:
    return _kinds()[rule.expectation](**given | rule.arguments, severity=rule.severity, meta={"code": code})


def _validated(table: "pd.DataFrame", expectations: list[Any]) -> list[Any]:
    """Great Expectations' result for each expectation."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    asset = context.data_sources.add_pandas("snapshot").add_dataframe_asset(name="table")
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": table})
    shown = {"result_format": "BASIC", "include_unexpected_rows": True, "partial_unexpected_count": NAMED}
    return batch.validate(gx.ExpectationSuite(name="rules", expectations=expectations), result_format=shown).results


def _in_words(expectation: Any) -> str:
    """The expectation as the library tells it in Data Docs."""
    from string import Template

    expectation.render()
    told = expectation.rendered_content[0].value
    if not getattr(told, "template", None):  # a table or a graph
        return type(expectation).__name__
    params = {name: value["value"] for name, value in (told.params or {}).items() if value}
    return Template(told.template).safe_substitute(params)


def _outcome(code: str, rule: Rule, expected: str, result: Any) -> Outcome:
    raised = _exception(result.exception_info or {})
    if raised:
        return Outcome(code, rule, False, expected, f"could not be checked ({raised})")
    found = result.result
    if "element_count" not in found:
        told = found.get("observed_value")
        if told is None:
            told = "it so" if result.success else "it not so"
        told = f"{told:,}" if isinstance(told, int) else told
        return Outcome(code, rule, result.success, expected, f"found {told}", found.get("compared", True))
    looked_at = found["element_count"] - found.get("missing_count", 0)
    if not looked_at and rule.table == "pairs":  # which holds only what may be at fault
        return Outcome(code, rule, True, expected, "there is no such pair")
    if not looked_at:
        return Outcome(code, rule, True, expected, "there is nothing to look at", compared=False)
    unmet = found["unexpected_count"]
    if result.success:
        told = f"so for all {looked_at:,}" if not unmet else f"so for {looked_at - unmet:,} of {looked_at:,}"
        return Outcome(code, rule, True, expected, told)
    rows = tuple(_named(found.get("unexpected_rows"), rule))
    told = f"not so for {unmet:,} pairs" if rule.table == "pairs" else f"not so for {unmet:,} of {looked_at:,}"
    return Outcome(code, rule, False, expected, told, True, rows, unmet)


def _exception(info: dict[str, Any]) -> str:
    """The message of what an expectation raised; of several metrics the first."""
    several = [info] if "raised_exception" in info else list(info.values())
    return next((str(one["exception_message"]) for one in several if one["raised_exception"]), "")


def _named(rows: "pd.DataFrame | None", rule: Rule) -> Iterator[tuple[str, str]]:
    if rows is None:
        return
    columns = list(_named_columns(rule))[:1]
    for row in rows[["name", *columns]].itertuples(index=False):
        value = row[1] if columns else ""
        yield str(row[0]), f"{value:g}" if isinstance(value, float) else str(value)
