"""CVAT: a package with pre-annotations. `images.zip` makes the task, `labels.json` its labels, and `annotations.xml`,
in the format "CVAT 1.1", what the model drew.

Masks as run lengths (docs.cvat.ai, "XML annotation format"); images go by their keys.
"""

import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from semivl.data.sample import Row
from semivl.evaluation.overlay import palette
from semivl.serving.label_rle import box_runs

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""the time of every member, so that the same images are the same zip"""


def labels(names: Sequence[str]) -> str:
    """What CVAT's raw label editor takes: every class in the colour of semivl's masks."""
    colours = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in palette(len(names))]
    made = [
        {"name": name, "color": colour, "type": "any", "attributes": []}
        for name, colour in zip(names, colours, strict=True)
    ]
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def annotations(drawn: Iterable[tuple[Row, str, np.ndarray]], names: Sequence[str], rest: int) -> Iterator[str]:
    """The XML in parts: a mask for each class but `rest` of every (row, image's name, (H, W) class ids)."""
    yield '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>\n    <task>\n'
    told = "".join(f"        <label><name>{escape(name)}</name></label>\n" for name in names)
    yield f"      <mode>annotation</mode>\n      <labels>\n{told}      </labels>\n    </task>\n  </meta>\n"
    for number, (row, name, mask) in enumerate(drawn):
        size = f'width="{row.width}" height="{row.height}"'
        yield f'  <image id="{number}" name={quoteattr(name)} {size}>\n'
        for index in np.unique(mask):
            if index != rest:
                yield _mask(mask == index, names[index])
        yield "  </image>\n"
    yield "</annotations>\n"


def _mask(region: np.ndarray, name: str) -> str:
    counts, (left, top, width, height) = box_runs(region)
    runs = ", ".join(map(str, counts))
    box = f'left="{left}" top="{top}" width="{width}" height="{height}"'
    return f'    <mask label={quoteattr(name)} source="auto" occluded="0" rle="{runs}" {box} z_order="0"/>\n'


def write_images(path: Path, images: Iterable[tuple[str, bytes]]) -> None:
    """A zip of named images, the same bytes for the same images. They are stored: JPEG and PNG do not shrink."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for name, image in images:
            file.writestr(zipfile.ZipInfo(name, _EPOCH), image)
