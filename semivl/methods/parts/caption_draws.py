"""What a step of method spatial_grouping takes from its captions: of each image one caption and a few of its nouns."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from semivl.language.nouns import NOT_VISUAL, Noun, nouns


class Draws(NamedTuple):
    """The captions of a batch of B images, and M nouns of theirs."""

    captions: list[str]
    """B of them, a line each"""
    nouns: list[Noun]
    owner: Tensor
    """(M,) int64 the image of each noun"""
    counted: Tensor
    """(M, B) bool: images none of whose captions has the noun, and its own"""

    def to(self, device: torch.device) -> "Draws":
        """The same on a device."""
        return self._replace(owner=self.owner.to(device), counted=self.counted.to(device))


def draw(captions: Sequence[str], most: int) -> Draws:
    """One caption of each image, and at most `most` of its nouns that can be seen, by torch's generator.

    Args:
        captions: of each image, its captions as lines.
    """
    lines = [text.splitlines() or [""] for text in captions]
    chosen = [of_image[int(torch.randint(len(of_image), ()))] for of_image in lines]
    found = [nouns(caption, NOT_VISUAL) for caption in chosen]
    picked = [(i, of[j]) for i, of in enumerate(found) for j in torch.randperm(len(of))[:most].tolist()]
    mentioned = [{noun.lemma for line in of_image for noun in nouns(line, NOT_VISUAL)} for of_image in lines]
    counted = [[i == owner or noun.lemma not in had for i, had in enumerate(mentioned)] for owner, noun in picked]
    return Draws(
        chosen,
        [noun for _, noun in picked],
        torch.tensor([owner for owner, _ in picked], dtype=torch.int64),
        torch.tensor(counted, dtype=torch.bool).view(len(picked), len(captions)),
    )


def in_templates(drawn: Sequence[Noun], templates: Sequence[str]) -> list[str]:
    """Each noun in a template of its own, by torch's generator."""
    return [templates[int(torch.randint(len(templates), ()))].format(noun.word) for noun in drawn]
