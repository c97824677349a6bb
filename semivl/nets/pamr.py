"""Pixel-adaptive mask refinement (PAMR; Araslanov and Roth, CVPR 2020, section 3.3): masks follow the image's edges.

Each pixel's scores become a mean of its neighbours', weighed by how alike their colours are, several times over.
Neighbours are the eight of a 3 x 3 window at several dilations, all in one softmax. Nothing is learned.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

DILATIONS = (1, 2, 4, 8, 12, 24)
ITERATIONS = 10
_SHARPNESS = 0.1
"""the colour difference, in local standard deviations, that weighs 1 in the softmax"""
_AT_ONCE = 4
"""classes whose neighbours are gathered together: those of all would be by far the largest tensor of a prediction, and
each class by itself would make an exported graph long"""
_STEPS = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


def pamr(images: Tensor, scores: Tensor, iterations: int = ITERATIONS, dilations: Sequence[int] = DILATIONS) -> Tensor:
    """Scores (B, N, h, w) refined along the edges of images (B, 3, H, W), which are resized to the scores' size.

    The border goes on outside. Scaling and shifting the image's channels changes nothing.
    """
    size = scores.shape[-2:]
    places = neighbours(size[0], size[1], dilations, scores.device)
    small = F.interpolate(images.float(), size=size, mode="bilinear", align_corners=False)
    weights = affinity(small, places, len(dilations))[:, None]
    flat = scores.flatten(2)
    for _ in range(iterations):
        flat = torch.cat([(few[:, :, places] * weights).sum(2) for few in flat.split(_AT_ONCE, dim=1)], dim=1)
    return flat.unflatten(2, size)


def affinity(images: Tensor, places: Tensor, dilations: int) -> Tensor:
    """(B, K, h * w): how much each of a pixel's K neighbours weighs in images (B, C, h, w); their sum is 1."""
    centre = images.flatten(2)[:, :, None]
    around = images.flatten(2)[:, :, places]
    # the published deviation counts the centre once for each dilation
    deviation = torch.cat([around, centre.expand(-1, -1, dilations, -1)], dim=2).std(2, keepdim=True)
    unlike = (around - centre).abs() / (1e-8 + _SHARPNESS * deviation)
    return (-unlike.mean(1)).softmax(1)


def neighbours(height: int, width: int, dilations: Sequence[int], device: torch.device) -> Tensor:
    """(K, h * w) int64: where in a flat map each pixel's neighbours are, row by row, a dilation after the other."""
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    found = []
    for dilation in dilations:
        for down, across in _STEPS:
            y = (rows + dilation * down).clamp(min=0).minimum(rows[-1])
            x = (columns + dilation * across).clamp(min=0).minimum(columns[-1])
            found.append((y[:, None] * width + x).flatten())
    return torch.stack(found)
