"""Photos in memory with their true masks, of which a transfer training is shown what it may see.

Crops are drawn as `semivl.data.stream` draws them. No service is needed.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from semivl.config import IGNORE, Classes, Config, MethodConfig, TrainConfig, load
from semivl.data.augment import Crop, crop_image, crop_mask, draw_crop, outside
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

    def and_(self, others: "Photos") -> "Photos":
        return Photos([*self.images, *others.images], [*self.masks, *others.masks])

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
        """The crops of a step, which is all that a training gets."""
        labelled, crops = self._drawn(len(self.strong), self.strong, step, 0)
        images = _planes([crop_image(self.strong.images[i], c) for i, c in zip(labelled, crops, strict=True)])
        masks = np.stack([crop_mask(self.strong.masks[i], c) for i, c in zip(labelled, crops, strict=True)])
        shown = Labelled(images, torch.from_numpy(masks).long(), self.strong_tags[labelled])
        tagged, crops = self._drawn(len(self.weak), self.weak, step, 1)
        images = _planes([crop_image(self.weak.images[i], c) for i, c in zip(tagged, crops, strict=True)])
        padding = torch.from_numpy(np.stack([outside(c) for c in crops]))
        return Batches(shown, Unlabelled(images, padding, None, self.weak_tags[tagged]))

    def truth(self, step: int) -> torch.Tensor:
        """(B, S, S) true masks of the step's tagged crops, to compare labels with."""
        tagged, crops = self._drawn(len(self.weak), self.weak, step, 1)
        return torch.from_numpy(
            np.stack([crop_mask(self.weak.masks[i], c) for i, c in zip(tagged, crops, strict=True)])
        )

    def _drawn(self, count: int, photos: Photos, step: int, view: int) -> tuple[list[int], list[Crop]]:
        chosen = positions(step, self.config.batch, count, self.config.seed)
        random = np.random.default_rng((self.config.seed, step, view))
        return chosen, [
            draw_crop(photos.masks[i].shape[0], photos.masks[i].shape[1], self.config, random) for i in chosen
        ]


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


def real_data(name: str) -> Path:
    """The folder of that name in SEMIVL_REAL_DATA."""
    folder = Path(os.environ.get("SEMIVL_REAL_DATA", ".")) / name
    if not folder.is_dir():
        sys.exit(f"there is no {folder}: set SEMIVL_REAL_DATA to the folder that holds {name}/")
    return folder


def voc_folder() -> Path:
    """The VOC subset."""
    return real_data("voc2012-subset")


def voc_mask(name: str, table: np.ndarray) -> np.ndarray:
    """(H, W) uint8; `table` (256,) gives the class of each of VOC's ids."""
    return table[np.asarray(Image.open(voc_folder() / "SegmentationClass" / f"{name}.png"))]


def voc(names: Sequence[str], table: np.ndarray) -> Photos:
    """Photos of the VOC subset."""
    images = [np.asarray(Image.open(voc_folder() / "JPEGImages" / f"{n}.jpg").convert("RGB")) for n in names]
    return Photos(images, [voc_mask(name, table) for name in names])


VOC_METHOD = {
    "network": "deeplab",
    "trains": "none",
    "first_phase": 0.5,
    "label_transfer": {
        "net": {"trains": "none"},
        "activation": {"scales": [1.0], "mirrored": False},
        "labels": {"diffusion": {"node_area": 40}},
    },
}


@dataclass(frozen=True)
class Setting:
    """A data set divided into strong and weak classes."""

    config: Config
    weak: tuple[int, ...]
    strong_photos: Photos
    weak_photos: Photos
    evaluation: Photos

    @property
    def names(self) -> tuple[str, ...]:
        return self.config.classes.names

    def shown(self, seed: int) -> Shown:
        """What a training of that seed sees."""
        train = self.config.train.model_copy(update={"seed": seed})
        hidden = self.strong_photos.hiding(self.weak)
        n = len(self.names)
        return Shown(hidden, self.weak_photos, self.strong_photos.tags(n), self.weak_photos.tags(n), train)


def scenes_setting() -> Setting:
    """300 scenes with masks of cat, duck, car and mushroom, and 600 with complete tags."""
    config = load("scenes-transfer")
    weak = tuple(config.classes.names.index(name) for name in ("fox", "hen", "truck", "umbrella"))
    return Setting(config, weak, scenes("labelled", 300), scenes("unlabelled", 600), scenes("evaluation", 120))


WANTED = ("car", "cat", "chair", "cow", "dog", "horse", "person", "potted plant", "sheep", "sofa")
"""classes that the VOC subset shows often, in VOC's order; the second half is strong (spec transfer.md, 1: the swapped
split), since few photos of the subset show potted plants or sofas without one of the others"""
WEAK, STRONG = set(range(1, len(WANTED) // 2 + 1)), set(range(len(WANTED) // 2 + 1, len(WANTED) + 1))
"""their ids, the background being 0"""
MOST = 500
"""photos of a kind"""


def voc_setting() -> Setting:
    """Photos that show a strong class have masks, those that show weak classes alone have tags; others are left out.

    Objects of VOC's other ten classes are 255. The encoder is frozen; both heads and the label net's are small.
    """
    base = load("photos", {"vlm": {"model": "aligned:.semivl/vlm/vit-s14"}, "train": {
        "steps": 200, "batch": 4, "crop": 112, "short_side": 126, "scale": [0.75, 1.25], "decoder_multiplier": 2.0,
    }, "evaluation": {"short_side": 126, "window": 126, "stride": 126}})  # fmt: skip
    classes, table = well_filled()
    method = MethodConfig(name="transfer", settings=VOC_METHOD)
    config = base.model_copy(update={"classes": classes, "method": method})
    evaluation, train = (voc_names(split) for split in ("val", "train_aug"))
    train = [n for n in np.random.default_rng(0).permutation(train) if n not in set(evaluation)]
    strong_names, weak_names = [], []
    for name in train:
        shown = set(np.unique(voc_mask(name, table)).tolist())
        if shown & STRONG:
            strong_names.append(name)
        elif shown & WEAK:
            weak_names.append(name)
    looked_at = [n for n in evaluation if set(np.unique(voc_mask(n, table)).tolist()) & (WEAK | STRONG)]
    photos = [voc(some, table) for some in (strong_names[:MOST], weak_names[:MOST], looked_at)]
    return Setting(config, tuple(sorted(WEAK)), *photos)


def well_filled() -> tuple[Classes, np.ndarray]:
    """The background and the ten classes of WANTED, and (256,) their ids by VOC's, 255 for all others."""
    every = load("photos").classes
    kept = ("background", *WANTED)
    table = np.full(256, IGNORE, np.uint8)
    table[[every.names.index(name) for name in kept]] = np.arange(len(kept))
    return every.model_copy(update={"classes": tuple(c for c in every.classes if c.name in kept)}), table


def voc_names(split: str) -> list[str]:
    """The photos that a split of the subset lists."""
    lines = (voc_folder() / "splits" / f"{split}.txt").read_text().splitlines()
    return sorted({Path(line.split()[0]).stem for line in lines})
