"""Waiting times as a row of a table."""

import math

HEAD = "| what | times | median, s | 95 %, s | longest, s |\n|---|---|---|---|---|"


def row(what: str, seconds: list[float]) -> str:
    """Its times, median, 95th percentile and longest."""
    if not seconds:
        return f"| {what} | 0 | - | - | - |"
    return f"| {what} | {len(seconds)} | " + " | ".join(f"{percentile(seconds, p):.3g}" for p in (50, 95, 100)) + " |"


def percentile(seconds: list[float], percent: float) -> float:
    """The smallest of them that at least so many percent do not exceed."""
    ordered = sorted(seconds)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
