"""Text embeddings of a class map: what dense image features are compared with, made once before training.

Two sets (SemiVL, section 3.4): the plain class names for the decoder, and every definition of every class for
dense guidance, where the best phrase speaks for its class.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from semivl.config import Classes

Tokenizer = Callable[[list[str]], Tensor]
"""texts to (B, context) int64 token ids"""
_CHUNK = 256


class TextEncoder(Protocol):
    """The half of an open_clip model that is used here."""

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor: ...


def class_embeddings(model: TextEncoder, tokenizer: Tokenizer, classes: Classes) -> Tensor:
    """(N, D) float32 embeddings of the class names in the class map's prompt, L2-normalised."""
    return embed(model, tokenizer, [classes.prompt.format(name) for name in classes.names])


def definition_embeddings(model: TextEncoder, tokenizer: Tokenizer, classes: Classes) -> tuple[Tensor, Tensor]:
    """(M, D) float32 embeddings of all definitions, L2-normalised, and (M,) int64 the class of each."""
    phrases = [(i, phrase) for i, c in enumerate(classes.classes) for phrase in c.phrases]
    texts = [classes.prompt.format(phrase) for _, phrase in phrases]
    return embed(model, tokenizer, texts), torch.tensor([i for i, _ in phrases])


@torch.inference_mode()
def embed(model: TextEncoder, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """(B, D) float32 embeddings of the texts, L2-normalised, on the CPU."""
    chunks = [list(texts[i : i + _CHUNK]) for i in range(0, len(texts), _CHUNK)]
    found = torch.cat([model.encode_text(tokenizer(chunk), normalize=True) for chunk in chunks])
    return found.float().cpu().clone()
