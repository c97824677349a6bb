"""Regions of a photo in the space of text, all in one pass (SCG; spec scg.md, 2.3: the name is the paper's, the
mechanics are a reconstruction).

Patches are read as ever: they see the whole photo. In the last blocks a region sees its own patches alone, and nobody
sees the regions. So what embeds a region is what embeds a whole photo, put to a part of it:

- `class`, where that is the class token: a copy of it for each region, which attends to the region and itself.
- `mean`, where it is the mean of the patches: a second stream of patches, each of which attends to its own region
  (and to the photo's tokens that stand for no patch), and their mean over the region.

Three other readings of the paper's words are here to be compared with: weights for masks (`attn_soft`), a pass for each
region over a photo painted over elsewhere (`input_dim`), and the mean of the dense embedding (`pool`).
"""

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from semivl.config import Record
from semivl.nets.encoder import Block, DenseEncoder

LEAST_SHARE = 1e-4
"""what `attn_soft` gives a patch that is no part of a region"""
_OUTSIDE = 255


class RegionSettings(Record):
    """How regions are read."""

    how: Literal["masked", "attn_soft", "input_dim", "pool"] = Field(
        "masked",
        description="masked: patches of the region alone; attn_soft: patches by their share in it; input_dim: a pass "
        "for each region, the photo painted over elsewhere; pool: mean of the dense embedding",
    )
    by: Literal["own", "class", "mean"] = Field(
        "own", description="what embeds a region: the class token or its patches' mean; own: as a whole photo's"
    )
    blocks: int = Field(3, ge=1, description="last blocks in which a region sees its patches alone")
    kept: float = Field(0.0, ge=0, le=1, description="input_dim: share of the photo that stays beside the region")


class Reading(NamedTuple):
    """What is said of photos; all embeddings are L2-normalised."""

    regions: Tensor
    """(B, K, D)"""
    present: Tensor
    """(B, K) bool: of the photos of a batch, some have fewer regions"""
    whole: Tensor
    """(B, D), of the whole photos"""
    dense: Tensor
    """(B, D, h, w), of the patches, as `DenseEncoder` gives them"""


def read(encoder: DenseEncoder, images: Tensor, groups: Tensor, count: int, settings: RegionSettings) -> Reading:
    """Reads the groups of images (B, 3, H, W) in [0, 1] as regions.

    Args:
        groups: (B, H, W) int64 from 0 on, 255 where there is no photo.
        count: K, groups of a photo at the most.
    """
    tokens, grid = encoder.tokens(images)
    share = shares(groups, count, encoder.architecture.patch)
    weights = {"masked": own_patches, "attn_soft": lambda s: s + LEAST_SHARE}.get(settings.how, lambda s: s[:, :0])
    one_pass = _class_tokens if by_class_token(encoder, settings) else _patch_means
    rows, dense = one_pass(encoder, tokens, weights(share), min(settings.blocks, len(encoder.layers())))
    rows, dense = F.normalize(rows.float(), dim=-1), F.normalize(dense.float(), dim=-1)
    if settings.how == "pool":
        regions = F.normalize(share @ dense, dim=-1)
    elif settings.how == "input_dim":
        regions = _painted(encoder, images, groups, count, settings)
    else:
        regions = rows[:, 1:]
    return Reading(regions, share.sum(-1) > 0, rows[:, 0], dense.transpose(1, 2).unflatten(2, grid))


def by_class_token(encoder: DenseEncoder, settings: RegionSettings) -> bool:
    """Whether the class token embeds a region, and not the mean of its patches."""
    return settings.by == "class" or (settings.by == "own" and encoder.architecture.pool == "class")


def shares(groups: Tensor, count: int, patch: int) -> Tensor:
    """(B, K, L) share of each patch that lies in each of groups (B, H, W), 255 in none; rows of patches in order."""
    height, width = groups.shape[1:]
    whole = F.pad(groups, (0, -width % patch, 0, -height % patch), value=_OUTSIDE)
    inside = whole[:, None] == torch.arange(count, device=groups.device)[:, None, None]
    return F.avg_pool2d(inside.float(), patch).flatten(2)


def own_patches(share: Tensor) -> Tensor:
    """(B, K, L) 1 for the patches that lie in a group by half or more, and for its fullest; 0 for the others.

    So every group that is there has a patch, and whether it has one does not depend on the other groups.
    """
    fullest = share == share.amax(-1, keepdim=True)
    return ((share >= 0.5) | (fullest & (share > 0))).float()


