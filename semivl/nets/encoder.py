"""The dense image encoder: a CLIP vision transformer read patch by patch (spec semivl.md, 2.1 to 2.3).

The last block is entered by its value path only (MaskCLIP): attention is replaced by the identity, so that each
patch keeps its own content and lands, after the projection, in the space of the text embeddings.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import Record


class Features(NamedTuple):
    """What a decoder reads. h and w are the patch grid's sides."""

    dense: Tensor
    """(B, D, h, w), L2-normalised over D, in the space of the text embeddings"""
    skips: tuple[Tensor, ...]
    """value path of the skip blocks, shallow first, each (B, width, h, w)"""


class Architecture(Record):
    """All that it takes to build an encoder before its weights are loaded."""

    width: int
    layers: int
    heads: int
    mlp: int
    """hidden width of the MLPs"""
    patch: int
    embedding: int
    """width D of the space shared with text"""
    grid: tuple[int, int]
    """rows and columns of the position table"""
    gelu: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    skip_blocks: tuple[int, ...]
    layer_norm_eps: float = 1e-5


class Block(nn.Module):
    """One pre-norm transformer block with a full path and a value path."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.heads = a.heads
        self.quick = a.gelu == "quick"
        self.ln_1 = nn.LayerNorm(a.width, eps=a.layer_norm_eps)
        self.in_proj = nn.Linear(a.width, 3 * a.width)
        self.out_proj = nn.Linear(a.width, a.width)
        self.ln_2 = nn.LayerNorm(a.width, eps=a.layer_norm_eps)
        self.fc = nn.Linear(a.width, a.mlp)
        self.proj = nn.Linear(a.mlp, a.width)

    def _mlp(self, x: Tensor) -> Tensor:
        hidden = self.fc(self.ln_2(x))
        hidden = hidden * torch.sigmoid(1.702 * hidden) if self.quick else F.gelu(hidden)
        return x + self.proj(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """The ordinary block, (B, L, width) to the same."""
        b, n, c = x.shape
        q, k, v = self.in_proj(self.ln_1(x)).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
        return self._mlp(x + self.out_proj(attended))

    def value(self, x: Tensor) -> Tensor:
        """The block with attention replaced by the identity: each token attends to itself alone."""
        c = x.shape[-1]
        v = F.linear(self.ln_1(x), self.in_proj.weight[2 * c :], self.in_proj.bias[2 * c :])
        return self._mlp(x + self.out_proj(v))


class DenseEncoder(nn.Module):
    """A CLIP vision transformer that gives features for every patch, for images of any size."""

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.patch = nn.Conv2d(3, a.width, a.patch, stride=a.patch, bias=False)
        self.class_token = nn.Parameter(torch.zeros(a.width))
        self.position = nn.Parameter(torch.zeros(1 + a.grid[0] * a.grid[1], a.width))
        self.ln_pre = nn.LayerNorm(a.width, eps=a.layer_norm_eps)
        self.blocks = nn.ModuleList(Block(a) for _ in range(a.layers))
        self.ln_post = nn.LayerNorm(a.width, eps=a.layer_norm_eps)
        self.projection = nn.Linear(a.width, a.embedding, bias=False)
        self.register_buffer("mean", torch.tensor(a.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(a.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Features:
        """Features of images (B, 3, H, W) in [0, 1], padded with zeros to whole patches after normalisation."""
        p = self.architecture.patch
        height, width = images.shape[-2:]
        x = (images - self.mean) / self.std
        x = self.patch(F.pad(x, (0, -width % p, 0, -height % p)))
        h, w = x.shape[-2:]
        tokens = torch.cat([self.class_token.expand(len(x), 1, -1), x.flatten(2).transpose(1, 2)], dim=1)
        tokens = self.ln_pre(tokens + resized_positions(self.position, self.architecture.grid, (h, w)))

        def as_map(t: Tensor) -> Tensor:
            return t[:, 1:].transpose(1, 2).unflatten(2, (h, w))

        skips = []
        *blocks, last = cast("list[Block]", list(self.blocks))
        for i, block in enumerate(blocks):
            if i in self.architecture.skip_blocks:
                skips.append(as_map(block.value(tokens)))
            tokens = block(tokens)
        dense = self.projection(self.ln_post(last.value(tokens)))
        return Features(F.normalize(as_map(dense), dim=1), tuple(skips))

    def train_spatial_parts_only(self) -> None:
        """Freezes all but attention and the position table: spatial fine-tuning (SemiVL, section 3.2)."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad = name == "position" or ".in_proj." in name or ".out_proj." in name


def resized_positions(table: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """The position table (1 + rows * columns, width) resized bicubically to another grid; the class token's kept."""
    if tuple(old) == tuple(new):
        return table
    grid = table[1:].T.unflatten(1, tuple(old))[None]
    grid = F.interpolate(grid, size=tuple(new), mode="bicubic", align_corners=False)
    return torch.cat([table[:1], grid[0].flatten(1).T])


def from_open_clip(visual: Any, gelu: str, skip_blocks: tuple[int, ...], grid: tuple[int, int]) -> DenseEncoder:
    """The dense encoder with the weights of an open_clip VisionTransformer, its position table resized to `grid`."""
    state = visual.state_dict()
    width, _, patch, _ = state["conv1.weight"].shape
    first = visual.transformer.resblocks[0]
    own = "quick" if type(first.mlp.gelu).__name__ == "QuickGELU" else "exact"
    side = math.isqrt(len(state["positional_embedding"]) - 1)
    architecture = Architecture(
        width=width,
        layers=len(visual.transformer.resblocks),
        heads=first.attn.num_heads,
        mlp=len(state["transformer.resblocks.0.mlp.c_fc.weight"]),
        patch=patch,
        embedding=state["proj"].shape[1],
        grid=grid,
        gelu=own if gelu == "own" else gelu,
        mean=visual.preprocess_cfg["mean"],
        std=visual.preprocess_cfg["std"],
        skip_blocks=skip_blocks,
    )
    encoder = DenseEncoder(architecture)
    converted = {_renamed(k): v for k, v in state.items()}
    converted["projection.weight"] = converted["projection.weight"].T
    converted["position"] = resized_positions(state["positional_embedding"].float(), (side, side), grid)
    encoder.load_state_dict({k: v.float() for k, v in converted.items()})
    return encoder


_RENAMES = {
    "conv1.": "patch.",
    "class_embedding": "class_token",
    "positional_embedding": "position",
    "transformer.resblocks.": "blocks.",
    "attn.in_proj_": "in_proj.",
    "attn.out_proj.": "out_proj.",
    "mlp.c_fc.": "fc.",
    "mlp.c_proj.": "proj.",
}


def _renamed(key: str) -> str:
    if key == "proj":
        return "projection.weight"
    for old, new in _RENAMES.items():
        key = key.replace(old, new)
    return key
