"""A frozen text tower taken apart: what methods that learn from captions read of a vision-language model's text side.

`encode` is the tower as a whole, equal to the model's own `encode_text`. Its steps are open as well, for methods that
put something of their own between them: token embeddings can be replaced before the transformer sees them, gradients
go through, and the tower itself never learns.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.errors import ConfigError
from semivl.language import sentence
from semivl.language.text import Tokenizer

_BY_END = ("argmax", "eos")
"""open_clip's poolings that read the end token alone, behind which filling changes nothing"""


class TextTower(nn.Module):
    """What the towers have in common. Token ids are int64 (B, L) on the tower's device, L the longest of a batch."""

    width: int
    """W of the token embeddings and hidden states"""
    embedding: int
    """D of the space that it shares with images"""
    longest: int
    """tokens of the longest text that it can read, start and end included"""

    def __init__(self, tokenizer: Callable[[list[str]], Tensor], width: int, embedding: int, longest: int) -> None:
        super().__init__()
        self.width, self.embedding, self.longest = width, embedding, longest
        self._tokenizer = tokenizer
        # what stands in no text is no word: start, end, and what fills up beside a longer text
        self._unspoken = tokenizer(["", "a a a a"])[0].unique()

    def train(self, mode: bool = True) -> "TextTower":
        """Stays as it is: what is frozen has no training mode."""
        return super().train(False)

    def frozen(self) -> "TextTower":
        """The tower itself, set so that nothing trains it."""
        return self.requires_grad_(False).eval()

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """(B, L) int64 token ids, texts that are too long cut short; there may be no text."""
        found = self._tokenizer(list(texts)) if texts else torch.zeros(0, 1, dtype=torch.int64)
        return found.to(self.device)

    def spoken(self, tokens: Tensor) -> Tensor:
        """(B, L) bool: the tokens of words, neither start nor end nor filling."""
        return ~torch.isin(tokens, self._unspoken.to(tokens.device))

    def embedded(self, tokens: Tensor) -> Tensor:
        """(B, L, W) token embeddings, before positions are added."""
        raise NotImplementedError

    def hidden(self, embedded: Tensor, tokens: Tensor) -> Tensor:
        """(B, L, W) after the last block, of token embeddings that stand at the places of `tokens`."""
        raise NotImplementedError

    def pooled(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """(B, D) embeddings of the texts, not normalised."""
        raise NotImplementedError

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(B, D) embeddings of the texts, L2-normalised."""
        tokens = self.tokens(texts)
        return F.normalize(self.pooled(self.hidden(self.embedded(tokens), tokens), tokens), dim=-1)


class OpenClipTower(TextTower):
    """The text half of an open_clip CLIP or CustomTextCLIP."""

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        """Raises: ConfigError CONF041, the text half is none of open_clip's own plain transformers."""
        own = hasattr(model, "token_embedding")
        text = model if own else model.text
        pooling = getattr(text, "text_pool_type" if own else "pool_type", None)
        odd = getattr(text, "cls_emb", None) is not None or getattr(text, "use_pad_mask", False)
        if odd or pooling not in ("first", "last", *_BY_END) or not hasattr(text, "token_embedding"):
            what = (
                f"the text half of this {type(model).__name__} is a {type(text).__name__} of another kind than CLIP's."
            )
            raise ConfigError("CONF041", what, "Choose a vision-language model whose text half is CLIP's transformer.")
        width = text.token_embedding.weight.shape[1]
        projection = text.text_projection
        linear = isinstance(projection, nn.Linear)
        embedding = width if projection is None else projection.out_features if linear else projection.shape[1]
        super().__init__(tokenizer, width, embedding, len(text.positional_embedding))
        self.words, self.blocks, self.norm = text.token_embedding, text.transformer, text.ln_final
        self.position, self.projection = text.positional_embedding, projection
        self.register_buffer("mask", text.attn_mask, persistent=False)
        self.pooling: str = pooling
        self.end = getattr(text, "text_eos_id" if own else "eos_id", None)
        self.frozen()

    def tokens(self, texts: Sequence[str]) -> Tensor:
        tokens = super().tokens(texts)
        if self.pooling in _BY_END and self.mask is not None:
            # no token sees a later one, so what is behind the longest text's end only costs time
            tokens = tokens[:, : max((tokens != 0).any(0).nonzero().flatten().tolist(), default=0) + 1]
        return tokens

    def embedded(self, tokens: Tensor) -> Tensor:
        return self.words(tokens)

    def hidden(self, embedded: Tensor, tokens: Tensor) -> Tensor:
        length = embedded.shape[1]
        mask = None if self.mask is None else self.mask[:length, :length]  # pyright: ignore[reportIndexIssue]
        return self.blocks(embedded + self.position[:length], attn_mask=mask)

    def pooled(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        places = {
            "first": lambda: torch.zeros_like(tokens[:, 0]),
            "last": lambda: torch.full_like(tokens[:, 0], tokens.shape[1] - 1),
            "argmax": lambda: tokens.argmax(1),
            "eos": lambda: (tokens == self.end).int().argmax(1),
        }[self.pooling]()
        read = self.norm(hidden[torch.arange(len(hidden), device=hidden.device), places])
        if self.projection is None:
            return read
        return self.projection(read) if isinstance(self.projection, nn.Linear) else read @ self.projection


class SentenceTower(TextTower):
    """A sentence encoder (`semivl.language.sentence`), the mean of its words as the embedding."""

    def __init__(self, encoder: sentence.SentenceEncoder, tokenizer: Tokenizer) -> None:
        width = encoder.words.embedding_dim
        super().__init__(tokenizer, width, width, len(encoder.position))
        self.encoder = encoder
        self.frozen()

    def embedded(self, tokens: Tensor) -> Tensor:
        return self.encoder.words(tokens)

    def hidden(self, embedded: Tensor, tokens: Tensor) -> Tensor:
        return self.encoder.layered(embedded, tokens == sentence.PADDING)

    def pooled(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        return sentence.mean_of_words(hidden, tokens == sentence.PADDING)


class ProjectedTower(TextTower):
    """A tower whose normalised embedding goes through a linear layer into the space that it shares with images."""

    def __init__(self, tower: TextTower, projection: Tensor) -> None:
        """`projection` is (D, the tower's own D)."""
        super().__init__(tower.tokens, tower.width, len(projection), tower.longest)
        self.tower = tower
        self.projection = nn.Parameter(projection)
        self.frozen()

    def embedded(self, tokens: Tensor) -> Tensor:
        return self.tower.embedded(tokens)

    def hidden(self, embedded: Tensor, tokens: Tensor) -> Tensor:
        return self.tower.hidden(embedded, tokens)

    def pooled(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        return F.normalize(self.tower.pooled(hidden, tokens), dim=-1) @ self.projection.T


def text_tower(model: Any, tokenizer: Tokenizer) -> TextTower:
    """The tower of a sentence encoder or of an open_clip model."""
    if isinstance(model, sentence.SentenceEncoder):
        return SentenceTower(model, tokenizer)
    return OpenClipTower(model, tokenizer)
