"""Nouns of captions against regions of images, one way (SCG, spec scg.md 2.4: the name is the paper's, the formulas
are a reconstruction).

Each noun looks for a region in its own image and not in the others'. No region looks for a noun: most regions are
named by none, and would be drawn to a wrong one.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from semivl.nets.precision import in_float32

Pooling = Literal["attention", "max", "logsumexp"]


@in_float32
def image_scores(regions: Tensor, present: Tensor, nouns: Tensor, pooling: Pooling, temperature: float) -> Tensor:
    """(M, B): how well nouns (M, D) are found in each image, by its regions (B, K, D) that are `present` (B, K).

    `attention`: the cosine with the mean of the regions, weighed by the softmax of their cosines / temperature; `max`:
    with the best region; `logsumexp`: the smooth maximum, of which the number of regions is taken out.
    """
    cosines = torch.einsum("bkd,md->mbk", regions, nouns).masked_fill(~present, -torch.inf)
    if pooling == "max":
        return cosines.amax(2)
    if pooling == "logsumexp":
        return temperature * ((cosines / temperature).logsumexp(2) - present.sum(1).log())
    pooled = torch.einsum("mbk,bkd->mbd", (cosines / temperature).softmax(2), regions)
    return torch.einsum("mbd,md->mb", F.normalize(pooled, dim=-1), nouns)


def nouns_to_images(scores: Tensor, owner: Tensor, counted: Tensor, scale: Tensor) -> Tensor:
    """Mean cross-entropy of each noun's own image among those that count.

    Args:
        scores: (M, B) of `image_scores`.
        owner: (M,) int64 the image whose caption has the noun.
        counted: (M, B) bool: images that do not have the noun, and its own.
        scale: inverse of the temperature.
    """
    return F.cross_entropy((scale * scores).masked_fill(~counted, -torch.inf), owner)


@in_float32
def nouns_to_regions(
    regions: Tensor, present: Tensor, nouns: Tensor, owner: Tensor, counted: Tensor, scale: Tensor
) -> Tensor:
    """Mean over nouns of -log of the share that their own image's regions have among all that count (MIL-NCE)."""
    # masked after the scale, whose gradient would be infinity times nothing
    logits = (scale * torch.einsum("bkd,md->mbk", regions, nouns)).masked_fill(
        ~(present & counted[:, :, None]), -torch.inf
    )
    own = logits[torch.arange(len(owner), device=owner.device), owner].logsumexp(1)
    return (logits.flatten(1).logsumexp(1) - own).mean()


@in_float32
def regions_to_nouns(
    regions: Tensor, present: Tensor, nouns: Tensor, owner: Tensor, counted: Tensor, scale: Tensor
) -> Tensor:
    """The other way, which the paper leaves out: every region is to choose a noun of its own image's caption.

    Regions of images without a noun do not count.
    """
    images = torch.arange(len(regions), device=owner.device)
    own = owner[:, None] == images
    logits = scale * torch.einsum("bkd,md->bkm", regions, nouns)
    every = logits.masked_fill(~counted.T[:, None], -torch.inf).logsumexp(2)
    chosen = logits.masked_fill(~own.T[:, None], -torch.inf).logsumexp(2)
    asked = present & own.any(0)[:, None]
    return (every - chosen)[asked].mean()


@in_float32
def whole_contrast(whole: Tensor, captions: Tensor, same: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric InfoNCE of images (B, D) and their captions (B, D); pairs that are the `same` (B, B) text are no
    negatives."""
    own = torch.eye(len(whole), dtype=torch.bool, device=whole.device)
    logits = (scale * whole @ captions.T).masked_fill(same & ~own, -torch.inf)
    target = torch.arange(len(whole), device=whole.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
