"""The published way of an unlabelled sample, with Pillow and torchvision's first transforms (spec semivl.md, 1.3).

What `benchmarks.stream` measures against, and the oracle of the tests that compare distributions: every number of the
recipe is a field, so that a test can show that it would notice another one.
"""

import io
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision import transforms


@dataclass(frozen=True)
class Recipe:
    """Draws come from `random` and torch, both of which the caller may seed."""

    crop: int = 512
    short_side: int = 512
    scale: tuple[float, float] = (0.5, 2.0)
    mirrored: float = 0.5
    coloured: float = 0.8
    colours: tuple[float, float, float, float] = (0.5, 0.5, 0.5, 0.25)
    grey: float = 0.2
    blurred: float = 0.5
    blur: tuple[float, float] = (0.1, 2.0)
    boxed: float = 0.5
    areas: tuple[float, float] = (0.02, 0.4)
    ratios: tuple[float, float] = (0.3, 1 / 0.3)

    def sample(self, jpeg: bytes) -> tuple[Tensor, Tensor, Tensor, np.ndarray, np.ndarray]:
        """The weak view and two strong ones, each (3, S, S) normalised float, and two boxes (S, S) bool."""
        weak = self.weak(Image.open(io.BytesIO(jpeg)).convert("RGB"))
        first, second = self.strong(weak), self.strong(weak)
        return self._tensor(weak), self._tensor(first), self._tensor(second), self.box(), self.box()

    def weak(self, image: Image.Image) -> Image.Image:
        """Resized, padded, cut out and perhaps mirrored."""
        factor = self.short_side * random.uniform(*self.scale) / min(image.size)
        width, height = round(image.width * factor), round(image.height * factor)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        image = ImageOps.expand(image, (0, 0, max(0, self.crop - width), max(0, self.crop - height)), 0)
        left, top = random.randint(0, image.width - self.crop), random.randint(0, image.height - self.crop)
        image = image.crop((left, top, left + self.crop, top + self.crop))
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < self.mirrored else image

    def strong(self, image: Image.Image) -> Image.Image:
        """Distorted in colour, greyness and sharpness."""
        image = self._grey(self._colour(image))
        if random.random() < self.blurred:
            image = image.filter(ImageFilter.GaussianBlur(random.uniform(*self.blur)))
        return image

    def box(self) -> np.ndarray:
        """(S, S) bool: a CutMix box, or nothing."""
        box = np.zeros((self.crop, self.crop), bool)
        if random.random() > self.boxed:
            return box
        area = random.uniform(*self.areas) * self.crop**2
        while True:
            ratio = random.uniform(*self.ratios)
            width, height = int(math.sqrt(area / ratio)), int(math.sqrt(area * ratio))
            left, top = random.randrange(self.crop), random.randrange(self.crop)
            if left + width <= self.crop and top + height <= self.crop:
                box[top : top + height, left : left + width] = True
                return box

    @cached_property
    def _colour(self) -> transforms.RandomApply:
        return transforms.RandomApply([transforms.ColorJitter(*self.colours)], p=self.coloured)

    @cached_property
    def _grey(self) -> transforms.RandomGrayscale:
        return transforms.RandomGrayscale(self.grey)

    @cached_property
    def _tensor(self) -> Callable[[Image.Image], Tensor]:
        norm = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        return transforms.Compose([transforms.ToTensor(), norm])


def seed(number: int) -> None:
    """Of all that the recipe draws from."""
    random.seed(number)
    torch.manual_seed(number)
