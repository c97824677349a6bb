"""Label Studio: tasks with pre-annotations and the interface for them, and what annotators drew, read back.

A task holds its image as a data address, so that it needs no storage, no server's setting and no network; the export
still names the sample by `data.key`. A region is a brush's run lengths: what the model drew has no few corners.
"""

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from semivl.config import IGNORE
from semivl.data.sample import Row
from semivl.errors import LabelError
from semivl.evaluation.overlay import palette
from semivl.serving.label_drawn import Dataset, Drawn, bad_file, bad_region, painted, polygon, require_size
from semivl.serving.label_rle import RunLengthError, brush, from_brush

_BRUSH, _POLYGON = "brushlabels", "polygonlabels"
_FROM, _TO = "mask", "image"
_UPLOADED = re.compile(r"^.*[/=](?:[0-9a-f]{8}-)?")
"""what stands before a file's name in the address of an uploaded or a local file"""


def interface(names: Sequence[str]) -> str:
    """The labeling interface's XML: a brush with every class, in the colours of semivl's masks, and a polygon."""
    colours = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in palette(len(names))]
    labels = [
        f"    <Label value={quoteattr(name)} background={quoteattr(colour)}/>"
        for name, colour in zip(names, colours, strict=True)
    ]
    parts = [
        "<View>",
        f'  <Image name="{_TO}" value="$image" zoom="true" zoomControl="true" brightnessControl="true"/>',
    ]
    for tag, name in (("BrushLabels", _FROM), ("PolygonLabels", "outline")):
        parts += [f'  <{tag} name="{name}" toName="{_TO}">', *labels, f"  </{tag}>"]
    return "\n".join([*parts, "</View>", ""])


def task(
    row: Row, image: str, mask: np.ndarray, names: Sequence[str], rest: int, score: float, model: str
) -> dict[str, Any]:
    """One task: the image as a data address, and the model's mask as a region for each class but `rest`."""
    found = [int(i) for i in np.unique(mask) if i != rest]
    regions = [
        {
            "id": f"{row.key}-{i}", "from_name": _FROM, "to_name": _TO, "type": _BRUSH,
            "original_width": row.width, "original_height": row.height, "image_rotation": 0,
            "value": {"format": "rle", "rle": brush(mask == i), _BRUSH: [names[i]]},
        }
        for i in found
    ]  # fmt: skip
    return {
        "data": {"image": image, "key": row.key, "source": row.source},
        "predictions": [{"model_version": model, "score": round(score, 4), "result": regions}],
    }


def read_export(path: Path, dataset: Dataset) -> Iterator[Drawn | None]:
    """The images of a JSON export, in its order; None for one that nobody drew on.

    Of several annotations of an image the one that was changed last counts. An empty one says that all is background.

    Raises:
        LabelError: LABEL004 to LABEL008, see docs/codes.md.
    """
    try:
        tasks = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise bad_file(path, str(error)) from None
    if not isinstance(tasks, list) or not all(isinstance(t, dict) and isinstance(t.get("data"), dict) for t in tasks):
        raise bad_file(path, "it is no list of tasks; export as JSON, not JSON-MIN")
    for found in tasks:
        latest = _latest(found)
        if latest is None:
            yield None
            continue
        row = dataset.row(_name(found["data"]))
        regions = [_region(result, row, dataset) for result in latest if _is_region(result)]
        drawn = regions or dataset.background != IGNORE
        yield Drawn(row, painted(row, regions, dataset.background)) if drawn else None


def _name(data: dict[str, Any]) -> str:
    """What a task calls its image: semivl's key, else the file's name without what an upload puts in front of it."""
    if isinstance(data.get("key"), str):
        return data["key"]
    image = str(data.get("image", ""))
    return _UPLOADED.sub("", image) if len(image) < 1024 else "in a task without data.key"


def _latest(found: dict[str, Any]) -> list[Any] | None:
    """The results of the annotation that was changed last; None where nobody annotated, or all was cancelled."""
    annotations = found.get("annotations")
    if not isinstance(annotations, list):
        return None
    done = [a for a in annotations if isinstance(a, dict) and not a.get("was_cancelled")]
    if not done:
        return None
    result = max(done, key=_changed).get("result")
    return result if isinstance(result, list) else []


def _changed(annotation: dict[str, Any]) -> float:
    said = str(annotation.get("updated_at") or annotation.get("created_at") or "")
    try:
        return datetime.fromisoformat(said).timestamp()
    except ValueError:
        return 0.0


def _is_region(result: Any) -> bool:
    """Whether it belongs on the mask: not a choice or a comment about the whole image."""
    return isinstance(result, dict) and str(result.get("type", "")).endswith("labels")


def _region(result: dict[str, Any], row: Row, dataset: Dataset) -> tuple[int, np.ndarray]:
    """Class id and (H, W) bool region of one result."""
    where = f"the task of {row.key}"
    kind, value = result["type"], result.get("value")
    labels = value.get(kind) if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(labels, list) or len(labels) != 1:
        raise bad_region(where, "it has not one label")
    class_id = dataset.class_id(str(labels[0]), where)
    width, height = result.get("original_width"), result.get("original_height")
    if not isinstance(width, int) or not isinstance(height, int):
        raise bad_region(where, "original_width and original_height are missing")
    require_size(row, width, height, where)
    if result.get("image_rotation"):
        raise LabelError("LABEL007", f"{where} was drawn on a turned image.", "Turn it back and draw again.")
    if kind == _BRUSH:
        try:
            return class_id, from_brush(value.get("rle"), height, width)
        except RunLengthError as error:
            raise bad_region(where, str(error)) from None
    if kind == _POLYGON:
        return class_id, polygon(row, _points(value.get("points"), row, where), where)
    raise bad_region(where, f"its type is {kind}; draw with the brush or the polygon")


def _points(points: Any, row: Row, where: str) -> list[float]:
    """x, y, ... in pixels of Label Studio's [[x, y], ...] in percent."""
    try:
        pairs = [(float(x) * row.width / 100, float(y) * row.height / 100) for x, y in points]
    except (TypeError, ValueError):
        raise bad_region(where, "its points are no pairs of numbers") from None
    return [value for pair in pairs for value in pair]
