"""The gated decoder: features finer than patches, which start as what the backbone says (TCL, CVPR 2023; spec 3).

Each stage doubles the resolution and adds a convolution behind a gate that is shut at first, so that a training
starts from the pretrained features and departs from them as far as it pays.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, h, w)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GatedUp(nn.Module):
    """(B, C, h, w) to (B, C, 2h, 2w): nearest neighbours x, and x + tanh(gate) * what convolutions make of it."""

    def __init__(self, channels: int, convolutions: int) -> None:
        super().__init__()
        self.residual = nn.Sequential()
        for _ in range(convolutions):
            self.residual.extend([LayerNorm2d(channels), nn.GELU(), nn.Conv2d(channels, channels, 3, padding=1)])
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return x + self.gate.tanh() * self.residual(x)


class GatedDecoder(nn.Module):
    """Stages one after the other: (B, C, h, w) to (B, C, h * 2^stages, w * 2^stages)."""

    def __init__(self, channels: int, stages: int, convolutions: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(GatedUp(channels, convolutions) for _ in range(stages))

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return x
