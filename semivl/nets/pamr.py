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


def pamr(images: Tensor, scores: Tensor, iterations: int = ITERATIONS, dilations: Sequence[int] = DILATIONS) -> Tensor:
    """Scores (B, N, h, w) refined along the edges of images (B, 3, H, W), which are resized to the scores' size.

    The border goes on outside. Scaling and shifting the image's channels changes nothing.
    """
    small = F.interpolate(images.float(), size=scores.shape[-2:], mode="bilinear", align_corners=False)
    weights = affinity(small, dilations)
    b, n, h, w = scores.shape
    for _ in range(iterations):
        around = neighbours(scores.reshape(b * n, 1, h, w), dilations).reshape(b, n, -1, h, w)
        scores = (around * weights[:, None]).sum(2)
    return scores


def affinity(images: Tensor, dilations: Sequence[int] = DILATIONS) -> Tensor:
    """(B, 8 * dilations, h, w): how much each neighbour of a pixel weighs; the sum over neighbours is 1."""
    b, c, h, w = images.shape
    around = neighbours(images.reshape(b * c, 1, h, w), dilations).reshape(b, c, -1, h, w)
    centre = images[:, :, None]
    # the published deviation counts the centre once for each dilation
    seen = torch.cat([around, centre.expand(-1, -1, len(dilations), -1, -1)], dim=2)
    deviation = seen.std(2, keepdim=True)
    unlike = (around - centre).abs() / (1e-8 + _SHARPNESS * deviation)
    return (-unlike.mean(1)).softmax(1)


def neighbours(maps: Tensor, dilations: Sequence[int]) -> Tensor:
    """(B, 8 * dilations, h, w) of maps (B, 1, h, w): the values around each pixel, row by row, a dilation at a time."""
    kernel = torch.eye(9, dtype=maps.dtype, device=maps.device)[[0, 1, 2, 3, 5, 6, 7, 8]].view(8, 1, 3, 3)
    found = []
    for d in dilations:
        wider = F.pad(maps, (d, d, d, d), mode="replicate")
        found.append(F.conv2d(wider, kernel, dilation=d))
    return torch.cat(found, dim=1)
