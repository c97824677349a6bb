"""Expectations of ours: what images need and Great Expectations does not have. Importing this takes seconds.

Each is a metric (how it is computed on a pandas table) and an expectation (arguments, verdict, its words in the Data
Docs). A suite names them without `Expect`. `parent_quantiles` and `phrases` are given by `quality`, where a suite does
not: they come from the snapshots. What cannot be compared, since nothing is there to compare with, is met, and says so.
"""

# ruff: noqa: N805  (the library gives a metric its class)
import os
import re
from typing import Any, ClassVar

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read when the library is imported

import numpy as np
import pandas as pd
from great_expectations.compatibility import pydantic
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import ColumnAggregateExpectation, ColumnMapExpectation
from great_expectations.expectations.metrics import (
    ColumnAggregateMetricProvider,
    ColumnMapMetricProvider,
    column_aggregate_value,
    column_condition_partial,
)
from great_expectations.render import LegacyRendererType, RenderedStringTemplateContent
from great_expectations.render.renderer.renderer import renderer
from great_expectations.render.renderer_configuration import RendererConfiguration, RendererValueType

from semivl.data.quality_pairs import FARTHEST

QUANTILES = 1000
"""parts that a parent's column is told in: a distance from it is exact to a thousandth"""


class _InWords:
    """Renders an expectation by its `words`, in which `$NAME` stands for an argument."""

    words: ClassVar[str]

    @classmethod
    def _prescriptive_template(cls, renderer_configuration: RendererConfiguration) -> RendererConfiguration:
        for name in re.findall(r"\$(\w+)", cls.words):
            value = renderer_configuration.kwargs.get(name, cls.__fields__[name].default)  # pyright: ignore[reportAttributeAccessIssue]
            renderer_configuration.add_param(name, RendererValueType.STRING, str(value))
        renderer_configuration.template_str = cls.words
        return renderer_configuration

    @classmethod
    @renderer(renderer_type=LegacyRendererType.PRESCRIPTIVE)
    def _prescriptive_renderer(cls, configuration=None, result=None, runtime_configuration=None, **_):
        made = cls._prescriptive_template(RendererConfiguration(configuration=configuration, result=result))
        params = {name: value["value"] for name, value in made.params.dict().items()}
        return [RenderedStringTemplateContent(string_template={"template": cls.words, "params": params})]


class ColumnDistancesAbove(ColumnMapMetricProvider):
    condition_metric_name = "column_values.distance_above"
    condition_value_keys = ("max_distance",)

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, max_distance: int, **_: Any) -> pd.Series:
        return column > max_distance


class ExpectColumnDistancesToExceed(_InWords, ColumnMapExpectation):
    """Of the table `pairs`: no two pictures are as near as that, in bits of 64 of their perceptual hashes."""

    max_distance: int = pydantic.Field(ge=0, le=FARTHEST)
    map_metric = "column_values.distance_above"
    success_keys = ("max_distance", "mostly")
    words: ClassVar[str] = (
        "the perceptual hashes of two pictures ($column) differ in more than $max_distance of 64 bits"
    )


class ColumnChangesWithin(ColumnMapMetricProvider):
    condition_metric_name = "column_values.change_within"
    condition_value_keys = ("max_change",)

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, max_change: float, **_: Any) -> pd.Series:
        return column.abs() <= max_change


class ExpectColumnChangesToBeAtMost(_InWords, ColumnMapExpectation):
    """Of the table `classes`: no class has drifted further than that from its share in the parent snapshot."""

    max_change: float = pydantic.Field(gt=0, le=1)
    map_metric = "column_values.change_within"
    success_keys = ("max_change", "mostly")
    words: ClassVar[str] = "$column of a class is at most $max_change, up or down, since the parent snapshot"


class ColumnCountsReached(ColumnMapMetricProvider):
    condition_metric_name = "column_values.count_reached"
    condition_value_keys = ("at_least",)

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, at_least: int, **_: Any) -> pd.Series:
        return column >= at_least


class ExpectColumnCountsToReach(_InWords, ColumnMapExpectation):
    """Of the table `classes`: each class is seen in so many masks."""

    at_least: int = pydantic.Field(ge=1)
    map_metric = "column_values.count_reached"
    success_keys = ("at_least", "mostly")
    words: ClassVar[str] = "$column of a class is at least $at_least masks"


class ColumnCaptionsNamePhrase(ColumnMapMetricProvider):
    condition_metric_name = "column_values.caption_names_phrase"
    condition_value_keys = ("phrases",)

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, phrases: list[str] | None, **_: Any) -> pd.Series:
        any_phrase = "|".join(re.escape(phrase) for phrase in phrases or ())
        return column.astype("str").str.contains(rf"\b(?:{any_phrase})(?:s|es)?\b", case=False, regex=True)


class ExpectColumnCaptionsToNameAClass(_InWords, ColumnMapExpectation):
    """That share (`mostly`) of the captions has a phrase in it, in one or several: names and definitions of classes."""

    phrases: list[str] | None = None
    map_metric = "column_values.caption_names_phrase"
    success_keys = ("phrases", "mostly")
    words: ClassVar[str] = (
        "of the texts in $column, a share of at least $mostly names a class or one of its definitions"
    )


class ColumnDistanceFromParent(ColumnAggregateMetricProvider):
    metric_name = "column.distance_from_parent"
    value_keys = ("parent_quantiles",)

    @column_aggregate_value(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, parent_quantiles: list[float] | None, **_: Any) -> dict[str, float] | None:
        here = np.sort(column.dropna().to_numpy(float))
        if not parent_quantiles or not len(here):
            return None
        before = np.array(parent_quantiles)
        return {
            "distance": kolmogorov_smirnov(here, before),
            "median": round(float(here[(len(here) - 1) // 2]), 2),
            "parent_median": round(float(before[(len(before) - 1) // 2]), 2),
        }


class ExpectColumnDistributionToStayNearParent(_InWords, ColumnAggregateExpectation):
    """The Kolmogorov-Smirnov distance between the column here and in the parent snapshot, 0 to 1, is at most that."""

    max_distance: float = pydantic.Field(gt=0, le=1)
    parent_quantiles: list[float] | None = None
    metric_dependencies = ("column.distance_from_parent",)
    success_keys = ("max_distance", "parent_quantiles")
    words: ClassVar[str] = (
        "$column is distributed as in the parent snapshot: Kolmogorov-Smirnov distance at most $max_distance"
    )

    def _validate(self, metrics: dict, runtime_configuration: Any = None, execution_engine: Any = None) -> dict:
        found = metrics["column.distance_from_parent"]
        if found is None:
            return {"success": True, "result": {"observed_value": "nothing to compare with", "compared": False}}
        told = "distance {distance:.3f}; median {median:g}, {parent_median:g} in the parent".format(**found)
        return {
            "success": found["distance"] <= self.max_distance,
            "result": {"observed_value": told, "details": found},
        }


def kolmogorov_smirnov(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference, 0 to 1, between the shares of two sorted samples that lie at or below any value."""
    values = np.concatenate([one, other])
    shares = [np.searchsorted(sample, values, side="right") / len(sample) for sample in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


def quantiles(values: np.ndarray) -> list[float]:
    """A sorted sample of the values, few as they may be or many, that is told in QUANTILES parts."""
    known = np.sort(values[~np.isnan(values)])
    if len(known) <= QUANTILES:
        return known.tolist()
    return np.quantile(known, (np.arange(QUANTILES) + 0.5) / QUANTILES, method="inverted_cdf").tolist()
