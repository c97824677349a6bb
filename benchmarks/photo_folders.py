"""Folders of real photos for trials of methods that learn from other things than masks.

    export SEMIVL_REAL_DATA=FOLDER                     # holds voc2012-subset/ and flickr8k/
    python -m benchmarks.photo_folders                 # .semivl/photos-code, for conf/experiment/photos-code.yaml

benchmarks/teachers.py makes others, of ten classes, half of which no mask shows. What lies in a folder stays.
"""

import csv
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.transfer_photos import STRONG, WANTED, WEAK, real_data, voc_folder, voc_mask, voc_names
from semivl.config import IGNORE
from semivl.data.scenes import mask_png
from semivl.settings import home

CAPTIONED = 3000
"""of Flickr8k's photos: more than a short training sees"""


def captioned(folder: Path, table: np.ndarray) -> None:
    """Flickr8k's photos with their captions, and the subset's val photos with masks to be scored on."""
    evaluation(folder, table)
    source = real_data("flickr8k")
    with (source / "captions.txt").open(newline="") as file:
        lines = [(line["image"], line["caption"]) for line in csv.DictReader(file)]
    chosen = list(dict.fromkeys(name for name, _ in lines))[:CAPTIONED]
    copied(source / "images", chosen, folder / "images")
    kept = [{"image": name, "caption": caption} for name, caption in lines if name in set(chosen)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))


def halves(folder: Path, table: np.ndarray, masks: int, tagged: int) -> None:
    """Photos with masks of the strong half of WANTED, and others that tags alone tell of; all tags are complete.

    Objects of the weak half are 255 in the training masks, and so are classes that are not in WANTED everywhere.
    """
    evaluation(folder, table)
    held_out = set(voc_names("val"))
    train = [n for n in np.random.default_rng(0).permutation(voc_names("train_aug")) if n not in held_out]
    drawn: list[str] = []
    told: list[str] = []
    tags: list[dict[str, object]] = []
    for name in train:
        mask = voc_mask(name, table)
        shown = set(np.unique(mask).tolist()) & (WEAK | STRONG)
        if shown & STRONG and len(drawn) < masks:
            drawn.append(name)
            hidden = np.where(np.isin(mask, list(WEAK)), IGNORE, mask).astype(np.uint8)
            save_mask(hidden, folder / "masks" / f"{name}.png")
        elif shown and len(told) < tagged:
            told.append(name)
        else:
            continue
        tags.append({"image": f"{name}.jpg", "tags": [WANTED[i - 1] for i in sorted(shown)], "complete": True})
    copied(voc_folder() / "JPEGImages", [f"{n}.jpg" for n in (*drawn, *told)], folder / "images")
    (folder / "tags.jsonl").write_text("".join(json.dumps(line) + "\n" for line in tags))


def evaluation(folder: Path, table: np.ndarray) -> None:
    """The subset's val photos that show a class which `table` keeps, their masks, and val.txt that names them."""
    names = []
    for name in voc_names("val"):
        mask = voc_mask(name, table)
        if np.isin(mask, (0, IGNORE), invert=True).any():
            names.append(name)
            save_mask(mask, folder / "masks" / f"{name}.png")
    copied(voc_folder() / "JPEGImages", [f"{n}.jpg" for n in names], folder / "images")
    (folder / "val.txt").write_text("".join(f"{name}\n" for name in names))


def save_mask(mask: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mask_png(mask))


def copied(source: Path, names: Iterable[str], target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (target / name).is_file():
            shutil.copyfile(source / name, target / name)


if __name__ == "__main__":
    captioned(home() / "photos-code", np.arange(256, dtype=np.uint8))
