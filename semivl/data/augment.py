"""Geometry of a training crop, on the CPU and in uint8: resize, crop, flip (spec semivl.md, 1.3)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semivl.config import IGNORE, TrainConfig

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Crop:
    """A square of side `side` cut from the image scaled to (height, width), then perhaps mirrored."""

    height: int
    width: int
    top: int
    left: int
    side: int
    mirrored: bool


def draw_crop(height: int, width: int, config: TrainConfig, random: np.random.Generator) -> Crop:
    """A random crop of an image of that size: short side `short_side` times a factor drawn from `scale`."""
    short = config.short_side * random.uniform(*config.scale)
    factor = short / min(height, width)
    scaled_height, scaled_width = max(1, round(height * factor)), max(1, round(width * factor))
    side = config.crop
    top = int(random.integers(0, max(0, scaled_height - side) + 1))
    left = int(random.integers(0, max(0, scaled_width - side) + 1))
    return Crop(scaled_height, scaled_width, top, left, side, bool(random.random() < 0.5))


def crop_image(image: Pixels, crop: Crop) -> Pixels:
    """(side, side, 3); black where the scaled image does not reach."""
    return _cut(image, crop, Image.Resampling.BILINEAR, 0)


def crop_mask(mask: Pixels, crop: Crop) -> Pixels:
    """(side, side); 255 where the scaled mask does not reach."""
    return _cut(mask, crop, Image.Resampling.NEAREST, IGNORE)


def outside(crop: Crop) -> NDArray[np.bool_]:
    """(side, side), True where the scaled image does not reach."""
    rows, columns = np.arange(crop.side) >= crop.height, np.arange(crop.side) >= crop.width
    padding = rows[:, None] | columns[None, :]
    return padding[:, ::-1] if crop.mirrored else padding


def _cut(pixels: Pixels, crop: Crop, resample: Image.Resampling, fill: int) -> Pixels:
    height, width = min(crop.side, crop.height), min(crop.side, crop.width)
    down, across = pixels.shape[0] / crop.height, pixels.shape[1] / crop.width
    box = (crop.left * across, crop.top * down, (crop.left + width) * across, (crop.top + height) * down)
    box = (box[0], box[1], min(box[2], pixels.shape[1]), min(box[3], pixels.shape[0]))
    cut = np.full((crop.side, crop.side, *pixels.shape[2:]), fill, np.uint8)
    cut[:height, :width] = np.asarray(Image.fromarray(pixels).resize((width, height), resample, box=box))
    return cut[:, ::-1] if crop.mirrored else cut
