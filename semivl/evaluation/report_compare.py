"""The report's tab of two models side by side, on the images where they differ most."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from semivl.data.cache import ShardCache
from semivl.data.snapshot import Snapshot
from semivl.evaluation.report import Tab
from semivl.evaluation.report_pictures import picture
from semivl.evaluation.scores import predicted_mask, read_pair

if TYPE_CHECKING:
    import pyarrow as pa

    from semivl.training.bundle import Predictor


@dataclass(frozen=True)
class Pair:
    """One image under two models; photo (H, W, 3), truth and both masks (H, W), all uint8. IoU in points."""

    source: str
    before: float
    after: float
    photo: np.ndarray
    truth: np.ndarray
    left: np.ndarray
    right: np.ndarray


def differing(before: "pa.Table", after: "pa.Table", count: int = 6) -> list[tuple[str, float, float]]:
    """Key and both IoUs of the images where the two differ most: up to `count` where the second leads, most first,
    then up to `count` where it trails. Tables as `Evaluation.per_image`.
    """
    first = dict(zip(before["key"].to_pylist(), before["iou"].to_pylist(), strict=True))
    both = [
        (key, first[key], iou)
        for key, iou in zip(after["key"].to_pylist(), after["iou"].to_pylist(), strict=True)
        if iou is not None and first.get(key) is not None
    ]
    ranked = sorted(both, key=lambda one: (one[1] - one[2], one[0]))
    gained = [one for one in ranked if one[2] > one[1]][:count]
    lost = [one for one in reversed(ranked) if one[2] < one[1]][:count]
    return [*gained, *lost]


def pairs(
    found: Iterable[tuple[str, float, float]],
    left: "Predictor",
    right: "Predictor",
    snapshot: Snapshot,
    cache: ShardCache,
) -> list[Pair]:
    """Those images, predicted by both models."""
    shown = []
    for key, before, after in found:
        row = snapshot.find(key)
        if row is None:
            continue
        photo, truth = read_pair(cache, row)
        masks = predicted_mask(left, photo), predicted_mask(right, photo)
        shown.append(Pair(row.source, before, after, photo, truth, *masks))
    return shown


def compare_tab(left: str, right: str, shown: list[Pair]) -> Tab:
    """The tab of the images; `left` and `right` name the models, as the page shall call them."""
    if not shown:
        return Tab("compare", "Side by side", absent=f"{left} and {right} score the same on every image.")
    groups = [
        (f"Where {right} gains most", [_shown(p) for p in shown if p.after > p.before]),
        (f"Where {right} loses most", [_shown(p) for p in shown if p.after < p.before]),
    ]
    return Tab("compare", "Side by side", {"left": left, "right": right, "groups": groups})


def _shown(pair: Pair) -> dict[str, Any]:
    masks = {"truth": pair.truth, "left": pair.left, "right": pair.right}
    return picture(pair.source, pair.photo, masks) | {"before": pair.before, "after": pair.after}
