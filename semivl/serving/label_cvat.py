"""CVAT: a package with pre-annotations. `images.zip` makes the task, `labels.json` its labels, and `annotations.xml`,
in the format "CVAT 1.1", what the model drew.

Masks as run lengths (docs.cvat.ai, "XML annotation format"); images go by their keys.
"""

import json
import zipfile
from pathlib import Path
from typing import Self
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from semivl.data.sample import Row
from semivl.evaluation.overlay import palette
from semivl.serving.label_rle import box_runs

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""the time of every member, so that the same images are the same zip"""


def _labels(names: tuple[str, ...]) -> str:
    """What CVAT's raw label editor takes: every class in the colour of semivl's masks."""
    colours = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in palette(len(names))]
    made = [
        {"name": name, "color": colour, "type": "any", "attributes": []}
        for name, colour in zip(names, colours, strict=True)
    ]
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


class Package:
    """images.zip, labels.json and annotations.xml in a folder, an image at a time. The same images, the same bytes."""

    def __init__(self, folder: Path, names: tuple[str, ...], rest: int) -> None:
        """`rest` is the class that is not drawn: what no other covers."""
        self._names, self._rest, self._count = names, rest, 0
        (folder / "labels.json").write_text(_labels(names), encoding="utf-8")
        self._xml = (folder / "annotations.xml").open("w", encoding="utf-8")
        self._zip = zipfile.ZipFile(folder / "images.zip", "w", zipfile.ZIP_STORED)  # JPEG and PNG do not shrink
        told = "".join(f"        <label><name>{escape(name)}</name></label>\n" for name in names)
        self._xml.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
        self._xml.write(f"  <meta>\n    <task>\n      <mode>annotation</mode>\n      <labels>\n{told}")
        self._xml.write("      </labels>\n    </task>\n  </meta>\n")

    def add(self, row: Row, name: str, image: bytes, mask: np.ndarray) -> None:
        """An image's bytes under that name, and a region for each class but `rest` of (H, W) class ids."""
        self._zip.writestr(zipfile.ZipInfo(name, _EPOCH), image)
        size = f'width="{row.width}" height="{row.height}"'
        self._xml.write(f'  <image id="{self._count}" name={quoteattr(name)} {size}>\n')
        for index in np.unique(mask).tolist():
            if index != self._rest:
                self._xml.write(_mask(mask == index, self._names[index]))
        self._xml.write("  </image>\n")
        self._count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if not any(raised):
            self._xml.write("</annotations>\n")
        self._xml.close()
        self._zip.close()


def _mask(region: np.ndarray, name: str) -> str:
    counts, (left, top, width, height) = box_runs(region)
    runs = ", ".join(map(str, counts))
    box = f'left="{left}" top="{top}" width="{width}" height="{height}"'
    return f'    <mask label={quoteattr(name)} source="auto" occluded="0" rle="{runs}" {box} z_order="0"/>\n'
