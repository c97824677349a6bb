"""Label maps of known precision, made of true masks: how good would guidance have to be?

    python -m benchmarks.corrupted --output .semivl/photos-oracle        # before the oracle rows of real_photos

For every photo of the VOC subset that has a mask, each connected region of an object keeps its class with probability P
and otherwise gets another class of objects, drawn evenly. Background stays background and unlabelled borders stay
unsure, so that P is the precision of the pixels called an object, region by region. The maps are named by the samples'
keys, as `guidance.labels` takes them.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from benchmarks.real_photos import ORACLES
from semivl.config import IGNORE, load
from semivl.data.layouts import source_folder

BACKGROUND = 0


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(".semivl/photos-oracle"))
    output = parser.parse_args().output
    config = load("photos")
    source, classes = source_folder(config.data), len(config.classes)
    masks = sorted((source / "SegmentationClass").glob("*.png"))
    right = dict.fromkeys(ORACLES, 0)
    objects = dict.fromkeys(ORACLES, 0)
    for number, path in enumerate(masks):
        image = source / "JPEGImages" / f"{path.stem}.jpg"
        key = hashlib.sha256(image.read_bytes()).hexdigest()[:16]
        mask = np.asarray(Image.open(path))
        for precision in ORACLES:
            labels = corrupted(mask, precision, classes, np.random.default_rng((number, round(100 * precision))))
            folder = output / str(precision)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels).save(folder / f"{key}.png")
            called = (labels != BACKGROUND) & (labels != IGNORE)
            objects[precision] += int(called.sum())
            right[precision] += int((called & (labels == mask)).sum())
    print(f"{len(masks)} photos")
    for precision in ORACLES:
        print(f"P = {precision}: {right[precision] / objects[precision]:.3f} of the pixels called an object are right")


if __name__ == "__main__":
    main()
