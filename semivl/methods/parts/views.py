"""Views of an image for consistency training: strong colour distortion and CutMix (spec 1.3, 1.4)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from semivl.data import ranks
from semivl.methods.parts.losses import PseudoLabels

_COLOURS = (0.5, 0.5, 0.5, 0.25)
"""brightness, contrast, saturation: a factor within 1 -+ this; hue: a turn within -+ this, 1 being the whole circle"""
_GREY = (0.299, 0.587, 0.114)


def strong_view(images: Tensor) -> Tensor:
    """Images (B, 3, S, S) in [0, 1], each distorted in colour, greyness and sharpness by its own draw.

    The reference's recipe: with probability 0.8 brightness, contrast, saturation and hue in random order, with 0.2
    grey, with 0.5 a Gaussian blur. The blur's deviation, (0.1, 2) pixels from S = 512 on, is less for smaller crops,
    so that they stay legible. All draws are made on the CPU, so that every device distorts alike.
    """
    widest = max(0.2, 2.0 * min(images.shape[-1], 512) / 512)
    draws = [draw_distortion(widest) for _ in range(len(images) * ranks.world())][ranks.part(len(images))]
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        return torch.stack([distorted(*one) for one in zip(images, draws, strict=True)]).clamp_(0, 1)


class Distortion(NamedTuple):
    """What is done to one image."""

    colours: tuple[tuple[int, float], ...]
    """places in the table of adjustments, in the order of their use, each with its strength in (-1, 1)"""
    grey: bool
    deviation: float | None
    """of the blur in pixels; None for no blur"""


def draw_distortion(widest: float) -> Distortion:
    """The recipe's draws for one image, the blur's deviation up to `widest`."""
    colours: tuple[tuple[int, float], ...] = ()
    if torch.rand(()) < 0.8:
        order, strengths = torch.randperm(4).tolist(), torch.empty(4).uniform_(-1, 1).tolist()
        colours = tuple((place, strengths[place]) for place in order)
    grey = bool(torch.rand(()) < 0.2)
    return Distortion(colours, grey, float(torch.empty(()).uniform_(0.1, widest)) if torch.rand(()) < 0.5 else None)


def distorted(image: Tensor, distortion: Distortion) -> Tensor:
    """(3, S, S), one image after the other: few bytes at a time stay in a CPU's cache, and each has its own order."""
    for place, strength in distortion.colours:
        image = _ADJUST[place](image, _COLOURS[place] * strength)
    if distortion.grey:
        image = luminance(image).expand_as(image)
    return image if distortion.deviation is None else blurred(image, distortion.deviation)


def luminance(image: Tensor) -> Tensor:
    """(1, S, S) grey of (3, S, S), by the weights of ITU-R 601-2."""
    red, green, blue = image.split(1)
    return (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])


def brightened(image: Tensor, change: float) -> Tensor:
    """Scaled by 1 + change, cut to [0, 1]."""
    return (image * (1 + change)).clamp_(0, 1)


def contrasted(image: Tensor, change: float) -> Tensor:
    """Moved away from the mean grey by 1 + change, cut to [0, 1]."""
    return torch.lerp(luminance(image).mean(), image, 1 + change).clamp_(0, 1)


def saturated(image: Tensor, change: float) -> Tensor:
    """Moved away from its own grey by 1 + change, cut to [0, 1]."""
    return torch.lerp(luminance(image), image, 1 + change).clamp_(0, 1)


def hue_turned(image: Tensor, turn: float) -> Tensor:
    """Every hue moved on along its circle by a share of it; value and saturation (HSV) stay."""
    red, green, blue = image
    highest, lowest = image.amax(0), image.amin(0)
    chroma = highest - lowest
    scale = 1 / chroma.clamp(min=1e-8)
    hue = torch.where(
        highest == red,
        (green - blue) * scale,
        torch.where(highest == green, (blue - red) * scale + 2, (red - green) * scale + 4),
    ).add_(6 * turn)
    hue.sub_((hue / 6).floor_().mul_(6))  # in sixths of the circle, from 0 to 6
    shares = torch.stack([(hue - 3).abs_() - 1, 2 - (hue - 2).abs_(), 2 - (hue - 4).abs_()])
    return shares.clamp_(0, 1).mul_(chroma).add_(lowest)


def blurred(image: Tensor, deviation: float) -> Tensor:
    """By a Gaussian of that deviation in pixels, as far as three deviations; the border goes on outside.

    One axis after the other, as a sum of shifted pictures: on a CPU several times as fast as a convolution.
    """
    reach = math.ceil(3 * deviation)
    weights = [math.exp(-0.5 * (i / deviation) ** 2) for i in range(reach + 1)]
    whole = weights[0] + 2 * sum(weights[1:])
    for axis, edges in ((1, (0, 0, reach, reach)), (2, (reach, reach, 0, 0))):
        length = image.shape[axis]
        wider = F.pad(image[None], edges, mode="replicate")[0]
        image = wider.narrow(axis, reach, length) * (weights[0] / whole)
        for away in range(1, reach + 1):
            for start in (reach - away, reach + away):
                image.add_(wider.narrow(axis, start, length), alpha=weights[away] / whole)
    return image


_ADJUST = (brightened, contrasted, saturated, hue_turned)


def cutmix_boxes(count: int, side: int) -> Tensor:
    """(count, side, side) bool on the CPU: for half of the images a random box, for the others nothing."""
    boxes = torch.zeros(count * ranks.world(), side, side, dtype=torch.bool)
    for box in boxes:
        if torch.rand(()) < 0.5:
            continue
        top, left, height, width = _box(side)
        box[top : top + height, left : left + width] = True
    return boxes[ranks.part(count)]


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
