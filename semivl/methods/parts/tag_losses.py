"""Losses of the label net and of tags (spec transfer.md, 2.2, 2.3 and 3.3)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from semivl.config import IGNORE
from semivl.data import ranks
from semivl.data.tags import ABSENT, THERE, UNKNOWN

UNSURE = -2
"""in tags of a crop: its photo shows the class, and whether the crop does nobody can say"""


def object_target(masks: Tensor, background: int) -> Tensor:
    """(B, H, W) int64 of masks: 1 an object of any class, 0 the background, 255 as in the mask."""
    return (masks != background).long().where(masks != IGNORE, IGNORE)


def doubtful(
    masks: Tensor, tags: Tensor | None, drawn: Tensor, foreground: Tensor, background: int, low: float
) -> Tensor:
    """(B, H, W) bool: the background of photos whose tags name a class that no mask shows, where an object may be.

    Args:
        masks: (B, H, W) int64.
        tags: (B, N) int8, None where there are none.
        drawn: (N,) bool, classes that masks show.
        foreground: (B, H, W) probability of an object.
        low: foreground above which a pixel is doubtful.
    """
    if tags is None:
        return torch.zeros_like(masks, dtype=torch.bool)
    undrawn = ((tags == THERE) & ~drawn).any(1)
    return undrawn[:, None, None] & (masks == background) & (foreground > low)


def object_loss(logits: Tensor, target: Tensor, dice: float) -> Tensor:
    """Mean binary cross-entropy over pixels that are not 255, and `dice` times the Dice loss of the batch.

    Args:
        logits: (B, h, w), scaled up to the target's size.
        target: (B, H, W) int64: 1, 0, 255.
    """
    wide = F.interpolate(logits[:, None].float(), size=target.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    known = target != IGNORE
    truth = (target == 1).to(wide.dtype)
    each = F.binary_cross_entropy_with_logits(wide, truth, reduction="none")
    entropy = (each * known).sum() / ranks.counted(known.sum())
    sure = wide.sigmoid() * known
    both, of_sure, of_truth = ranks.summed(torch.stack([(sure * truth).sum(), sure.sum(), (truth * known).sum()]))
    overlap = (2 * both + 1) / (of_sure + of_truth + 1)
    return entropy + dice * (1 - overlap)


def crop_tags(masks: Tensor, tags: Tensor | None, drawn: Tensor) -> Tensor:
    """(B, N) int8 tags of crops with masks: masks tell of the classes that they show, tags of the others.

    A class that masks show (`drawn`) and this crop's does not is absent from it. But one that is tagged may be what the
    crop's pixels of 255 show, and is UNSURE where there are any; padding is 255 too, which masks do not tell apart.
    Where all are 255 the mask tells of nothing.
    """
    classes, each = torch.arange(len(drawn), device=masks.device), masks.flatten(1)
    shown = (each[:, None] == classes[:, None]).any(2)
    unlabelled = each == IGNORE
    some, all_of_it = unlabelled.any(1, keepdim=True), unlabelled.all(1, keepdim=True)
    told = torch.full_like(shown, UNKNOWN, dtype=torch.int8) if tags is None else tags
    unseen = torch.where((told == THERE) & some, UNSURE, ABSENT)
    unseen = torch.where((told == UNKNOWN) & all_of_it, UNKNOWN, unseen)
    told = torch.where(drawn, unseen, told)
    return torch.where(shown, THERE, told).to(torch.int8)


def tag_loss(logits: Tensor, tags: Tensor, background: int, untold: float = 0.0) -> Tensor:
    """Mean binary cross-entropy of (B, N) logits over the classes that tags tell of; the background never counts.

    A class that they do not tell of is taken as absent, with the weight `untold`; one that is UNSURE weighs nothing.
    """
    weight = torch.where(tags == UNKNOWN, untold, 1.0).masked_fill(tags == UNSURE, 0)
    weight[:, background] = 0
    each = F.binary_cross_entropy_with_logits(logits.float(), (tags == THERE).float(), reduction="none")
    return (each * weight).sum() / ranks.counted(weight.sum(), least=1e-6)


def pooled_logits(cells: Tensor, sharpness: float = 5.0) -> Tensor:
    """(B, N) logits that a class is there, of logits in cells (B, N, h, w).

    A cell's logit of a class against all others, and over the cells a log-mean-exp between mean and maximum.
    """
    log_probability = cells.float().log_softmax(1)
    others = torch.log(-torch.expm1(log_probability.clamp(max=-1e-6)))
    against = sharpness * (log_probability - others).flatten(2)
    return (against.logsumexp(2) - torch.log(torch.tensor(against.shape[2], dtype=against.dtype))) / sharpness
