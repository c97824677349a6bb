"""Texts in a context that is learned (CoOp, Zhou et al. 2022; spec code.md, 3.3): how CoDe embeds nouns and classes,
and SCG where it is set to.

The text is written behind as many fillers as there are context vectors, tokenised as a whole, and the fillers'
embeddings are replaced. So the context stands where words would, whatever the tokenizer and its special tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.errors import ConfigError
from semivl.language.tower import TextTower

FILLER = "x"
_START = ("a", "photo", "of")
CHUNK = 256
"""texts that are embedded at once where no gradient is wanted"""


class LearnedContext(nn.Module):
    """The context vectors (T, W)."""

    def __init__(self, tower: TextTower, length: int) -> None:
        """`length` vectors, at first those of "a photo of x x x ...".

        Raises:
            ConfigError: CONF042, the tower has no room for them, or does not read a filler as one token.
        """
        super().__init__()
        words = [*_START, *[FILLER] * length][:length]
        tokens = tower.tokens([f"{' '.join(words)} {FILLER}"])
        spoken = tower.spoken(tokens)
        if int(spoken.sum()) != length + 1:
            what = (
                f"context: {length} vectors and a word do not fit into the {tokens.shape[1]} tokens of vlm's text side."
            )
            raise ConfigError("CONF042", what, "Set a smaller context in method.settings.")
        self.vectors = nn.Parameter(tower.embedded(tokens)[0, spoken[0]][:length].clone())

    def forward(self, tower: TextTower, texts: Sequence[str]) -> Tensor:
        """(B, D) embeddings of the texts behind the context, L2-normalised; gradients reach the context alone."""
        length = len(self.vectors)
        tokens = tower.tokens([" ".join([*[FILLER] * length, text]) for text in texts])
        spoken = tower.spoken(tokens)
        places = spoken & (spoken.cumsum(1) <= length)
        embedded = tower.embedded(tokens)
        vectors = self.vectors.repeat(len(texts), 1).to(embedded.dtype)
        embedded = embedded.masked_scatter(places.unsqueeze(-1), vectors)
        return F.normalize(tower.pooled(tower.hidden(embedded, tokens), tokens).float(), dim=-1)

    @torch.no_grad()
    def baked(self, tower: TextTower, texts: Sequence[str]) -> Tensor:
        """The same for any number of texts, without gradients."""
        return torch.cat([self(tower, texts[i : i + CHUNK]) for i in range(0, len(texts), CHUNK)])
