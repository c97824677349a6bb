"""From a snapshot to batches: an exact permutation every epoch, resumed by arithmetic.

Step `s` of a training always holds the same crops of the same samples, whatever came before: the position in the
endless sequence of permutations follows from `s`, and every random draw from (seed, s). Resuming is starting at
another number. The n-th sample of the sequence belongs to epoch n // size, and each epoch holds each sample once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from semivl.config import IGNORE, TrainConfig
from semivl.data.augment import Pixels, crop_image, crop_mask, draw_crop, outside
from semivl.data.cache import ShardCache, read_sample
from semivl.data.checks import decode_image, decode_mask
from semivl.data.sample import Row
from semivl.errors import DataError


@dataclass(frozen=True)
class Labelled:
    """Crops with masks."""

    images: Tensor
    """(B, 3, S, S) uint8"""
    masks: Tensor
    """(B, S, S) int64, 255 = ignore"""


@dataclass(frozen=True)
class Unlabelled:
    """Crops without masks."""

    images: Tensor
    """(B, 3, S, S) uint8"""
    ignored: Tensor
    """(B, S, S) bool: padding"""
    hints: Tensor | None = None
    """(B, S, S) int64 label maps from `guidance.labels`, 255 where unsure"""

    def reversed(self) -> "Unlabelled":
        """The same, the last image first."""
        return replace(self, **{name: t.flip(0) for name, t in vars(self).items() if t is not None})


@dataclass(frozen=True)
class Batches:
    """What a step learns from. The partner holds other crops of the same unlabelled photos, for CutMix (spec 1.3)."""

    labelled: Labelled
    unlabelled: Unlabelled | None = None
    partner: Unlabelled | None = None

    def to(self, device: torch.device) -> "Batches":
        """The same on a device."""

        def moved(part: Labelled | Unlabelled | None):
            held = {name: t for name, t in vars(part).items() if t is not None} if part else {}
            return part and replace(part, **{name: t.to(device, non_blocking=True) for name, t in held.items()})

        return Batches(moved(self.labelled), moved(self.unlabelled), moved(self.partner))  # pyright: ignore


@lru_cache(maxsize=4)
def permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch: each of 0 .. size-1 once."""
    return np.random.default_rng((seed, epoch)).permutation(size)


def positions(step: int, batch: int, size: int, seed: int, rank: int = 0, world: int = 1) -> list[int]:
    """The samples of one rank's batch at a step; the ranks' batches together are the next of the sequence."""
    first = (step * world + rank) * batch
    return [int(permutation(size, seed, n // size)[n % size]) for n in range(first, first + batch)]


@dataclass(frozen=True)
class LabelMaps:
    """Label maps KEY.png of unlabelled samples, which guide in a model's place."""

    folder: Path
    classes: int

    def read(self, row: Row) -> Pixels:
        """(H, W) uint8 class ids of the sample, 255 where unsure: everywhere where the folder has no map of it.

        Raises:
            DataError: DATA120, the file is no map of the image's size or of these classes.
        """
        path = self.folder / f"{row.key}.png"
        if not path.is_file():
            return np.full((row.height, row.width), IGNORE, np.uint8)
        labels = decode_mask(path.read_bytes())
        if labels.shape != (row.height, row.width):
            what = f"{path} is {labels.shape[1]} x {labels.shape[0]}, its image {row.width} x {row.height}."
            raise DataError("DATA120", what, "Make the label maps (guidance.labels) of the images' own size.")
        if (labels[labels != IGNORE] >= self.classes).any():
            what = f"{path} holds ids beyond the {self.classes} classes."
            raise DataError("DATA120", what, "Make the label maps (guidance.labels) of ids of the class map, or 255.")
        return labels


class Steps(Dataset[Batches]):
    """The batches of a training by step number."""

    def __init__(
        self,
        cache: ShardCache,
        labelled: Sequence[Row],
        unlabelled: Sequence[Row],
        config: TrainConfig,
        partner: bool = True,
        maps: LabelMaps | None = None,
    ) -> None:
        """`partner`: with other crops of the same unlabelled photos; `maps`: with what they say of the photos."""
        self.cache, self.labelled, self.unlabelled, self.config = cache, labelled, unlabelled, config
        self.partner, self.maps = partner, maps

    def __getitem__(self, step: int) -> Batches:
        c = self.config
        chosen = [self.labelled[i] for i in positions(step, c.batch, len(self.labelled), c.seed)]
        labelled = self._labelled(chosen, np.random.default_rng((c.seed, step, 0)))
        if not self.unlabelled:
            return Batches(labelled)
        chosen = [self.unlabelled[i] for i in positions(step, c.batch, len(self.unlabelled), c.seed)]
        images = [decode_image(read_sample(self.cache, row)[0]) for row in chosen]
        hints = [self.maps.read(row) for row in chosen] if self.maps else None
        views = (1, 2) if self.partner else (1,)
        return Batches(
            labelled, *(self._unlabelled(images, hints, np.random.default_rng((c.seed, step, v))) for v in views)
        )

    def _labelled(self, rows: Sequence[Row], random: np.random.Generator) -> Labelled:
        images, masks = [], []
        for row in rows:
            image, mask = read_sample(self.cache, row)
            assert mask is not None
            pixels = decode_image(image)
            crop = draw_crop(pixels.shape[0], pixels.shape[1], self.config, random)
            images.append(crop_image(pixels, crop))
            masks.append(crop_mask(decode_mask(mask), crop))
        return Labelled(_stacked(images), torch.from_numpy(np.stack(masks)).long())

    def _unlabelled(
        self, images: Sequence[Pixels], hints: Sequence[Pixels] | None, random: np.random.Generator
    ) -> Unlabelled:
        crops = [draw_crop(image.shape[0], image.shape[1], self.config, random) for image in images]
        cut = [crop_image(image, crop) for image, crop in zip(images, crops, strict=True)]
        ignored = torch.from_numpy(np.stack([outside(crop) for crop in crops]))
        if hints is None:
            return Unlabelled(_stacked(cut), ignored)
        cut_hints = [crop_mask(hint, crop) for hint, crop in zip(hints, crops, strict=True)]
        return Unlabelled(_stacked(cut), ignored, torch.from_numpy(np.stack(cut_hints)).long())


def batches(steps: Steps, start: int, stop: int, workers: int) -> Iterator[Batches]:
    """The batches of steps `start` to `stop`, decoded ahead by worker processes."""
    torch_options = {"prefetch_factor": 4, "multiprocessing_context": "forkserver"} if workers else {}
    return iter(DataLoader(steps, batch_size=None, sampler=range(start, stop), num_workers=workers, **torch_options))  # pyright: ignore


def _stacked(images: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
