"""The report's tabs that are drawn from figures alone: slices, calibration, drift."""

from itertools import groupby

from semivl.evaluation.calibration import Bin
from semivl.evaluation.drift import Drift, verdict
from semivl.evaluation.report import Tab
from semivl.evaluation.scores import Scores

_LEFT, _BOTTOM, _WIDE, _HIGH = 50, 330, 400, 320
"""of the reliability plot, in its own units; the counts lie below, _COUNTS high"""
_COUNTS_BOTTOM, _COUNTS = 415, 60
_BOX = (20, 20, 420, 300)
"""left, top, width and height of the plot of embeddings"""


def slices_tab(scores: Scores) -> Tab:
    """mIoU of every slice against the whole split's."""
    if not scores.slices:
        return Tab("slices", "Slices", absent="The split has too few images for slices that would say something.")
    away = [abs(s.miou - scores.miou) for s in scores.slices if s.miou is not None]
    most = max([*away, 1.0])
    kinds = [
        (
            kind,
            [
                {
                    "name": one.name,
                    "images": one.images,
                    "miou": one.miou,
                    "away": None if one.miou is None else one.miou - scores.miou,
                    "length": 0.0 if one.miou is None else 100 * abs(one.miou - scores.miou) / most,
                }
                for one in some
            ],
        )
        for kind, some in groupby(scores.slices, key=lambda s: s.kind)
    ]
    return Tab("slices", "Slices", {"kinds": kinds})


def calibration_tab(scores: Scores) -> Tab:
    """The reliability plot: accuracy against confidence, and how many pixels stand behind each bin."""
    held = [b for b in scores.reliability if b.pixels]
    if not held:
        return Tab("calibration", "Calibration", absent="No confidence was kept with these scores.")
    most = max(b.pixels for b in held)
    return Tab("calibration", "Calibration", {"bars": [_bar(b, most) for b in held]})


def _bar(one: Bin, most: int) -> dict[str, object]:
    height, count = _HIGH * one.accuracy / 100, max(1.0, _COUNTS * one.pixels / most)
    named = f"{100 * one.low:.0f} to {100 * one.high:.0f} %"
    return {
        "x": round(_LEFT + _WIDE * one.low + 1, 1),
        "width": round(_WIDE * (one.high - one.low) - 2, 1),
        "y": round(_BOTTOM - height, 1),
        "height": round(height, 1),
        "count_y": round(_COUNTS_BOTTOM - count, 1),
        "count_height": round(count, 1),
        "point": f"{_LEFT + _WIDE * one.confidence / 100:.1f},{_BOTTOM - height:.1f}",
        "range": named,
        "title": f"confidence {named}: {one.accuracy:.1f} % of {one.pixels:,} pixels are right",
        "confidence": one.confidence,
        "accuracy": one.accuracy,
        "pixels": one.pixels,
    }


def drift_tab(drift: Drift | None) -> Tab:
    """The tests of new images against those that the version learned from, and where they lie in feature space."""
    if drift is None:
        return Tab("drift", "Drift", absent="New images were not compared with this version's yet: semivl drift does.")
    old, new = _placed(drift.points)
    shares = sorted(drift.class_shares.items(), key=lambda item: -abs(item[1][1] - item[1][0]))
    return Tab(
        "drift",
        "Drift",
        {
            "drift": drift,
            "verdict": verdict(drift),
            "old": old,
            "new": new,
            "shares": [(name, 100 * before, 100 * now) for name, (before, now) in shares],
        },
    )


Places = list[tuple[float, float]]


def _placed(points: tuple[tuple[float, float, bool], ...]) -> tuple[Places, Places]:
    """The points in the plot's box, those before and the new ones."""
    if not points:
        return [], []
    left, top, width, height = _BOX
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    x_span, y_span = max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 1.0
    sides: tuple[Places, Places] = ([], [])
    for x, y, is_new in points:
        place = (left + width * (x - min(xs)) / x_span, top + height * (max(ys) - y) / y_span)
        sides[is_new].append((round(place[0], 1), round(place[1], 1)))
    return sides
