"""The dense image encoder: a vision transformer read patch by patch (spec semivl.md, 2.1 to 2.3).

One class for CLIP's transformers, for DINOv2's and for others of the plain kind: what sets them apart is in
`Architecture`. CLIP's last block is entered by its value path only (MaskCLIP): attention is replaced by the identity,
so that each patch keeps its own content and lands, after the projection, in the space of the text embeddings.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import Record
from semivl.data import ranks
from semivl.errors import ConfigError
from semivl.nets.conv_stem import STEM_CHANNELS, ConvStem

Trained = Literal["all", "spatial", "none"]


class Features(NamedTuple):
    """What a decoder reads. h and w are the patch grid's sides."""

    dense: Tensor
    """(B, D, h, w), L2-normalised over D, in the space of the text embeddings where there is one"""
    skips: tuple[Tensor, ...]
    """shallow first, each (B, C, h, w): the value path of the skip blocks, before them the stem's finer one"""


class Architecture(Record):
    """All that it takes to build an encoder before its weights are loaded."""

    width: int
    layers: int
    heads: int
    mlp: int
    """hidden width of the MLPs"""
    patch: int
    embedding: int
    """width D of the space shared with text; 0 where there is none"""
    grid: tuple[int, int]
    """rows and columns of the position table"""
    gelu: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    skip_blocks: tuple[int, ...]
    layer_norm_eps: float = 1e-5
    pre_norm: bool = True
    """a norm before the first block, as CLIP has"""
    patch_bias: bool = False
    layer_scale: bool = False
    registers: int = 0
    """tokens beside the class token that stand for no patch"""
    dense: Literal["value", "ordinary"] = "value"
    """the path of the last block that the dense embedding is made from"""
    projection_bias: bool = False
    head: int = 0
    """hidden width of an MLP beside the projection, as alignment makes one; none at 0"""
    pool: Literal["class", "mean", "dense"] = "class"
    """what stands for the whole image: the class token after the last block, or the mean of the patches, after its
    ordinary path or its dense one"""
    conv_stem: bool = False
    """the first layers of a ResNet as the shallowest skip feature, for Cityscapes"""


