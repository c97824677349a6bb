"""Losses on soft masks (B, M, h, w) of M nouns on B images (spec code.md, 4).

Published code scores every noun on every image, the images repeated once for each of their N chosen nouns: M = N * B
items. Repeated images have equal masks, so they are made once, and what is made of them is repeated here.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from semivl.data import ranks
from semivl.nets.precision import in_float32


def of_items(per_image: Tensor) -> Tensor:
    """(M, M) of (B, M): a row for each item, the rows of the images repeated noun by noun."""
    count = per_image.shape[1]
    return per_image.repeat(count // per_image.shape[0], 1)


def own_masks(masks: Tensor, places: Tensor) -> Tensor:
    """(P, h, w) of (B, M, h, w): each noun's mask on the image that it was taken from.

    Args:
        places: (P,) int64 of the B images' nouns among the M, which may be of more images; noun-major.
    """
    images = torch.arange(len(masks), device=masks.device).repeat(len(places) // max(1, len(masks)))
    return masks[images, places]


def of_all_ranks(items: Tensor, nouns: int) -> Tensor:
    """(M, ...) noun-major of the images of all ranks, of a rank's own (P, ...), `nouns` of each image."""
    if ranks.world() == 1:
        return items
    by_image = items.unflatten(0, (nouns, -1)).transpose(0, 1)
    return ranks.gathered(by_image).transpose(0, 1).flatten(0, 1)


@in_float32
def pooled_cosines(features: Tensor, masks: Tensor, nouns: Tensor) -> Tensor:
    """(B, M): the cosine of each noun (M, D) with the sum of an image's features (B, D, h, w) under its mask."""
    pooled = torch.einsum("bdhw,bmhw->bmd", features, masks)
    return torch.einsum("bmd,md->bm", F.normalize(pooled, dim=-1), nouns)


def shares(masks: Tensor, valid: Tensor) -> Tensor:
    """(B, M): the share of an image's `valid` (B, 1, h, w) places that each mask takes."""
    return masks.sum((2, 3)) / valid.sum((2, 3)).clamp(min=1e-6)


def total_variation(maps: Tensor) -> Tensor:
    """The mean difference of neighbours, across and down, of maps (B, C, h, w) of all ranks."""
    return ranks.mean_of_all(maps.diff(dim=3).abs()) + ranks.mean_of_all(maps.diff(dim=2).abs())


def mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the values where `chosen` (bool) holds; 0 where it does nowhere."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)
