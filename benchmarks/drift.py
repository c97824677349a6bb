"""How often the tests of drift alarm where nothing has changed, and how often where something has: docs/drift.md.

    python -m benchmarks.drift                                                  # made scenes, the demo's encoder
    python -m benchmarks.drift --source VOC --other FLICKR --vlm spoken:.semivl/vlm/spoken

VOC holds JPEGImages/ and SegmentationClass/, FLICKR images/. Images are divided at random into a reference and new
ones, again and again; of the new ones nothing is changed, or all in one way. The champion's classes are played by the
labels that the encoder's own text gives to its patches, where it has text. Nothing here needs a service.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter

from semivl.cli.common import named_vlm, show_table
from semivl.config import Classes, DriftConfig, load
from semivl.data.scenes_compose import scene
from semivl.evaluation.drift import Measured, compare
from semivl.evaluation.features import LONGEST, embedded, resized
from semivl.nets.encoder import Features
from semivl.nets.vlm import DenseVLM, concept_cosines, load_vlm

SEED, SIZE = 78, 128
"""of the made scenes: neither the demo's nor the pretraining's"""
REFERENCE, NEW = 200, 50
CONFIG = DriftConfig(permutations=999)  # pyright: ignore[reportCallIssue]
Photo = np.ndarray
"""(H, W, 3) uint8"""
Draw = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""places of reference and new images"""


class Seen(NamedTuple):
    """What is compared of every image, and its commonest class beside the first, -1 where none is known."""

    embedding: np.ndarray
    shares: np.ndarray | None
    figures: dict[str, np.ndarray]
    main: np.ndarray

    def of(self, chosen: np.ndarray) -> Measured:
        shares = None if self.shares is None else self.shares[chosen]
        figures = {name: values[chosen] for name, values in self.figures.items()}
        return Measured(len(chosen), self.embedding[chosen], figures, shares)


def darker(photo: Photo) -> Photo:
    return (photo * 0.7).astype(np.uint8)


def blurred(photo: Photo) -> Photo:
    radius = min(photo.shape[:2]) / 100
    return np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(radius)))


@torch.inference_mode()
def seen(vlm: DenseVLM, classes: Classes, side: int, photos: Sequence[Photo], masks: Sequence[Photo | None]) -> Seen:
    """Everything that the tests look at."""
    small = np.stack([resized(photo, side) for photo in photos])
    encoder = vlm.encoder.eval()
    shares = None
    if vlm.text:
        counted = []
        for batch in torch.from_numpy(small).permute(0, 3, 1, 2).split(16):
            features: Features = encoder(batch.float() / 255)
            cosines = concept_cosines(features, vlm.text.phrases, vlm.text.phrase_class, len(classes))
            counted += [np.bincount(m.flatten(), minlength=len(classes)) / m.size for m in cosines.argmax(1).numpy()]
        shares = np.stack(counted)
    height, width = (np.array([photo.shape[axis] for photo in photos], float) for axis in (0, 1))
    brightness = np.array([np.asarray(Image.fromarray(p).convert("L")).mean() for p in photos])
    figures = {"brightness": brightness, "width": width, "height": height, "aspect": width / height}
    return Seen(embedded(encoder, small), shares, figures, np.array([main_class(mask, classes) for mask in masks]))


def main_class(mask: Photo | None, classes: Classes) -> int:
    counts = np.zeros(1, int) if mask is None else np.bincount(mask.ravel(), minlength=256)[1 : len(classes)]
    return int(counts.argmax()) + 1 if counts.any() else -1


def made(count: int) -> tuple[list[Photo], list[Photo | None]]:
    """Scenes with their masks."""
    drawn = [scene(SEED, "evaluation", place, SIZE) for place in range(count)]
    return [s.image for s in drawn], [s.mask for s in drawn]


