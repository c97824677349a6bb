"""The report: one HTML file a model version, which needs no network and no other file.

Scores, IoU per class, confusion, and the best and worst images with photo, truth and prediction side by side.
"""

import base64
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semivl.data.cache import ShardCache
from semivl.data.snapshot import Snapshot
from semivl.evaluation.overlay import mask_png, palette
from semivl.evaluation.scores import Scores, predicted_mask, read_pair

if TYPE_CHECKING:
    import pyarrow as pa

    from semivl.training.bundle import Predictor

_SIDE = 480
"""longest side of a picture in the report, pixels"""


@dataclass(frozen=True)
class Example:
    """One evaluated image; photo (H, W, 3), truth and prediction (H, W), all uint8."""

    key: str
    source: str
    iou: float
    photo: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


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


def write_report(
    path: Path,
    scores: Scores,
    per_image: "pa.Table",
    confusion: np.ndarray,
    examples: tuple[list[Example], list[Example]],
) -> None:
    """Writes the report to `path`, whole or not at all.

    Args:
        confusion: (N, N) pixels by truth and prediction.
        examples: the best and the worst images, see `examples`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    colours = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in palette(len(scores.iou))]
    page = environment.get_template("report.html.j2").render(
        scores=scores,
        classes=_classes(scores, confusion, colours),
        matrix=_matrix(scores, confusion),
        mistakes=_mistakes(scores, confusion),
        groups=[
            ("Worst images", "worst", [_pictures(e) for e in examples[1]]),
            ("Best images", "best", [_pictures(e) for e in examples[0]]),
        ],
        median_image=_median([v for v in per_image["iou"].to_pylist() if v is not None]),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(path)


def _classes(scores: Scores, confusion: np.ndarray, colours: list[str]) -> list[dict]:
    """A line a class, best first, absent ones last."""
    share = 100 * confusion.sum(1) / max(int(confusion.sum()), 1)
    lines = [
        {"name": name, "iou": value, "colour": colours[i], "share": float(share[i])}
        for i, (name, value) in enumerate(scores.iou.items())
    ]
    return sorted(lines, key=lambda line: (line["iou"] is None, -(line["iou"] or 0)))


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


def _pictures(example: Example) -> dict:
    from PIL import Image

    height, width = example.truth.shape
    ratio = min(_SIDE / max(height, width), 1.0)
    size = (max(round(width * ratio), 1), max(round(height * ratio), 1))
    file = io.BytesIO()
    Image.fromarray(example.photo).resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=82)

    def small(mask: np.ndarray) -> str:
        ids = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        return _data_uri(mask_png(ids), "image/png")

    return {
        "name": Path(example.source).name or example.key,
        "source": example.source,
        "key": example.key,
        "iou": example.iou,
        "ratio": f"{size[0]} / {size[1]}",
        "photo": _data_uri(file.getvalue(), "image/jpeg"),
        "truth": small(example.truth),
        "prediction": small(example.prediction),
    }


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else 0.0
