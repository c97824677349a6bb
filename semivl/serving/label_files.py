"""The files of a choice: gallery, table, and what Label Studio and CVAT take.

The folder appears whole or not at all, and the same choice gives the same bytes.
"""

import base64
import csv
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semivl.data.headers import read_header
from semivl.data.sample import Row
from semivl.errors import LabelError
from semivl.serving import label_cvat, label_studio
from semivl.serving.label_page import Head, Why, card, page

_CSV = "choice.csv"
FIELDS: tuple[str, ...] = (
    "place", "key", "source", "width", "height", "uncertainty", "distance", "nearest_labelled", "predicted",
)  # fmt: skip
_TRACE = 0.01
"""share of an image's pixels that a predicted class must have to be told"""


class Picked(NamedTuple):
    """One chosen image: its bytes and pixels, what the model would draw, and why it was chosen."""

    row: Row
    image: bytes
    photo: np.ndarray
    mask: np.ndarray
    uncertainty: float
    distance: float
    nearest: str | None
    """source of the nearest labelled image"""

    @property
    def name(self) -> str:
        return f"{self.row.key}.{'png' if read_header(self.image).format == 'png' else 'jpg'}"

    def why(self, names: tuple[str, ...]) -> Why:
        """The reasons, with the predicted classes that are more than a trace, the largest first."""
        shares = np.bincount(self.mask.ravel(), minlength=len(names)) / self.mask.size
        order = [i for i in np.argsort(-shares, kind="stable").tolist() if shares[i] >= _TRACE]
        return Why(self.uncertainty, self.distance, self.nearest, [(names[i], float(shares[i])) for i in order])


def write(folder: Path, head: Head, picked: Iterable[Picked], rest: int) -> None:
    """All files, one image at a time: a few hundred large photos would not fit in memory together."""
    studio, cvat = folder / "label-studio", folder / "cvat"
    for place in (studio, cvat):
        place.mkdir()
    (studio / "interface.xml").write_text(label_studio.interface(head.classes), encoding="utf-8")
    cards = []
    with (
        (folder / _CSV).open("w", newline="", encoding="utf-8") as table,
        (studio / "tasks.json").open("w", encoding="utf-8") as tasks,
        label_cvat.Package(cvat, head.classes, rest) as package,
    ):
        lines = csv.DictWriter(table, FIELDS, lineterminator="\n")
        lines.writeheader()
        tasks.write("[")
        for place, one in enumerate(picked, 1):
            lines.writerow(_line(place, one, head.classes))
            tasks.write(",\n" if place > 1 else "\n")
            tasks.write(json.dumps(_task(one, head, rest)))
            package.add(one.row, one.name, one.image, one.mask)
            cards.append(card(place, one.row, one.photo, one.mask, one.why(head.classes)))
        tasks.write("\n]\n")
    (folder / "index.html").write_text(page(head, cards), encoding="utf-8")


def _line(place: int, one: Picked, names: tuple[str, ...]) -> dict[str, object]:
    why = one.why(names)
    shares = " ".join(f"{name}:{share:.3f}" for name, share in why.shares)
    return {
        "place": place, "key": one.row.key, "source": one.row.source, "width": one.row.width, "height": one.row.height,
        "uncertainty": f"{why.uncertainty:.4f}",
        "distance": "" if why.nearest is None else f"{why.distance:.4f}",
        "nearest_labelled": why.nearest or "", "predicted": shares,
    }  # fmt: skip


def _task(one: Picked, head: Head, rest: int) -> dict[str, object]:
    kind = "png" if one.name.endswith(".png") else "jpeg"
    address = f"data:image/{kind};base64,{base64.b64encode(one.image).decode()}"
    return label_studio.task(one.row, address, one.mask, head.classes, rest, one.uncertainty, head.model)


def require_ours(output: Path) -> None:
    """LABEL002 where the folder holds anything but an earlier choice."""
    if output.exists() and not (output.is_dir() and ((output / _CSV).is_file() or not any(output.iterdir()))):
        what = f"{output} is there, and no earlier choice of `semivl label-next`."
        raise LabelError("LABEL002", what, "Give another folder with --output.")


@contextmanager
def whole(output: Path) -> Iterator[Path]:
    """A folder that takes the output's place when all of it is written."""
    output = output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished, old = (output.with_name(f".{output.name}.{os.getpid()}{end}") for end in ("", ".old"))
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
        if output.exists():
            output.rename(old)
        unfinished.rename(output)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
