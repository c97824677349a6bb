"""InfoNCE with a learned temperature, and which pairs of a batch count as negatives (spec code.md, 4 and 8)."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.nets.precision import in_float32

Negatives = Literal["all", "other_nouns", "unmentioned"]
_START, _MOST = 1 / 0.07, 100.0


class Contrast(nn.Module):
    """Each item's own partner against those of the others, both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(_START)))

    def forward(self, cosines: Tensor, negatives: Tensor) -> Tensor:
        """Mean of the two cross-entropies of (M, M) cosines; `negatives` (M, M) bool says which others count."""
        own = torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)
        scale = self.log_scale.exp().clamp(max=_MOST)
        logits = (scale * cosines).masked_fill(~(negatives | own), -torch.inf)
        target = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@in_float32
def cosines(items: Tensor, partners: Tensor) -> Tensor:
    """(M, P) of normalised embeddings (M, D) and (P, D)."""
    return items @ partners.T


def other_items(count: int, device: torch.device) -> Tensor:
    """(M, M) bool: every pair of two items."""
    return ~torch.eye(count, dtype=torch.bool, device=device)


def other_nouns(lemmas: Sequence[str], device: torch.device) -> Tensor:
    """(M, M) bool: the pairs of items with different nouns; a noun is no negative of itself in another image."""
    known = {lemma: i for i, lemma in enumerate(dict.fromkeys(lemmas))}
    ids = torch.tensor([known[lemma] for lemma in lemmas], device=device)
    return ids[:, None] != ids


def unmentioned(lemmas: Sequence[str], mentioned: Sequence[frozenset[str]], device: torch.device) -> Tensor:
    """(M, M) bool: the pairs of an item's image and a noun that the image's caption does not have.

    Args:
        mentioned: for each item the lemmas of all nouns of its caption.
    """
    rows = [[lemma not in had for lemma in lemmas] for had in mentioned]
    return torch.tensor(rows, dtype=torch.bool, device=device)
