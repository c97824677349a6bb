"""The language-guided decoder: from cosine maps of image and class text to masks (SemiVL, 3.3; spec 2.5).

Classes are treated as a batch: every step but one sees one class at a time, so any number of classes works, their
order does not matter, and a class is told apart only by its text. The one exception is attention across classes.
All norms are GroupNorm with 16 channels a group, activations ReLU.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import Record
from semivl.nets.encoder import Features


class DecoderShape(Record):
    """Widths of the decoder; the defaults are the paper's."""

    channels: int = 128
    up: tuple[int, int] = (64, 32)
    """channels after the first and the second doubling"""
    skip: tuple[int, int] = (32, 16)
    """channels that the deep and the shallow skip features are reduced to"""
    dilations: tuple[int, ...] = (6, 12, 18)
    layers: int = 2
    heads: int = 4
    pool: int = 4
    """side of the average pooling before attention across classes, in patches"""


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, channels // 16), channels)


def _conv(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, _norm(outputs), nn.ReLU(inplace=True))


class Spatial(nn.Module):
    """Atrous spatial pyramid pooling with a residual, (B*N, C, h, w) to the same."""

    def __init__(self, channels: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.point = _conv(channels, channels, 1)
        self.atrous = nn.ModuleList(_conv(channels, channels, 3, d) for d in dilations)
        self.pooled = _conv(channels, channels, 1)
        self.merge = _conv((len(dilations) + 2) * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(x.mean((2, 3), keepdim=True)).expand_as(x)
        return x + self.merge(torch.cat([self.point(x), *(a(x) for a in self.atrous), pooled], dim=1))


class AcrossClasses(nn.Module):
    """Attention among the N classes at each pooled place, told apart by their text."""

    def __init__(self, channels: int, heads: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.block = nn.TransformerEncoderLayer(
            2 * channels,
            heads,
            4 * channels,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """x (B, N, C, h, w), text (N, C) to x's shape."""
        b, n, c, h, w = x.shape
        pooled = F.avg_pool2d(x.flatten(0, 1), self.pool, ceil_mode=True)
        ph, pw = pooled.shape[-2:]
        tokens = pooled.view(b, n, c, ph * pw).permute(0, 3, 1, 2)
        tokens = torch.cat([tokens, text.expand(b, ph * pw, n, c)], dim=-1).flatten(0, 1)
        attended = self.block(tokens)[..., :c]
        attended = attended.view(b, ph * pw, n, c).permute(0, 2, 3, 1).reshape(b * n, c, ph, pw)
        return x + F.interpolate(attended, size=(h, w), mode="bilinear", align_corners=True).view(b, n, c, h, w)


class Up(nn.Module):
    """Doubles the resolution and mixes in a skip feature that all classes of an image share."""

    def __init__(self, inputs: int, outputs: int, skip_inputs: int, skip: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, inputs - skip, 2, stride=2)
        self.skip = nn.Sequential(nn.Conv2d(skip_inputs, skip, 3, padding=1), nn.ReLU(inplace=True))
        self.mix = nn.Sequential(_conv(inputs, outputs, 3), _conv(outputs, outputs, 3))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x (B*N, inputs, h, w), skip (B, skip_inputs, any, any) to (B*N, outputs, 2h, 2w)."""
        x = self.up(x)
        skip = F.interpolate(self.skip(skip), size=x.shape[-2:], mode="bilinear", align_corners=True)
        skip = skip.repeat_interleave(len(x) // len(skip), dim=0)
        return self.mix(torch.cat([x, skip], dim=1))


class LanguageDecoder(nn.Module):
    """Dense features and class text to logits at four times the patch grid."""

    def __init__(self, shape: DecoderShape, embedding: int, skip_inputs: int) -> None:
        super().__init__()
        c = shape.channels
        self.similarity = nn.Conv2d(1, c, 7, padding=3)
        self.spatial = Spatial(c, shape.dilations)
        self.text = nn.Sequential(nn.Linear(embedding, c), nn.ReLU())
        self.semantic = nn.ModuleList(AcrossClasses(c, shape.heads, shape.pool) for _ in range(shape.layers))
        self.up_deep = Up(c, shape.up[0], skip_inputs, shape.skip[0])
        self.up_shallow = Up(shape.up[0], shape.up[1], skip_inputs, shape.skip[1])
        self.head = nn.Conv2d(shape.up[1], 1, 3, padding=1)

    def forward(self, features: Features, text: Tensor) -> Tensor:
        """Logits (B, N, 4h, 4w) of features and normalised class text (N, D)."""
        dense = F.normalize(features.dense, dim=1)
        cosine = torch.einsum("bdhw,nd->bnhw", dense, text)
        b, n, h, w = cosine.shape
        x = self.spatial(self.similarity(cosine.reshape(b * n, 1, h, w))).view(b, n, -1, h, w)
        projected = self.text(text)
        for layer in self.semantic:
            x = layer(x, projected)
        shallow, deep = features.skips
        x = self.up_shallow(self.up_deep(x.flatten(0, 1), deep), shallow)
        return self.head(x).view(b, n, 4 * h, 4 * w)