def masked_photos(folder: Path, count: int) -> tuple[list[Photo], list[Photo | None]]:
    """Photos of a folder in VOC's layout that have a mask, spread over all by name."""
    found = sorted((folder / "SegmentationClass").glob("*.png"))
    chosen = found[:: max(1, len(found) // count)][:count]
    return [rgb(folder / "JPEGImages" / f"{p.stem}.jpg") for p in chosen], [np.asarray(Image.open(p)) for p in chosen]


def rgb(path: Path) -> Photo:
    return np.asarray(Image.open(path).convert("RGB"))


def alarms(classes: Classes, before: Seen, after: Seen, draw: Draw, repetitions: int) -> dict[str, float]:
    """Share of repetitions in which each test alarms, and in which any does."""
    told: dict[str, list[bool]] = {}
    for repetition in range(repetitions):
        old, new = draw(np.random.default_rng(repetition))
        found = compare(before.of(old), after.of(new), classes.names, CONFIG)
        for test in found.tests:
            told.setdefault(test.name, []).append(test.drifted)
        told.setdefault("any", []).append(any(test.drifted for test in found.tests))
    return {name: float(np.mean(values)) for name, values in told.items()}


def divided(count: int) -> Draw:
    """Reference and new images of `count`, none in both."""

    def draw(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        order = random.permutation(count)
        return order[:REFERENCE], order[REFERENCE : REFERENCE + NEW]

    return draw


def of_other_classes(main: np.ndarray) -> Draw:
    """Reference images of all classes, and new ones whose main class is of the rarer half."""
    known, counts = np.unique(main[main > 0], return_counts=True)
    rare = known[np.argsort(counts)][: len(known) // 2]

    def draw(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        order = random.permutation(len(main))
        new = order[np.isin(main[order], rare)][:NEW]
        return np.setdiff1d(order, new)[random.permutation(len(order) - len(new))][:REFERENCE], new

    return draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="real photos with masks, in VOC's layout")
    parser.add_argument("--other", type=Path, help="with it: images/ of photos of another source")
    parser.add_argument("--vlm", default="tiny")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--repetitions", type=int, default=500, help="where nothing has changed; else a fifth of it")
    chosen = parser.parse_args()
    config = load("photos" if chosen.source else "demo")
    classes = config.classes
    side = LONGEST if chosen.source else config.train.crop
    photos, masks = masked_photos(chosen.source, chosen.images) if chosen.source else made(chosen.images)
    vlm = load_vlm(named_vlm(chosen.vlm), classes, side)

    def look(photos: list[Photo], masks: list[Photo | None]) -> Seen:
        return seen(vlm, classes, side, photos, masks)

    plain = look(photos, masks)
    few = max(1, chosen.repetitions // 5)
    draw = divided(len(photos))
    dark, soft = (look([change(p) for p in photos], masks) for change in (darker, blurred))
    rows = [
        ("nothing", chosen.repetitions, alarms(classes, plain, plain, draw, chosen.repetitions)),
        ("darker, x 0.7", few, alarms(classes, plain, dark, draw, few)),
        ("blurred, 1 % of the short side", few, alarms(classes, plain, soft, draw, few)),
    ]
    rows.append(("rarer half of the classes", few, alarms(classes, plain, plain, of_other_classes(plain.main), few)))
    if chosen.other:
        others = sorted((chosen.other / "images").glob("*.jpg"))
        others = [rgb(p) for p in others[:: max(1, len(others) // chosen.images)][: chosen.images]]
        rows.append(("another source", few, alarms(classes, plain, look(others, [None] * len(others)), draw, few)))
    print(
        f"{len(photos)} {'photos' if chosen.source else 'made scenes'}, vlm {Path(chosen.vlm).name} at {side} pixels, "
        f"{REFERENCE} reference and {NEW} new images, false_alarms {CONFIG.false_alarms:g}, "
        f"{CONFIG.permutations} permutations, {os.cpu_count()} cores"
    )
    names = list(rows[0][2])
    show_table(
        [
            {"changed": what, "repetitions": count, **{name: f"{100 * shares[name]:.1f} %" for name in names}}
            for what, count, shares in rows
        ],
        "share of repetitions with an alarm",
    )


if __name__ == "__main__":
    main()
