"""The text segmenter of CoDe: how much each token of a caption belongs to a noun (spec code.md, 3.4)."""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import Record
from semivl.errors import ConfigError
from semivl.language.tower import TextTower


class WordShape(Record):
    """What the text segmenter looks like; the defaults are the published ones."""

    layers: int = Field(2, ge=1)
    heads: int = Field(8, ge=1)
    scale: float = Field(10.0, gt=0, description="factor on cosines at the start; it is learned")
    shift: float = Field(0.0, description="added to them at the start; it is learned")


class WordSegmenter(nn.Module):
    """The frozen tower's hidden states to features of tokens in the space that nouns are embedded in.

    Tokens see one another both ways, but no filling, so that a caption's features do not depend on its batch. Where the
    tower is not as wide as the shared space a linear layer bridges them; in the published model they are equal.
    """

    def __init__(self, tower: TextTower, shape: WordShape) -> None:
        """Raises: ConfigError CONF043, the heads do not divide the tower's width."""
        super().__init__()
        if tower.width % shape.heads:
            what = f"words.heads {shape.heads} do not divide the width of vlm's text encoder, {tower.width}."
            raise ConfigError("CONF043", what, "Set method.settings.words.heads to a number that does.")
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                tower.width, shape.heads, 4 * tower.width, dropout=0.0, activation="gelu",
                batch_first=True, norm_first=True,
            )
            for _ in range(shape.layers)
        )  # fmt: skip
        same = tower.width == tower.embedding
        self.bridge = nn.Identity() if same else nn.Linear(tower.width, tower.embedding, bias=False)
        self.scale = nn.Parameter(torch.tensor(shape.scale))
        self.shift = nn.Parameter(torch.tensor(shape.shift))

    def features(self, hidden: Tensor, spoken: Tensor) -> Tensor:
        """(B, L, D), L2-normalised, of hidden states (B, L, W) where `spoken` (B, L) tokens are words."""
        filled = behind_the_end(spoken) if len(spoken) else None  # torch takes no mask of no captions
        x = hidden
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=filled)
        return F.normalize(self.bridge(x).float(), dim=-1)

    def logits(self, features: Tensor, nouns: Tensor) -> Tensor:
        """(B, 1 + N, L): of no noun at all, always 0, and of each of a caption's nouns (N, B, D)."""
        with torch.autocast(features.device.type, enabled=False):
            of_nouns = self.scale * torch.einsum("bld,nbd->bnl", features, nouns.float()) + self.shift
        return torch.cat([torch.zeros_like(of_nouns[:, :1]), of_nouns], dim=1)


def behind_the_end(spoken: Tensor) -> Tensor:
    """(B, L) bool: the filling, which is what comes after the one token behind the last word."""
    places = torch.arange(spoken.shape[1], device=spoken.device)
    last = (places * spoken).amax(1, keepdim=True)
    return places > last + 1
