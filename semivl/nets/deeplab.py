"""The DeepLabV3+ head on the maps of a vision transformer: UniMatch's decoder (Chen et al. 2018; spec semivl.md, 2.8).

DeepLabV3+ was made for a CNN, whose low-level map is four times finer than its high-level one. A plain transformer
has one resolution, the patch grid: both maps come at S/16 (patch 16), so the step of the head that brings the high
map to the low one's size changes nothing here, and the logits are S/16 too. They grow to S x S outside, in the loss
or in the prediction.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOW = 48
"""channels that the low map is reduced to"""
MIDDLE = 256
"""channels between the joined maps and the classes"""
DILATIONS = (6, 12, 18)


def _conv(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling, (B, C, h, w) to (B, C/8, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 8
        self.point = _conv(channels, inner, 1)
        self.atrous = nn.ModuleList(_conv(channels, inner, 3, d) for d in DILATIONS)
        self.pooled = _conv(channels, inner, 1)
        self.merge = _conv((len(DILATIONS) + 2) * inner, inner, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        return self.merge(torch.cat([self.point(x), *(a(x) for a in self.atrous), pooled], dim=1))


class DeepLabHead(nn.Module):
    """A low and a high map to logits at the low map's resolution.

    While training, BatchNorm in the pooled branch sees one value an image and channel, and torch refuses a single
    image. A step of UniMatch decodes at least two, clean and perturbed or s1 and s2, even with a batch of 1.
    """

    def __init__(self, low: int, high: int, classes: int) -> None:
        super().__init__()
        self.pyramid = Pyramid(high)
        self.low = _conv(low, LOW, 1)
        self.fuse = nn.Sequential(_conv(high // 8 + LOW, MIDDLE, 3), _conv(MIDDLE, MIDDLE, 3))
        self.classifier = nn.Conv2d(MIDDLE, classes, 1)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Logits (B, N, h, w) of maps low (B, C1, h, w) and high (B, C2, any, any)."""
        low = self.low(low)
        high = F.interpolate(self.pyramid(high), size=low.shape[-2:], mode="bilinear", align_corners=True)
        return self.classifier(self.fuse(torch.cat([low, high], dim=1)))
