"""Geometry of a training crop, on the CPU and in uint8: resize, crop, flip (spec semivl.md, 1.3)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semivl.config import IGNORE, TrainConfig

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels of the image"""
Resize = Callable[[Image.Image, tuple[int, int], Box], Image.Image]


@dataclass(frozen=True)
class Crop:
    """A square of side `side` cut from the image scaled to (height, width), then perhaps mirrored."""

    height: int
    width: int
    top: int
    left: int
    side: int
    mirrored: bool
    antialias: bool = True
    """low-pass the image where it is made smaller"""


def draw_crop(height: int, width: int, config: TrainConfig, random: np.random.Generator) -> Crop:
    """A random crop of an image of that size, scaled first by a factor drawn from `scale`."""
    scaled_height, scaled_width = _scaled(height, width, config, random)
    side = config.crop
    top = int(random.integers(0, max(0, scaled_height - side) + 1))
    left = int(random.integers(0, max(0, scaled_width - side) + 1))
    return Crop(scaled_height, scaled_width, top, left, side, bool(random.random() < 0.5), config.antialias)


def _scaled(height: int, width: int, config: TrainConfig, random: np.random.Generator) -> tuple[int, int]:
    """The size to crop from: of a short side, of a box (VOC, ADE20K), or of the image's own (COCO, Cityscapes)."""
    if config.short_side is None:
        own = max(height, width)
        long = int(random.integers(int(own * config.scale[0]), int(own * config.scale[1]) + 1))
        return _rounded(height * long / own), _rounded(width * long / own)
    drawn = random.uniform(*config.scale)
    if config.long_side is None:
        factor = config.short_side * drawn / min(height, width)
        return max(1, round(height * factor)), max(1, round(width * factor))
    short, long = int(config.short_side * drawn), int(config.long_side * drawn)
    factor = min(short / min(height, width), long / max(height, width))
    return _rounded(height * factor), _rounded(width * factor)


def _rounded(length: float) -> int:
    return max(1, int(length + 0.5))


def crop_image(image: Pixels, crop: Crop) -> Pixels:
    """(side, side, 3); black where the scaled image does not reach."""
    # enlarging needs no low-pass: both ways are then the same interpolation, and this one is twice as fast
    enlarged = crop.height >= image.shape[0] and crop.width >= image.shape[1]
    return _cut(image, crop, _resized if crop.antialias or enlarged else _sampled, 0)


def crop_mask(mask: Pixels, crop: Crop) -> Pixels:
    """(side, side); 255 where the scaled mask does not reach."""
    return _cut(mask, crop, _nearest, IGNORE)


def outside(crop: Crop) -> NDArray[np.bool_]:
    """(side, side), True where the scaled image does not reach."""
    rows, columns = np.arange(crop.side) >= crop.height, np.arange(crop.side) >= crop.width
    padding = rows[:, None] | columns[None, :]
    return padding[:, ::-1] if crop.mirrored else padding


def _cut(pixels: Pixels, crop: Crop, resize: Resize, fill: int) -> Pixels:
    height, width = min(crop.side, crop.height), min(crop.side, crop.width)
    down, across = pixels.shape[0] / crop.height, pixels.shape[1] / crop.width
    box = (crop.left * across, crop.top * down, (crop.left + width) * across, (crop.top + height) * down)
    box = (box[0], box[1], min(box[2], pixels.shape[1]), min(box[3], pixels.shape[0]))
    cut = np.asarray(resize(Image.fromarray(pixels), (width, height), box))
    if cut.shape[:2] != (crop.side, crop.side):
        smaller, cut = cut, np.full((crop.side, crop.side, *pixels.shape[2:]), fill, np.uint8)
        cut[:height, :width] = smaller
    return cut[:, ::-1] if crop.mirrored else cut


def _resized(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR, box=box)


def _nearest(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    return image.resize(size, Image.Resampling.NEAREST, box=box)


def _sampled(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    """Bilinear between the four nearest pixels, whatever the scale, as OpenCV's resize does; cut to whole numbers."""
    across, down = (box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]
    placed = (across, 0, box[0], 0, down, box[1])
    return image.transform(size, Image.Transform.AFFINE, placed, Image.Resampling.BILINEAR)
