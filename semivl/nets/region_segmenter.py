"""The image segmenter of CoDe: a soft mask of an image for any embedding of a text (spec code.md, 3.2).

It reads what the frozen encoder's last block reads. A copy of that block, a gated decoder at finer resolution and a
copy of the way into the shared space learn; cosines with a text's embedding, scaled and shifted, are the mask's logits.
"""

import copy
from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import Record
from semivl.nets.encoder import Block, DenseEncoder
from semivl.nets.gated_decoder import GatedDecoder


class RegionShape(Record):
    """What the image segmenter looks like; the defaults are the published ones."""

    stages: int = Field(2, ge=0, description="doublings of the patch grid")
    convolutions: int = Field(1, ge=1, description="3 x 3 convolutions of a stage; TCL has 2")
    scale: float = Field(10.0, gt=0, description="factor on cosines at the start; it is learned")
    shift: float = Field(-2.5, description="added to them at the start; it is learned")


class RegionSegmenter(nn.Module):
    """Tokens before the encoder's last block to dense features, and these to masks."""

    def __init__(self, encoder: DenseEncoder, shape: RegionShape) -> None:
        """Starts from copies of the encoder's parts, which learn."""
        super().__init__()
        a = self.architecture = encoder.architecture
        self.block = cast(Block, copy.deepcopy(encoder.blocks[-1]))
        self.decoder = GatedDecoder(a.width, shape.stages, shape.convolutions)
        self.ln_post, self.projection = copy.deepcopy(encoder.ln_post), copy.deepcopy(encoder.projection)
        self.head = copy.deepcopy(encoder.head)
        self.scale = nn.Parameter(torch.tensor(shape.scale))
        self.shift = nn.Parameter(torch.tensor(shape.shift))
        self.requires_grad_(True)

    def backbone(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, width, h, w): the block's dense path of tokens (B, L, width) that stand for a grid of h * w patches."""
        read = self.block.value(tokens) if self.architecture.dense == "value" else self.block(tokens)
        return read[:, 1 + self.architecture.registers :].transpose(1, 2).unflatten(2, grid)

    def features(self, backbone: Tensor) -> Tensor:
        """(B, D, H, W), L2-normalised over D, at 2^stages times the patch grid."""
        normed = self.ln_post(self.decoder(backbone).permute(0, 2, 3, 1))
        shared = self.projection(normed) if self.head is None else self.projection(normed) + self.head(normed)
        return F.normalize(shared.permute(0, 3, 1, 2).float(), dim=1)

    def cosines(self, features: Tensor, texts: Tensor) -> Tensor:
        """(B, M, H, W) of dense features and normalised embeddings (M, D)."""
        with torch.autocast(features.device.type, enabled=False):
            return torch.einsum("bdhw,md->bmhw", features, texts.float())

    def logits(self, cosines: Tensor) -> Tensor:
        """What the masks are the sigmoid of."""
        return self.scale * cosines + self.shift
