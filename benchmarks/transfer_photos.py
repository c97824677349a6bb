"""Photos in memory with their true masks, of which a transfer training is shown what it may see.

Crops are drawn as `semivl.data.stream` draws them. No service is needed.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from semivl.config import IGNORE, Classes, TrainConfig
from semivl.data.augment import crop_image, crop_mask, draw_crop, outside
from semivl.data.scenes_compose import scene
from semivl.data.stream import Batches, Labelled, Unlabelled, positions
from semivl.settings import home

SIZE = 128
"""side of a scene in pixels"""


@dataclass(frozen=True)
class Photos:
    """Photos with true masks."""

    images: Sequence[np.ndarray]
    """(H, W, 3) uint8 each"""
    masks: Sequence[np.ndarray]
    """(H, W) uint8 each"""

    def __len__(self) -> int:
        return len(self.images)

    def chosen(self, places: Sequence[int]) -> "Photos":
        return Photos([self.images[i] for i in places], [self.masks[i] for i in places])

    def hiding(self, classes: Sequence[int]) -> "Photos":
        """The same with the pixels of those classes as nobody had drawn them: 255."""
        return Photos(self.images, [np.where(np.isin(m, classes), IGNORE, m).astype(np.uint8) for m in self.masks])

    def tags(self, classes: int) -> torch.Tensor:
        """(n, N) int8 complete tags of what the true masks hold; the background, id 0, is never told."""
        told = torch.zeros(len(self), classes, dtype=torch.int8)
        for row, mask in zip(told, self.masks, strict=True):
            row[[int(i) for i in np.unique(mask) if i < classes]] = 1
        told[:, 0] = -1
        return told


@dataclass(frozen=True)
class Shown:
    """What a training sees: photos with masks, and tagged photos whose masks nothing here reads."""

    strong: Photos
    weak: Photos
    strong_tags: torch.Tensor
    weak_tags: torch.Tensor
    config: TrainConfig

    def step(self, step: int) -> Batches:
        """The crops of a step."""
        labelled, crops = self._drawn(len(self.strong), self.strong, step, 0)
        images = _planes([crop_image(self.strong.images[i], c) for i, c in zip(labelled, crops, strict=True)])
        masks = np.stack([crop_mask(self.strong.masks[i], c) for i, c in zip(labelled, crops, strict=True)])
        shown = Labelled(images, torch.from_numpy(masks).long(), self.strong_tags[labelled])
        tagged, crops = self._drawn(len(self.weak), self.weak, step, 1)
        images = _planes([crop_image(self.weak.images[i], c) for i, c in zip(tagged, crops, strict=True)])
        padding = torch.from_numpy(np.stack([outside(c) for c in crops]))
        return Batches(shown, Unlabelled(images, padding, None, self.weak_tags[tagged]))

    def _drawn(self, count: int, photos: Photos, step: int, view: int):
        chosen = positions(step, self.config.batch, count, self.config.seed)
        random = np.random.default_rng((self.config.seed, step, view))
        return chosen, [draw_crop(*photos.masks[i].shape, self.config, random) for i in chosen]


def _planes(images: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def scenes(split: str, count: int, seed: int = 0) -> Photos:
    """The demo's scenes, kept for the next call."""
    path = home() / "bench" / f"scenes-{seed}-{split}-{count}.npz"
    if not path.is_file():
        drawn = [scene(seed, split, index, SIZE) for index in range(count)]
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, images=np.stack([d.image for d in drawn]), masks=np.stack([d.mask for d in drawn]))
    with np.load(path) as kept:
        return Photos(list(kept["images"]), list(kept["masks"]))


def voc(names: Sequence[str], classes: Classes, wanted: Sequence[str]) -> Photos:
    """Photos of the VOC subset with masks of the `wanted` classes alone, in their order; 255 for any other object."""
    root = Path(os.environ["SEMIVL_REAL_DATA"]) / "voc2012-subset"
    table = np.full(256, IGNORE, np.uint8)
    for place, name in enumerate(wanted):
        table[classes.names.index(name)] = place
    images = [np.asarray(Image.open(root / "JPEGImages" / f"{n}.jpg").convert("RGB")) for n in names]
    masks = [table[np.asarray(Image.open(root / "SegmentationClass" / f"{n}.png"))] for n in names]
    return Photos(images, masks)
