"""The report's tabs that the registry knows of: the gate's decision, and the lineage."""

from collections.abc import Sequence

import yaml

from semivl.evaluation.report import Tab
from semivl.registry.decision import Decision
from semivl.registry.lineage import Lineage, facts

_LEFT, _WIDTH = 20, 600
"""of the plot of the difference, in its own units"""
_ROOM = 0.12
"""share of the plot left free on either side"""


def decision_tab(decisions: Sequence[Decision]) -> Tab:
    """The newest decision about the version, every rule of it; the earlier ones in a sentence each."""
    if not decisions:
        return Tab("decision", "Decision", absent="The gate has not decided on this version yet: semivl-promote does.")
    newest, *earlier = decisions
    return Tab("decision", "Decision", {"decision": newest, "interval": _interval(newest), "earlier": earlier})


def _interval(decision: Decision) -> dict[str, object] | None:
    """Where difference, bounds, margin and ticks lie in the plot; None for a first champion."""
    if decision.difference is None or decision.low is None or decision.high is None:
        return None
    shown = (decision.low, decision.high, decision.margin, 0.0)
    span = max(shown) - min(shown) or 1.0
    first, last = min(shown) - _ROOM * span, max(shown) + _ROOM * span

    def place(value: float) -> float:
        return round(_LEFT + _WIDTH * (value - first) / (last - first), 1)

    step = _step((last - first) / 5)
    ticks = [step * i for i in range(int(first // step) + 1, int(last // step) + 1)]
    return {
        "low": place(decision.low),
        "high": place(decision.high),
        "difference": place(decision.difference),
        "margin": place(decision.margin),
        "anchor": "start" if place(decision.margin) < _LEFT + _WIDTH / 2 else "end",
        "ticks": [(place(tick), f"{tick:+g}" if tick else "0") for tick in (round(t, 6) for t in ticks)],
    }


def _step(rough: float) -> float:
    """The next of 1, 2 and 5 times a power of ten that is at least `rough`."""
    from math import floor, log10

    power = 10.0 ** floor(log10(rough))
    return next(power * one for one in (1, 2, 5, 10) if power * one >= rough * 0.999)


def lineage_tab(made: Lineage) -> Tab:
    """What the version was made of."""
    config = made.config
    text = yaml.safe_dump(config.model_dump(mode="json", exclude={"classes"}), sort_keys=False, allow_unicode=True)
    definitions = [(one.name, one.phrases) for one in config.classes.classes]
    values = {"groups": list(facts(made).items()), "definitions": definitions, "config": text}
    return Tab("lineage", "Lineage", values)