class Block(nn.Module):
    """One pre-norm transformer block with a full path and a value path."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.heads = a.heads
        self.quick = a.gelu == "quick"
        self.drop_path = 0.0
        self.ln_1 = nn.LayerNorm(a.width, eps=a.layer_norm_eps)
        self.in_proj = nn.Linear(a.width, 3 * a.width)
        self.out_proj = nn.Linear(a.width, a.width)
        self.ln_2 = nn.LayerNorm(a.width, eps=a.layer_norm_eps)
        self.fc = nn.Linear(a.width, a.mlp)
        self.proj = nn.Linear(a.mlp, a.width)
        self.scale_1 = nn.Parameter(torch.ones(a.width)) if a.layer_scale else None
        self.scale_2 = nn.Parameter(torch.ones(a.width)) if a.layer_scale else None

    def forward(self, x: Tensor) -> Tensor:
        """The ordinary block, (B, L, width) to the same."""
        return self.finished(x, self.attended(self.projected(x)))

    def value(self, x: Tensor) -> Tensor:
        """The block with attention replaced by the identity: each token attends to itself alone."""
        c = x.shape[-1]
        return self.finished(x, F.linear(self.ln_1(x), self.in_proj.weight[2 * c :], self.in_proj.bias[2 * c :]))

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` and `value`, which share the first norm and the projection."""
        projected = self.projected(x)
        return self.finished(x, self.attended(projected)), self.finished(x, projected[..., 2 * x.shape[-1] :])

    def projected(self, x: Tensor) -> Tensor:
        """(B, L, 3 width): queries, keys and values side by side."""
        return self.in_proj(self.ln_1(x))

    def attended(self, projected: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, L, width) of queries, keys and values (B, L, 3 width); `bias` (B, L, L) is added to what attention
        weighs, -inf hides."""
        q, k, v = self.in_heads(projected)
        mask = None if bias is None else bias[:, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)

    def in_heads(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, L, width / heads), of (B, L, 3 width)."""
        b, n, c = projected.shape
        q, k, v = projected.view(b, n, 3, self.heads, c // 3 // self.heads).permute(2, 0, 3, 1, 4)
        return q, k, v

    def finished(self, x: Tensor, attended: Tensor) -> Tensor:
        """The block's output for tokens (B, L, width) and what attention gives them."""
        x = x + self._branch(self.out_proj(attended), self.scale_1)
        hidden = self.fc(self.ln_2(x))
        hidden = hidden * torch.sigmoid(1.702 * hidden) if self.quick else F.gelu(hidden)
        return x + self._branch(self.proj(hidden), self.scale_2)

    def _branch(self, y: Tensor, scale: Tensor | None) -> Tensor:
        if scale is not None:
            y = y * scale
        if self.training and self.drop_path:
            drawn = torch.rand(len(y) * ranks.world(), 1, 1, device=y.device)[ranks.part(len(y))]
            kept = drawn >= self.drop_path
            y = y * kept / (1 - self.drop_path)
        return y


class DenseEncoder(nn.Module):
    """A vision transformer that gives features for every patch, for images of any size."""

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: Architecture) -> None:
        """Raises: ConfigError CONF025, skip blocks that are not in order or not before the last block."""
        super().__init__()
        a = self.architecture = architecture
        allowed = range(a.layers - 1)
        if list(a.skip_blocks) != sorted(set(a.skip_blocks)) or not set(a.skip_blocks) <= set(allowed):
            what = f"vlm.skip_blocks {list(a.skip_blocks)} do not suit an encoder of {a.layers} blocks."
            raise ConfigError("CONF025", what, f"Name blocks from 0 to {a.layers - 2}, shallow first, each once.")
        self.patch = nn.Conv2d(3, a.width, a.patch, stride=a.patch, bias=a.patch_bias)
        self.class_token = nn.Parameter(torch.zeros(a.width))
        self.registers = nn.Parameter(torch.zeros(a.registers, a.width)) if a.registers else None
        self.position = nn.Parameter(torch.zeros(1 + a.grid[0] * a.grid[1], a.width))
        self.ln_pre = nn.LayerNorm(a.width, eps=a.layer_norm_eps) if a.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(Block(a) for _ in range(a.layers))
        self.ln_post = nn.LayerNorm(a.width, eps=a.layer_norm_eps)
        embeds = a.embedding > 0
        self.projection = nn.Linear(a.width, a.embedding, bias=a.projection_bias) if embeds else nn.Identity()
        self.head = (
            nn.Sequential(nn.Linear(a.width, a.head), nn.GELU(), nn.Linear(a.head, a.embedding)) if a.head else None
        )
        self.stem = ConvStem() if a.conv_stem else None
        self.register_buffer("mean", torch.tensor(a.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(a.std).view(1, 3, 1, 1), persistent=False)

    @property
    def skip_channels(self) -> tuple[int, ...]:
        """Channels of each skip feature."""
        of_blocks = (self.architecture.width,) * len(self.architecture.skip_blocks)
        return ((STEM_CHANNELS,) if self.stem else ()) + of_blocks

    def forward(self, images: Tensor) -> Features:
        """Features of images (B, 3, H, W) in [0, 1], padded with zeros to whole patches after normalisation."""
        a = self.architecture
        tokens, grid = self.tokens(images)
        skips = [self.stem(images)] if self.stem else []
        *blocks, last = self.layers()
        for i, block in enumerate(blocks):
            if i in a.skip_blocks:
                tokens, value = block.both(tokens)
                skips.append(self._map(value, grid))
            else:
                tokens = block(tokens)
        return Features(self.dense(last, tokens, grid), tuple(skips))

    def before_last(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """What the last block reads: tokens (B, L, width), and the patch grid's rows and columns."""
        tokens, grid = self.tokens(images)
        for block in self.layers()[:-1]:
            tokens = block(tokens)
        return tokens, grid

    def dense(self, last: Block, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, D, h, w), L2-normalised over D: the dense path of `last` for what `before_last` gives."""
        return F.normalize(self._map(self.shared(self.dense_path(last, tokens)), grid).float(), dim=1)

    def dense_path(self, last: Block, tokens: Tensor) -> Tensor:
        """Tokens (B, L, width) as the last block hands them to the dense embedding."""
        return last.value(tokens) if self.architecture.dense == "value" else last(tokens)

    def shared(self, tokens: Tensor) -> Tensor:
        """Tokens (..., width) after the last block as embeddings (..., D) in the space of the text."""
        normed = self.ln_post(tokens)
        return self.projection(normed) if self.head is None else self.projection(normed) + self.head(normed)

    def whole(self, images: Tensor) -> Tensor:
        """(B, D), L2-normalised: the embeddings of whole images (B, 3, H, W) in [0, 1]."""
        a, last = self.architecture, self.layers()[-1]
        tokens, _ = self.before_last(images)
        embedded = self.shared(self.dense_path(last, tokens) if a.pool == "dense" else last(tokens))
        return F.normalize(embedded[:, 0] if a.pool == "class" else embedded[:, self.before_patches :].mean(1), dim=-1)

    @property
    def before_patches(self) -> int:
        """Tokens that stand for no patch."""
        return 1 + self.architecture.registers

    def outputs(self, images: Tensor, blocks: Sequence[int]) -> tuple[Tensor, ...]:
        """The ordinary outputs of the named blocks after the last norm, each (B, width, h, w)."""
        tokens, grid = self.tokens(images)
        found = []
        for i, block in enumerate(self.layers()[: max(blocks) + 1]):
            tokens = block(tokens)
            if i in blocks:
                found.append(self._map(self.ln_post(tokens), grid))
        return tuple(found)

    def keys(self, images: Tensor, block: int) -> Tensor:
        """(B, width, h, w): what a block's attention knows each patch by, all heads side by side."""
        tokens, grid = self.tokens(images)
        *before, last = self.layers()[: block + 1]
        for each in before:
            tokens = each(tokens)
        return self._map(last.projected(tokens)[..., self.architecture.width : 2 * self.architecture.width], grid)

    def train_parts(self, which: Trained) -> None:
        """Chooses what learns; `spatial` is attention, the position table and the stem (SemiVL, section 3.2)."""
        for name, parameter in self.named_parameters():
            spatial = name == "position" or ".in_proj." in name or ".out_proj." in name or name.startswith("stem.")
            parameter.requires_grad = which == "all" or (which == "spatial" and spatial)

    def set_drop_path(self, rate: float) -> None:
        """Stochastic depth in training: each block's branches are left out, the deeper the likelier up to `rate`."""
        for i, block in enumerate(self.layers()):
            block.drop_path = rate * i / max(1, len(self.blocks) - 1)

    def layers(self) -> list[Block]:
        """The blocks, first to last."""
        return cast("list[Block]", list(self.blocks))

    def tokens(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, L, width) what the first block reads of images (B, 3, H, W) in [0, 1], and the patch grid's (h, w).

        The class token comes first, then registers, then patches row by row.
        """
        p = self.architecture.patch
        height, width = images.shape[-2:]
        x = (images - self.mean) / self.std
        x = self.patch(F.pad(x, (0, -width % p, 0, -height % p)))
        grid = (x.shape[-2], x.shape[-1])
        tokens = torch.cat([self.class_token.expand(x.shape[0], 1, -1), x.flatten(2).transpose(1, 2)], dim=1)
        tokens = tokens + resized_positions(self.position, self.architecture.grid, grid)
        if self.registers is not None:
            tokens = torch.cat([tokens[:, :1], self.registers.expand(x.shape[0], -1, -1), tokens[:, 1:]], dim=1)
        return self.ln_pre(tokens), grid

    def _map(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        return tokens[:, self.before_patches :].transpose(1, 2).unflatten(2, grid)


def resized_positions(table: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """The position table (1 + rows * columns, width) resized bicubically to another grid; the class token's kept."""
    if not torch.compiler.is_exporting() and tuple(old) == tuple(new):
        return table
    grid = table[1:].T.unflatten(1, tuple(old))[None]
    grid = F.interpolate(grid, size=tuple(new), mode="bicubic", align_corners=False)
    return torch.cat([table[:1], grid[0].flatten(1).T])


def renamed(state: dict[str, Tensor], names: dict[str, str]) -> Iterator[tuple[str, Tensor]]:
    """The state dict's entries in float32, parts of their names replaced."""
    for key, value in state.items():
        for old, new in names.items():
            key = key.replace(old, new)
        yield key, value.float()