def _class_tokens(encoder: DenseEncoder, tokens: Tensor, weights: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """(B, 1 + K, D) of the whole photo and of regions by copies of the class token, and (B, L, D) of patches.

    The class token itself is read along as the one that sees everything: a region that is the whole photo is equal to
    it bit for bit.

    Args:
        tokens: what the first block reads.
        weights: (B, K, L) of each patch for each region, 0 to hide it.
    """
    *before, last = encoder.layers()
    first = len(before) + 1 - blocks
    for block in before[:first]:
        tokens = block(tokens)
    rows = tokens[:, :1].expand(-1, 1 + weights.shape[1], -1)
    bias = F.pad(weights, (0, 0, 1, 0), value=1.0).log()
    for block in before[first:]:
        projected = block.projected(tokens)
        rows = _beside(block, rows, projected, bias)
        tokens = block.finished(tokens, block.attended(projected))
    rows = _beside(last, rows, last.projected(tokens), bias)
    return encoder.shared(rows), encoder.shared(encoder.dense_path(last, tokens)[:, encoder.before_patches :])


def _beside(block: Block, rows: Tensor, projected: Tensor, bias: Tensor) -> Tensor:
    """(B, R, width) the block's outputs of tokens that see themselves and the others, and that nobody sees.

    Args:
        rows: (B, R, width) these tokens.
        projected: (B, 1 + G + L, 3 width) of the class token, which they do not see, registers and patches.
        bias: (B, R, L) added to what their attention weighs.
    """
    q, own_k, own_v = block.in_heads(block.projected(rows))
    _, k, v = (part[:, :, 1:] for part in block.in_heads(projected))
    scores = torch.cat([(q * own_k).sum(-1, keepdim=True), q @ k.transpose(-1, -2)], -1) * q.shape[-1] ** -0.5
    scores = scores + F.pad(bias, (scores.shape[-1] - bias.shape[-1], 0))[:, None]
    attention = scores.softmax(-1)
    attended = attention[..., :1] * own_v + attention[..., 1:] @ v
    return block.finished(rows, attended.transpose(1, 2).flatten(2))


def _patch_means(encoder: DenseEncoder, tokens: Tensor, weights: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """The same by the mean of patches, which attend within their own regions; see `_class_tokens`.

    A patch of two regions, which only small ones have, attends to both.
    """
    *before, last = encoder.layers()
    first = len(before) + 1 - blocks
    for block in before[:first]:
        tokens = block(tokens)
    others, bias = encoder.before_patches, _within(weights, encoder.before_patches)
    patches = tokens[:, others:]
    for block in before[first:]:
        patches = _apart(block, tokens, patches, bias)
        tokens = block(tokens)
    if encoder.architecture.pool == "dense" and encoder.architecture.dense == "value":
        patches, read = last.value(patches), last.value(tokens)
    else:
        patches, read = _apart(last, tokens, patches, bias), last(tokens)
    patches = encoder.shared(patches)
    regions = weights @ patches / weights.sum(-1, keepdim=True).clamp(min=LEAST_SHARE)
    whole = encoder.shared(read[:, others:]).mean(1, keepdim=True)
    return torch.cat([whole, regions], 1), encoder.shared(encoder.dense_path(last, tokens)[:, encoder.before_patches :])


def _apart(block: Block, tokens: Tensor, patches: Tensor, bias: Tensor) -> Tensor:
    """(B, L, width) the block's outputs of patches (B, L, width) that see what `bias` (B, G + L, G + L) shows.

    The first G of the photo's tokens, which stand for no patch, come from the stream that knows of no regions.
    """
    others = tokens.shape[1] - patches.shape[1]
    rows = torch.cat([tokens[:, :others], patches], 1)
    return block.finished(rows, block.attended(block.projected(rows), bias))[:, others:]


def _within(weights: Tensor, before: int) -> Tensor:
    """(B, before + L, before + L) bias by which patches see themselves, those of their regions, and what is before."""
    shared = weights.transpose(1, 2) @ weights + torch.eye(weights.shape[-1], device=weights.device)
    return F.pad(shared.clamp(max=1).log(), (before, 0, before, 0))


def _painted(encoder: DenseEncoder, images: Tensor, groups: Tensor, count: int, settings: RegionSettings) -> Tensor:
    """(B, K, D) whole embeddings of the photos painted over with the encoder's mean colour beside each region."""
    found = []
    for group in range(count):
        inside = (groups == group)[:, None]
        seen = torch.where(inside, images, torch.lerp(encoder.mean.expand_as(images), images, settings.kept))
        plain = settings.model_copy(update={"how": "pool"})
        found.append(read(encoder, seen, torch.zeros_like(groups), 1, plain).whole)
    return torch.stack(found, 1)
