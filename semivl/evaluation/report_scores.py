"""The report's first tab: scores, IoU per class, confusion, and the best and worst images."""

from typing import TYPE_CHECKING, Any

import numpy as np

from semivl.data.cache import ShardCache
from semivl.data.snapshot import Snapshot
from semivl.evaluation.overlay import palette
from semivl.evaluation.report import Tab
from semivl.evaluation.report_pictures import Example, picture
from semivl.evaluation.scores import ByStrength, Evaluation, Scores, predicted_mask, read_pair

if TYPE_CHECKING:
    import pyarrow as pa

    from semivl.training.bundle import Predictor


def scores_tab(evaluation: Evaluation, examples: tuple[list[Example], list[Example]]) -> Tab:
    """The tab of the evaluation; `examples` are the best and the worst images, see `examples`."""
    scores, per_image, confusion = evaluation
    colours = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in palette(len(scores.iou))]
    best, worst = ([_pictures(e) for e in some] for some in examples)
    by = scores.by_strength
    values = {
        "kinds": _kinds(by) if by else [],
        "weak": by.weak if by else (),
        "classes": _classes(scores, confusion, colours),
        "matrix": _matrix(scores, confusion),
        "mistakes": _mistakes(scores, confusion),
        "groups": [("Worst images", "worst", worst), ("Best images", "best", best)],
        "median_image": _median([v for v in per_image["iou"].to_pylist() if v is not None]),
    }
    return Tab("scores", "Scores", values)


def extremes(per_image: "pa.Table", count: int = 6) -> tuple[list[dict], list[dict]]:
    """Up to `count` images with the best IoU, best first, and with the worst, worst first; none in both."""
    ranked = [r for r in per_image.select(["key", "source", "iou"]).to_pylist() if r["iou"] is not None]
    ranked.sort(key=lambda r: (-r["iou"], r["key"]))
    best = ranked[: min(count, (len(ranked) + 1) // 2)]
    return best, ranked[len(best) :][-count:][::-1]


def examples(
    predictor: "Predictor", snapshot: Snapshot, cache: ShardCache, per_image: "pa.Table", count: int = 6
) -> tuple[list[Example], list[Example]]:
    """The best and the worst images, predicted once more for the report."""

    def shown(record: dict) -> Example:
        row = snapshot.find(record["key"])
        assert row is not None, record["key"]
        photo, truth = read_pair(cache, row)
        prediction = predicted_mask(predictor, photo)
        return Example(record["key"], record["source"], record["iou"], photo, truth, prediction)

    best, worst = extremes(per_image, count)
    return [shown(r) for r in best], [shown(r) for r in worst]


def _classes(scores: Scores, confusion: np.ndarray, colours: list[str]) -> list[dict]:
    """A line a class, best first, absent ones last."""
    share = 100 * confusion.sum(1) / max(int(confusion.sum()), 1)
    lines = [
        {
            "name": name,
            "iou": value,
            "accuracy": scores.class_accuracy[name],
            "boundary": scores.boundary_iou[name],
            "colour": colours[i],
            "share": float(share[i]),
        }
        for i, (name, value) in enumerate(scores.iou.items())
    ]
    return sorted(lines, key=lambda line: (line["iou"] is None, -(line["iou"] or 0)))


def _kinds(by: ByStrength) -> list[dict]:
    """A line a kind of class, where some are known by tags alone."""
    lines = [
        ("classes with masks", by.strong_miou),
        (f"classes known by tags alone: {', '.join(by.weak)}", by.weak_miou),
        ("harmonic mean of the two", by.harmonic),
    ]
    return [{"name": name, "miou": value} for name, value in lines]


def _matrix(scores: Scores, confusion: np.ndarray) -> dict:
    """The confusion of the classes that occur, each row as shares of its truth."""
    kept = [i for i in range(len(confusion)) if confusion[i].sum() + confusion[:, i].sum() > 0]
    names = list(scores.iou)
    rows = []
    for i in kept:
        whole = int(confusion[i].sum())
        cells = [
            {"right": i == j, "share": 100 * int(confusion[i, j]) / whole if whole else 0.0,
             "title": f"truth {names[i]}, predicted {names[j]}: {int(confusion[i, j]):,} of {whole:,} pixels"}
            for j in kept
        ]  # fmt: skip
        rows.append({"name": names[i], "cells": cells})
    return {"names": [names[i] for i in kept], "rows": rows}


def _mistakes(scores: Scores, confusion: np.ndarray, count: int = 5) -> list[dict]:
    """The pairs of classes that cost the most pixels."""
    names = list(scores.iou)
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(wrong, axis=None, kind="stable")[::-1][:count]
    pairs = [divmod(int(flat), len(wrong)) for flat in order]
    return [
        {"truth": names[i], "predicted": names[j], "share": 100 * wrong[i, j] / confusion[i].sum()}
        for i, j in pairs
        if wrong[i, j] > 0
    ]


def _pictures(example: Example) -> dict[str, Any]:
    masks = {"truth": example.truth, "prediction": example.prediction}
    shown = picture(example.source or example.key, example.photo, masks)
    return shown | {"source": example.source, "key": example.key, "iou": example.iou}


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else 0.0
