"""Groups as refiner of any method's prediction: what holds of a group holds of its pixels (spec scg.md, 6)."""

import torch
from torch import Tensor


def refined(logits: Tensor, groups: Tensor, weight: float) -> Tensor:
    """(B, N, H, W) logits mixed with the mean over each pixel's group.

    The mean of logits, and not of probabilities: on photos and scenes it named more pixels right.

    Args:
        logits: (B, N, H, W).
        groups: (B, H, W) int64 from 0 on, numbered for each image by itself.
        weight: share of the group's mean, in [0, 1]; the rest is the pixel's own.
    """
    return torch.lerp(logits, group_means(logits, groups), weight)


def group_means(values: Tensor, groups: Tensor) -> Tensor:
    """(B, N, H, W) values with each pixel's replaced by the mean over its group."""
    flat, places = values.flatten(2), groups.flatten(1)
    count = int(groups.max()) + 1
    index = places[:, None].expand(-1, flat.shape[1], -1)
    sums = flat.new_zeros(*flat.shape[:2], count).scatter_add_(2, index, flat)
    sizes = flat.new_zeros(len(flat), count).scatter_add_(1, places, torch.ones_like(places, dtype=flat.dtype))
    means = sums / sizes.clamp(min=1)[:, None]
    return means.gather(2, index).view_as(values)
