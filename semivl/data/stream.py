"""From a snapshot to batches: an exact permutation every epoch, resumed by arithmetic, shared out to any ranks.

Step `s` of a training always holds the same crops of the same samples, whatever came before: the position in the
endless sequence of permutations follows from `s`, and every random draw from (seed, s). Resuming is starting at
another number. The n-th sample of the sequence belongs to epoch n // size, and each epoch holds each sample once.

`train.batch` is the batch of all ranks together, and each decodes its own slice of it. The crops are drawn for the
whole batch, from the sizes that the index knows, so a training goes on on another number of ranks with the very
samples and crops that it would have had. A step takes as many samples of each pool that a method learns from; every
pool has epochs of its own length, so the shorter one comes round more often.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from semivl.config import IGNORE, TrainConfig
from semivl.data import ranks
from semivl.data.augment import Crop, Pixels, crop_image, crop_mask, draw_crop, outside
from semivl.data.cache import ShardCache, read_sample
from semivl.data.decode import decode_image, decode_mask
from semivl.data.prefetch import FetchAhead
from semivl.data.sample import Row
from semivl.data.samples import Samples
from semivl.data.tags import TagReader
from semivl.errors import DataError

_QUICKLY_DRAWN = 10_000
_CAPTIONED_VIEW = 3
"""number of the draw, beside 0 for the labelled and 1 and 2 for the unlabelled samples"""
_PREFETCHED = 4
"""batches that each worker process makes ahead"""


@dataclass(frozen=True)
class Labelled:
    """Crops with masks."""

    images: Tensor
    """(B, 3, S, S) uint8"""
    masks: Tensor
    """(B, S, S) int64, 255 = ignore"""
    tags: Tensor | None = None
    """(B, N) int8: see semivl.data.tags"""


@dataclass(frozen=True)
class Unlabelled:
    """Crops without masks."""

    images: Tensor
    """(B, 3, S, S) uint8"""
    ignored: Tensor
    """(B, S, S) bool: padding"""
    hints: Tensor | None = None
    """(B, S, S) int64 label maps from `guidance.labels`, 255 where unsure"""
    tags: Tensor | None = None
    """(B, N) int8: see semivl.data.tags"""

    def reversed(self) -> "Unlabelled":
        """The same, the last image of the whole batch first."""
        return replace(self, **{name: ranks.reversed_whole(t) for name, t in vars(self).items() if t is not None})


@dataclass(frozen=True)
class Captioned:
    """Crops with the captions of their images; nothing else that is known of them."""

    images: Tensor
    """(B, 3, S, S) uint8"""
    ignored: Tensor
    """(B, S, S) bool: padding"""
    captions: tuple[str, ...]
    """of the images of all ranks, from which a step draws for all of them; several captions of an image are lines"""
    maps: Tensor | None = None
    """(B, S, S) int64: what the method made of each image before the training (`image_maps`), 255 outside"""


@dataclass(frozen=True)
class Batches:
    """What a step learns from. The partner holds other crops of the same unlabelled photos, for CutMix (spec 1.3)."""

    labelled: Labelled | None = None
    unlabelled: Unlabelled | None = None
    partner: Unlabelled | None = None
    captioned: Captioned | None = None

    def to(self, device: torch.device) -> "Batches":
        """The same on a device; a copy from pinned memory goes on while this process does other things."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batches":
        """The same in memory that a GPU can read by itself; torch's loader asks for it by this name."""
        return self._each(Tensor.pin_memory)

    def record_stream(self, stream: torch.Stream) -> None:
        """Has the memory kept until the GPU's `stream`, which did not allocate it, has done with it."""

        def kept(tensor: Tensor) -> Tensor:
            tensor.record_stream(stream)
            return tensor

        self._each(kept)

    @property
    def images(self) -> int:
        """Photos that a step learns from; the partner's are the same ones."""
        return sum(len(part.images) for part in (self.labelled, self.unlabelled, self.captioned) if part)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batches":
        def changed(part: Labelled | Unlabelled | Captioned | None):
            held = {name: t for name, t in vars(part).items() if isinstance(t, Tensor)} if part else {}
            return part and replace(part, **{name: change(t) for name, t in held.items()})

        return Batches(**{name: changed(part) for name, part in vars(self).items()})  # pyright: ignore


