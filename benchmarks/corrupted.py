"""Label maps of known precision, made of true masks: how good would guidance have to be?

    python -m benchmarks.corrupted        # before the oracle rows of real_photos; needs SEMIVL_REAL_DATA

For every photo of the VOC subset that has a mask, each connected region of an object keeps its class with probability P
and otherwise gets another class of objects, drawn evenly. Background stays background and unlabelled borders stay
unsure, so that P is the precision of the pixels called an object, region by region. The maps are named by the samples'
keys, as `guidance.labels` takes them. Printed is the precision of each folder of maps, the guide's own included.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from benchmarks.real_photos import GUIDES, ORACLE, ORACLES
from semivl.config import IGNORE, load
from semivl.data.source_files import source_folder
from semivl.settings import ROOT

BACKGROUND = 0


def true_masks() -> Iterator[tuple[str, np.ndarray]]:
    """Key and (H, W) mask of every photo of the subset that has one."""
    source = source_folder(load("photos").data)
    for path in sorted((source / "SegmentationClass").glob("*.png")):
        image = source / "JPEGImages" / f"{path.stem}.jpg"
        yield hashlib.sha256(image.read_bytes()).hexdigest()[:16], np.asarray(Image.open(path))


def corrupted(mask: np.ndarray, precision: float, classes: int, random: np.random.Generator) -> np.ndarray:
    """The (H, W) mask with each object's region renamed with probability 1 - precision."""
    out = mask.copy()
    for name in np.setdiff1d(np.unique(mask), [BACKGROUND, IGNORE]):
        regions, count = ndimage.label(mask == name)  # pyright: ignore[reportGeneralTypeIssues]
        for region in range(1, count + 1):
            if random.random() >= precision:
                others = np.setdiff1d(np.arange(1, classes), [name])
                out[regions == region] = random.choice(others)
    return out


def write(masks: dict[str, np.ndarray]) -> None:
    """Writes the maps of every P of real_photos."""
    classes = len(load("photos").classes)
    for number, (key, mask) in enumerate(masks.items()):
        for precision in ORACLES:
            folder = ROOT / ORACLE / str(precision)
            folder.mkdir(parents=True, exist_ok=True)
            random = np.random.default_rng((number, round(100 * precision)))
            Image.fromarray(corrupted(mask, precision, classes, random)).save(folder / f"{key}.png")


def quality(folder: Path, masks: dict[str, np.ndarray]) -> str:
    """A row: photos, share of their pixels with a label, called an object, and how many of these are right."""
    photos = pixels = sure = objects = right = 0
    for key, mask in masks.items():
        if not (folder / f"{key}.png").is_file():
            continue
        labels = np.asarray(Image.open(folder / f"{key}.png"))
        known = mask != IGNORE
        called = (labels != BACKGROUND) & (labels != IGNORE) & known
        photos, pixels = photos + 1, pixels + int(known.sum())
        sure, objects = sure + int(((labels != IGNORE) & known).sum()), objects + int(called.sum())
        right += int((called & (labels == mask)).sum())
    return f"{photos} | {sure / pixels:.3f} | {objects / pixels:.3f} | {right / objects:.3f}"


def main() -> None:
    masks = dict(true_masks())
    write(masks)
    print("| maps | photos | pixels with a label | called an object | right of those |\n|---|---|---|---|---|")
    for folder in [*(ROOT / ORACLE / str(p) for p in ORACLES), *sorted((ROOT / GUIDES).glob("*"))]:
        print(f"| {folder.parent.name}/{folder.name} | {quality(folder, masks)} |")


if __name__ == "__main__":
    main()
