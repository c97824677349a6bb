"""What a step takes from its captions: a few nouns of each, and which tokens of the caption they are (spec code.md, 2).

Items are noun-major, as published: the first noun of every caption, then the second of every caption.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from semivl.language.nouns import Noun, nouns
from semivl.language.tower import TextTower

IGNORED = -1
"""label of tokens that the text segmenter learns nothing from"""


class Read(NamedTuple):
    """The captions of a batch, or of a rank's part of it, that have enough nouns."""

    rows: list[int]
    """their places in the batch"""
    captions: list[str]
    """B of them, a line each"""
    nouns: list[tuple[Noun, ...]]
    """all nouns of each"""
    items: list[Noun]
    """N * B chosen ones, noun-major"""
    places: list[int]
    """of the items among those of the whole batch"""

    @property
    def lemmas(self) -> list[str]:
        return [noun.lemma for noun in self.items]

    @property
    def mentioned(self) -> list[frozenset[str]]:
        """For each item the lemmas of all nouns of its caption."""
        of_caption = [frozenset(noun.lemma for noun in found) for found in self.nouns]
        return of_caption * (len(self.items) // max(1, len(self.captions)))

    def of(self, images: slice) -> "Read":
        """What is of some of the batch's images, rows counted from the first of them."""
        kept = [i for i, row in enumerate(self.rows) if images.start <= row < images.stop]
        places = [first + i for first in range(0, len(self.items), max(1, len(self.rows))) for i in kept]
        return Read(
            [self.rows[i] - images.start for i in kept],
            [self.captions[i] for i in kept],
            [self.nouns[i] for i in kept],
            [self.items[place] for place in places],
            places,
        )


def read_captions(captions: Sequence[str], count: int, left_out: frozenset[str]) -> Read:
    """Of each image one of its captions, drawn among those with at least `count` nouns, and `count` of these nouns.

    Draws are made by torch's generator, so that a step's follow from its number.

    Args:
        captions: of each image, its captions as lines.
        left_out: lemmas that are no nouns here.
    """
    read = Read([], [], [], [], [])
    chosen: list[list[Noun]] = []
    for row, text in enumerate(captions):
        usable = [(line, found) for line in text.splitlines() if len(found := nouns(line, left_out)) >= count]
        if not usable:
            continue
        line, found = usable[int(torch.randint(len(usable), ()))]
        read.rows.append(row)
        read.captions.append(line)
        read.nouns.append(found)
        chosen.append([found[i] for i in torch.randperm(len(found))[:count].tolist()])
    read.items.extend(picked[i] for i in range(count) for picked in chosen)
    read.places.extend(range(len(read.items)))
    return read


def token_labels(tower: TextTower, tokens: Tensor, read: Read) -> Tensor:
    """(B, L) int64 labels of the captions' tokens (B, L): 1 to N for the chosen nouns, 0 for other nouns, else -1.

    A noun is where its own tokens follow one another in the caption, every time they do.
    """
    count = len(read.items) // max(1, len(read.captions))
    words = sorted({noun.word for found in read.nouns for noun in found})
    spelled = dict(zip(words, spelling(tower, words), strict=True))
    labels = torch.full(tokens.shape, IGNORED)
    for i, (row, found) in enumerate(zip(tokens.tolist(), read.nouns, strict=True)):
        chosen = read.items[i :: len(read.captions)][:count]
        for label, noun in [*((0, noun) for noun in found), *enumerate(chosen, 1)]:
            part = spelled[noun.word]
            for start in occurrences(row, part):
                labels[i, start : start + len(part)] = label
    return labels.to(tokens.device)


def spelling(tower: TextTower, words: Sequence[str]) -> list[list[int]]:
    """The tokens of each word, without start, end and filling."""
    tokens = tower.tokens(words)
    return [row[spoken].tolist() for row, spoken in zip(tokens, tower.spoken(tokens), strict=True)]


def occurrences(row: Sequence[int], part: Sequence[int]) -> list[int]:
    """Where the tokens of `part` follow one another in `row`; nowhere where there are none."""
    last = len(row) - len(part)
    return [i for i in range(last + 1) if list(row[i : i + len(part)]) == list(part)] if part else []
