"""Adversarial learning of what good masks look like (spec transfer.md, 3.2 and 3.3).

The discriminator learns to tell drawn masks from predicted ones, and predictions learn to pass. Both learn in one
pass back: the discriminator from predictions without their gradient, predictions through a discriminator that is
taken as fixed. Pixels of 255 count for neither.
"""

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from semivl.config import IGNORE, Record
from semivl.data import ranks
from semivl.nets.discriminator import Discriminator


class AdversarySettings(Record):
    """What the discriminator sees, and what its opinion weighs; nothing of it is made where both weights are 0."""

    strong: float = Field(0.0, ge=0, description="weight of passing for real where there are masks; 0.01 in the spec")
    weak: float = Field(0.0, ge=0, description="weight of it where there are tags; 0.001 to 0.01 in the spec")
    sees: Literal["cond_fg", "onehot", "product"] = Field(
        "cond_fg", description="photo and foreground; a plane for each class; or the photo times its foreground"
    )
    real: Literal["gt", "strong_pred"] = Field(
        "gt", description="what is real: drawn masks, or predictions where there are masks (then `strong` has no say)"
    )
    smooth: float = Field(0.9, gt=0.5, le=1, description="what a drawn pixel gives to its class, before a 3 x 3 blur")
    start: float = Field(0.1, ge=0, lt=1, description="share of P-Net's steps before it begins")

    @property
    def used(self) -> bool:
        return self.strong > 0 or self.weak > 0


class Side(NamedTuple):
    """Photos with what is predicted of them, those with masks or those with tags."""

    images: Tensor
    """(B, 3, H, W) in [0, 1]"""
    probability: Tensor
    """(B, N, H, W), with its gradient"""
    counted: Tensor
    """(B, H, W) bool: the pixels that take part"""


class Opinions(NamedTuple):
    """Scalars."""

    discriminator: Tensor
    """reaches the discriminator's weights alone"""
    strong: Tensor
    weak: Tensor
    """these two reach predictions alone"""


def channels(sees: str, classes: int) -> int:
    """Planes of what the discriminator sees."""
    return {"cond_fg": 4, "onehot": classes, "product": 3}[sees]


def seen(sees: str, images: Tensor, probability: Tensor, background: int) -> Tensor:
    """(B, C, H, W) that the discriminator sees of photos and probabilities (B, N, H, W)."""
    if sees == "onehot":
        return probability
    foreground = 1 - probability[:, background : background + 1]
    return torch.cat([images, foreground], dim=1) if sees == "cond_fg" else images * foreground


def drawn(masks: Tensor, predicted: Tensor, smooth: float) -> Tensor:
    """(B, N, H, W) of masks (B, H, W): `smooth` for the class, the rest for the others, blurred by a 3 x 3 box.

    Where the mask is 255 it holds what is predicted, so that nothing marks the place.
    """
    classes = predicted.shape[1]
    known = masks != IGNORE
    chosen = F.one_hot(masks.where(known, 0), classes).permute(0, 3, 1, 2).to(predicted.dtype)
    soft = chosen * smooth + (1 - chosen) * (1 - smooth) / (classes - 1)
    soft = torch.where(known[:, None], soft, predicted.detach())
    return F.avg_pool2d(F.pad(soft, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def opinions(
    discriminator: Discriminator, strong: Side, weak: Side, masks: Tensor, background: int, settings: AdversarySettings
) -> Opinions:
    """The losses of both sides (spec 3.3); masks (B, H, W) are those of the strong photos."""
    fixed = {name: tensor.detach() for name, tensor in discriminator.named_parameters()}

    def judged(side: Side, probability: Tensor) -> Tensor:
        return discriminator(seen(settings.sees, side.images, probability, background))

    def passed(side: Side) -> Tensor:
        planes = seen(settings.sees, side.images, side.probability, background)
        return _truth_loss(functional_call(discriminator, fixed, (planes,)), 1, side.counted)

    of_strong, of_weak = (judged(side, side.probability.detach()) for side in (strong, weak))
    fake = _truth_loss(of_weak, 0, weak.counted)
    if settings.real == "strong_pred":
        return Opinions(_truth_loss(of_strong, 1, strong.counted) + fake, torch.zeros_like(fake), passed(weak))
    real = _truth_loss(judged(strong, drawn(masks, strong.probability, settings.smooth)), 1, strong.counted)
    halves = (fake + _truth_loss(of_strong, 0, strong.counted)) / 2
    return Opinions(real + halves, passed(strong), passed(weak))


def _truth_loss(logits: Tensor, truth: int, counted: Tensor) -> Tensor:
    """Mean binary cross-entropy over the counted pixels; 0 where there is none."""
    each = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, truth), reduction="none")
    return (each * counted).sum() / ranks.counted(counted.sum())
