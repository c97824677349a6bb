"""What a training by captions can expect of them: how many have nouns, which ones, and which classes nobody names."""

from collections import Counter

from semivl.config import ClassDefinition, Classes
from semivl.data.samples import Samples
from semivl.data.tags import BACKGROUND
from semivl.errors import TrainingError
from semivl.language.nouns import nouns

MOST = 20_000
"""captioned images that are read, evenly chosen: nouns take a millisecond a caption"""
SHOWN = 20


def survey(captioned: Samples, classes: Classes, count: int, least: int, left_out: frozenset[str]) -> list[str]:
    """Sentences on the captions' nouns.

    Args:
        count: nouns that a caption needs to be learned from.
        least: images that must have such a caption.
        left_out: lemmas that are no nouns here.

    Raises:
        TrainingError: TRAIN020, too few images have a caption with enough nouns.
    """
    stride = -(-len(captioned) // MOST)
    lines = [(captioned[i].caption or "").splitlines() for i in range(0, len(captioned), stride)]
    found = [[nouns(line, left_out) for line in of_image] for of_image in lines]
    usable = sum(any(len(of_line) >= count for of_line in of_image) for of_image in found)
    if usable * stride < least:
        what = f"{usable * stride} of {len(captioned)} captioned images have a caption with {count} different nouns."
        remedy = f"Add captions that name what can be seen, at least {least}, or lower method.settings.least_captions."
        raise TrainingError("TRAIN020", what, remedy)
    words = [frozenset(w for noun in of_line for w in noun) for of_image in found for of_line in of_image]
    table = Counter(lemma for of_line in found for lemma in {noun.lemma for line in of_line for noun in line})
    told = [
        f"{usable:,} of {len(lines):,} images read have a caption with {count} nouns; the others teach nothing.",
        f"Nouns by images, of {len(table):,}: {', '.join(f'{n} {c:,}' for n, c in table.most_common(SHOWN))}.",
    ]
    unnamed = [c for c in classes.classes if c.name != BACKGROUND and not any(named(c, line) for line in words)]
    return told + [f"Warning: no caption names {c.name} ({', '.join(c.phrases)}): {_WHY}." for c in unnamed]


_WHY = "nothing is learned of it, and it is found as the pretrained model finds it"


def named(definition: ClassDefinition, words: frozenset[str]) -> bool:
    """Whether a caption with these nouns, words and lemmas, names the class: has all nouns of one of its phrases."""
    return any(_parts(phrase) <= words for phrase in (definition.name, *definition.phrases))


def _parts(phrase: str) -> frozenset[str]:
    return frozenset(noun.lemma for noun in nouns(phrase)) or frozenset(phrase.lower().split())
