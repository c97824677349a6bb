"""A small U-Net on pixels, without pretrained weights (Ronneberger, Fischer and Brox 2015; spec transfer.md, 5).

It knows no classes, and so takes objects of unknown ones for objects. Channels are normalised in groups of a photo, so
the size of a batch does not matter.
"""

from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import Record

_GROUP = 4
"""channels that are normalised together"""


class UNetShape(Record):
    """Its size; each level has half the side and twice the channels of the one before."""

    width: int = Field(16, ge=_GROUP, multiple_of=_GROUP, description="channels at the photo's own resolution")
    levels: int = Field(4, ge=2, le=8, description="resolutions, the photo's own the first")


class UNet(nn.Module):
    """Images (B, 3, H, W) in [0, 1] to logits (B, N, H, W)."""

    def __init__(self, shape: UNetShape, classes: int) -> None:
        super().__init__()
        widths = [shape.width * 2**level for level in range(shape.levels)]
        self.down = nn.ModuleList(_convolutions(above, own) for above, own in pairwise([3, *widths]))
        self.up = nn.ModuleList(_convolutions(own + below, own) for own, below in pairwise(widths))
        self.out = nn.Conv2d(shape.width, classes, 1)

    def features(self, images: Tensor) -> Tensor:
        """(B, width, H, W), what the last layer reads."""
        maps, x = [], images
        for level, convolutions in enumerate(self.down):
            x = convolutions(F.max_pool2d(x, 2) if level else x)
            maps.append(x)
        for convolutions, finer in zip(reversed(self.up), reversed(maps[:-1]), strict=True):
            x = F.interpolate(x, size=finer.shape[-2:], mode="bilinear", align_corners=False)
            x = convolutions(torch.cat([finer, x], 1))
        return x

    def forward(self, images: Tensor) -> Tensor:
        return self.out(self.features(images))


def _convolutions(inner: int, outer: int) -> nn.Sequential:
    """Two 3x3 convolutions, each normalised, with ReLU."""
    layers: list[nn.Module] = []
    for channels in (inner, outer):
        layers += [nn.Conv2d(channels, outer, 3, padding=1), nn.GroupNorm(outer // _GROUP, outer), nn.ReLU(True)]
    return nn.Sequential(*layers)
