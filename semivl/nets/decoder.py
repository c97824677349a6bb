"""The language-guided decoder: from cosine maps of image and class text to masks (SemiVL, 3.3; spec 2.5).

Classes are treated as a batch: every step but one sees one class at a time, so any number of classes works, their
order does not matter, and a class is told apart only by its text. The one exception is attention across classes.
All norms are GroupNorm with 16 channels a group, activations ReLU.
"""

from collections.abc import Callable, Sequence
from typing import Self

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from semivl.config import Record
from semivl.nets.encoder import Features


class DecoderShape(Record):
    """Widths of the decoder; the defaults are the paper's."""

    scale: float = 1.0
    """factor on the cosine maps; more than 1 can leave the background's plateau sooner, see docs/results.md"""
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
    canvas: int | None = None
    """side in pixels of a square that predictions are resized to before their own size, as the published code does"""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        numbers = (self.channels, *self.up, *self.skip, *self.dilations, self.layers, self.heads, self.pool)
        if not 0 < self.scale < float("inf"):
            raise ValueError("scale must be a number above 0")
        if min(numbers) < 1 or (self.canvas is not None and self.canvas < 1):
            raise ValueError("every number must be at least 1")
        if 2 * self.channels % self.heads:
            raise ValueError(f"twice channels ({2 * self.channels}) must divide by heads ({self.heads})")
        for width in (self.channels, *self.up):
            if width % max(1, width // 16):
                raise ValueError(f"{width} channels do not divide into groups of 16; take a multiple of 16")
        if self.skip[0] >= self.channels or self.skip[1] >= self.up[0]:
            raise ValueError("skip must be less than what it is joined to: channels, then the first of up")
        return self


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
        pooled = F.avg_pool2d(x.flatten(0, 1), self.pool, ceil_mode=bool(min(h, w) < self.pool))
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

    def shared(self, skip: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, outputs, *size): what the skip feature (B, skip_inputs, any, any) adds to the first convolution.

        A convolution of two tensors side by side is the sum of two; the skip's half is the same for all classes.
        """
        skip = F.interpolate(self.skip(skip), size=size, mode="bilinear", align_corners=True)
        return F.conv2d(skip, self._first.weight[:, -skip.shape[1] :], padding=1)

    def forward(self, x: Tensor, shared: Tensor) -> Tensor:
        """x (B, n, inputs, h, w), shared (B, outputs, 2h, 2w) to (B, n, outputs, 2h, 2w)."""
        b, n = x.shape[:2]
        x = self.up(x.flatten(0, 1))
        x = F.conv2d(x, self._first.weight[:, : x.shape[1]], padding=1)
        x = (x.unflatten(0, (b, n)) + shared[:, None]).flatten(0, 1)
        _, norm, relu = self.mix[0]  # pyright: ignore[reportGeneralTypeIssues]
        return self.mix[1](relu(norm(x))).unflatten(0, (b, n))

    @property
    def _first(self) -> nn.Conv2d:
        return self.mix[0][0]  # pyright: ignore[reportIndexIssue, reportReturnType]


def decode_in_chunks(model: nn.Module, classes: int | None) -> None:
    """Sets how many classes every language-guided decoder in the model takes at once; all with None."""
    for module in model.modules():
        if isinstance(module, LanguageDecoder):
            module.class_chunk = classes


def cosine_maps(features: Features, text: Tensor, scale: float) -> Tensor:
    """(B, N, h, w) float32: `scale` times the cosines of dense features and normalised class text (N, D)."""
    with torch.autocast(text.device.type, enabled=False):
        return scale * torch.einsum("bdhw,nd->bnhw", F.normalize(features.dense.float(), dim=1), text)


class LanguageDecoder(nn.Module):
    """Dense features and class text to logits at four times the patch grid.

    `class_chunk` classes at a time go through the steps that see one class alone; their activations are not kept but
    computed again on the way back, which takes a tenth of the memory for one more pass (spec 7.4).
    """

    class_chunk: int | None = None

    def __init__(self, shape: DecoderShape, embedding: int, skip_channels: Sequence[int]) -> None:
        super().__init__()
        shallow, deep = skip_channels
        c = shape.channels
        self.scale = shape.scale
        self.similarity = nn.Conv2d(1, c, 7, padding=3)
        self.spatial = Spatial(c, shape.dilations)
        self.text = nn.Sequential(nn.Linear(embedding, c), nn.ReLU())
        self.semantic = nn.ModuleList(AcrossClasses(c, shape.heads, shape.pool) for _ in range(shape.layers))
        self.up_deep = Up(c, shape.up[0], deep, shape.skip[0])
        self.up_shallow = Up(shape.up[0], shape.up[1], shallow, shape.skip[1])
        self.head = nn.Conv2d(shape.up[1], 1, 3, padding=1)

    def forward(self, features: Features, text: Tensor) -> Tensor:
        """Logits (B, N, 4h, 4w) of features and normalised class text (N, D)."""
        cosine = cosine_maps(features, text, self.scale)
        h, w = cosine.shape[-2:]
        x = self._by_class(self._lower, cosine)
        projected = self.text(text)
        for layer in self.semantic:
            x = layer(x, projected)
        shallow, deep = features.skips
        deep = self.up_deep.shared(deep, (2 * h, 2 * w))
        shallow = self.up_shallow.shared(shallow, (4 * h, 4 * w))
        return self._by_class(self._upper, x, deep, shallow)

    def _lower(self, cosine: Tensor) -> Tensor:
        """(B, n, h, w) to (B, n, C, h, w)."""
        x = self.spatial(self.similarity(cosine.flatten(0, 1)[:, None]))
        return x.unflatten(0, cosine.shape[:2])

    def _upper(self, x: Tensor, deep: Tensor, shallow: Tensor) -> Tensor:
        """(B, n, C, h, w) and the skips' shares to (B, n, 4h, 4w)."""
        x = self.up_shallow(self.up_deep(x, deep), shallow)
        return self.head(x.flatten(0, 1))[:, 0].unflatten(0, x.shape[:2])

    def _by_class(self, step: Callable[..., Tensor], x: Tensor, *shared: Tensor) -> Tensor:
        if self.class_chunk is None:
            return step(x, *shared)
        chunks = x.split(self.class_chunk, dim=1)
        if not torch.is_grad_enabled():
            return torch.cat([step(chunk, *shared) for chunk in chunks], dim=1)
        kept = [checkpoint(step, c, *shared, use_reentrant=False, preserve_rng_state=False) for c in chunks]
        return torch.cat(kept, dim=1)  # pyright: ignore[reportArgumentType]
