"""Views of an image for consistency training: strong colour distortion and CutMix (spec 1.3, 1.4)."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from semivl.methods.parts.losses import PseudoLabels


@cache
def _strong(side: int) -> Any:
    from kornia import augmentation as K

    widest = max(0.2, 2.0 * min(side, 512) / 512)
    kernel = 2 * math.ceil(3 * widest) + 1
    return K.AugmentationSequential(
        K.ColorJitter(0.5, 0.5, 0.5, 0.25, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.RandomGaussianBlur((kernel, kernel), (0.1, widest), p=0.5),
        data_keys=["input"],
    )


def strong_view(images: Tensor) -> Tensor:
    """Images (B, 3, S, S) in [0, 1], each distorted in colour, greyness and sharpness by its own draw.

    The blur's deviation, (0.1, 2) pixels from S = 512 on, is less for smaller crops, so that they stay legible.
    """
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        return _strong(images.shape[-1])(images).clamp(0, 1)


def cutmix_boxes(count: int, side: int) -> Tensor:
    """(count, side, side) bool on the CPU: for half of the images a random box, for the others nothing."""
    boxes = torch.zeros(count, side, side, dtype=torch.bool)
    for box in boxes:
        if torch.rand(()) < 0.5:
            continue
        top, left, height, width = _box(side)
        box[top : top + height, left : left + width] = True
    return boxes


def filled(boxes: Sequence[Tensor]) -> Tensor:
    """(U,) int64: the images that have something in any of their boxes; of a quarter there is nothing to fill."""
    return torch.stack(list(boxes)).any(0).any(-1).any(-1).nonzero()[:, 0]


def _box(side: int) -> tuple[int, int, int, int]:
    area = float(torch.empty(()).uniform_(0.02, 0.4)) * side * side
    while True:
        ratio = float(torch.empty(()).uniform_(0.3, 1 / 0.3))
        width, height = int(math.sqrt(area / ratio)), int(math.sqrt(area * ratio))
        top, left = (int(torch.randint(side, ())) for _ in range(2))
        if top + height <= side and left + width <= side:
            return top, left, height, width


def mixed(first: Tensor, second: Tensor, boxes: Tensor) -> Tensor:
    """`first` with the boxes filled from `second`; (B, C, S, S) or (B, S, S)."""
    return torch.where(boxes[:, None] if first.dim() == 4 else boxes, second, first)


def mixed_labels(first: PseudoLabels, second: PseudoLabels, boxes: Tensor) -> PseudoLabels:
    """The beliefs about two images, mixed as the images are."""
    return PseudoLabels(*(mixed(a, b, boxes) for a, b in zip(first, second, strict=True)))