class Pools(NamedTuple):
    """The samples that a training learns from, by what it sees of them; empty where it does not."""

    labelled: Samples
    unlabelled: Samples
    captioned: Samples


def permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch: each of 0 .. size-1 once."""
    # a small set is drawn anew: its many epochs would drive a large one's order out of what is kept
    return _drawn(size, seed, epoch) if size < _QUICKLY_DRAWN else _kept(size, seed, epoch)


def _drawn(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(size)


_kept = lru_cache(maxsize=4)(_drawn)


def positions(step: int, batch: int, size: int, seed: int) -> list[int]:
    """The samples of a step's batch, that of all ranks: the next `batch` of the endless sequence."""
    found: list[int] = []
    while len(found) < batch:
        epoch, place = divmod(step * batch + len(found), size)
        found += permutation(size, seed, epoch)[place : place + batch - len(found)].tolist()
    return found


def share(batch: int, rank: int, world: int) -> slice:
    """The part of a batch that a rank takes.

    Raises:
        DataError: DATA230, the ranks cannot have equal parts.
    """
    if batch % world:
        what = f"train.batch is {batch}, which {world} ranks cannot share equally."
        nearest = max(world, batch // world * world)
        raise DataError("DATA230", what, f"Train on a number of ranks that divides it, or set it to {nearest}.")
    each = batch // world
    return slice(rank * each, (rank + 1) * each)


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
    """The batches of a training by step number, as one rank gets them."""

    def __init__(
        self,
        cache: ShardCache,
        labelled: Sequence[Row],
        unlabelled: Sequence[Row],
        config: TrainConfig,
        partner: bool = True,
        maps: LabelMaps | None = None,
        rank: int = 0,
        world: int = 1,
        captioned: Sequence[Row] = (),
        image_maps: Path | None = None,
        tags: TagReader | None = None,
    ) -> None:
        """`partner`: with other crops of the same unlabelled photos; `maps`: with what they say of the photos;
        `image_maps`: folder of a map KEY.png for each captioned sample; `tags`: with the tags, as it reads them.

        Raises:
            DataError: DATA230, the `world` ranks cannot share `train.batch` equally.
        """
        self.cache, self.labelled, self.unlabelled, self.config = cache, labelled, unlabelled, config
        self.captioned, self.image_maps, self.tags = captioned, image_maps, tags
        self.partner, self.maps = partner, maps
        self.own = share(config.batch, rank, world)

    def __getitem__(self, step: int) -> Batches:
        unlabelled, partner = (*self.views(step), None, None)[:2]
        labelled = self._labelled(step) if len(self.labelled) else None
        return Batches(labelled, unlabelled, partner, self._captioned(step) if len(self.captioned) else None)

    def views(self, step: int) -> list[Unlabelled]:
        """The unlabelled photos of a step, and other crops of them for the partner; none without unlabelled rows."""
        if not len(self.unlabelled):
            return []
        rows, views = self._drawn(self.unlabelled, step, (1, 2) if self.partner else (1,))
        images = [decode_image(read_sample(self.cache, row)[0]) for row in rows]
        hints = [self.maps.read(row) for row in rows] if self.maps else None
        tags = self._tags(rows)
        return [_unlabelled(images, hints, tags, crops) for crops in views]

    def shards(self, step: int) -> Iterator[str]:
        """The shards that a step reads, in its order."""
        for rows in (self.labelled, self.unlabelled, self.captioned):
            if len(rows):
                yield from (rows[place].shard for place in self._positions(rows, step)[self.own])

    @property
    def steps_an_epoch(self) -> int:
        """Steps after which every sample of every pool came once."""
        return -(-max(map(len, (self.labelled, self.unlabelled, self.captioned))) // self.config.batch)

    def _positions(self, rows: Sequence[Row], step: int) -> list[int]:
        return positions(step, self.config.batch, len(rows), self.config.seed)

    def _drawn(self, rows: Sequence[Row], step: int, views: Sequence[int]) -> tuple[list[Row], list[list[Crop]]]:
        """The rank's samples of a step, and a crop of each for every view."""
        chosen = [rows[place] for place in self._positions(rows, step)]
        crops = []
        for view in views:
            random = np.random.default_rng((self.config.seed, step, view))
            crops.append([draw_crop(row.height, row.width, self.config, random) for row in chosen][self.own])
        return chosen[self.own], crops

    def _labelled(self, step: int) -> Labelled:
        rows, [crops] = self._drawn(self.labelled, step, (0,))
        images, masks = [], []
        for row, crop in zip(rows, crops, strict=True):
            image, mask = read_sample(self.cache, row)
            assert mask is not None
            images.append(crop_image(decode_image(image), crop))
            masks.append(crop_mask(decode_mask(mask), crop))
        return Labelled(_planes(images), torch.from_numpy(np.stack(masks)).long(), self._tags(rows))

    def _captioned(self, step: int) -> Captioned:
        rows, [crops] = self._drawn(self.captioned, step, (_CAPTIONED_VIEW,))
        images = [decode_image(read_sample(self.cache, row)[0]) for row in rows]
        made = [self.image_maps / f"{row.key}.png" for row in rows] if self.image_maps else None
        maps = [decode_mask(path.read_bytes()) for path in made] if made else None
        cut = _unlabelled(images, maps, None, crops)
        captions = tuple(self.captioned[place].caption or "" for place in self._positions(self.captioned, step))
        return Captioned(cut.images, cut.ignored, captions, cut.hints)

    def _tags(self, rows: Sequence[Row]) -> Tensor | None:
        """(B, N) int8."""
        return torch.from_numpy(np.stack([self.tags.read(row) for row in rows])) if self.tags else None


def _unlabelled(
    images: Sequence[Pixels], hints: Sequence[Pixels] | None, tags: Tensor | None, crops: Sequence[Crop]
) -> Unlabelled:
    cut = _planes([crop_image(image, crop) for image, crop in zip(images, crops, strict=True)])
    ignored = torch.from_numpy(np.stack([outside(crop) for crop in crops]))
    if hints is None:
        return Unlabelled(cut, ignored, None, tags)
    cut_hints = [crop_mask(hint, crop) for hint, crop in zip(hints, crops, strict=True)]
    return Unlabelled(cut, ignored, torch.from_numpy(np.stack(cut_hints)).long(), tags)


def _planes(images: Sequence[Pixels]) -> Tensor:
    """(B, 3, S, S) of pictures (S, S, 3)."""
    planes = torch.empty(len(images), 3, *images[0].shape[:2], dtype=torch.uint8)
    for place, image in zip(planes.numpy(), images, strict=True):
        place[...] = image.transpose(2, 0, 1)
    return planes


def batches(steps: Steps, start: int, stop: int, workers: int, pinned: bool = False) -> Iterator[Batches]:
    """The batches of steps `start` to `stop`, decoded ahead by worker processes, their shards fetched ahead.

    `pinned`: in memory that a GPU can read by itself.
    """
    torch_options = {"prefetch_factor": _PREFETCHED, "multiprocessing_context": "forkserver"} if workers else {}
    torch_options["pin_memory"] = pinned
    loader = DataLoader(steps, batch_size=None, sampler=range(start, stop), num_workers=workers, **torch_options)  # pyright: ignore
    last = min(stop, start + steps.steps_an_epoch)
    with closing(FetchAhead(steps.cache, ((step, steps.shards(step)) for step in range(start, last)))) as ahead:
        ahead.reached(start + workers * _PREFETCHED)
        for step, batch in enumerate(loader, start):
            ahead.reached(step + 1 + workers * _PREFETCHED)
            yield batch
