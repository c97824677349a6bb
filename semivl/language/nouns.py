"""The nouns of a caption: what of it can stand for a region of the image.

Words are tagged in their sentence by HanTa (Wartena 2019), a morphological tagger whose English model ships in its
wheel, with the tags of the British National Corpus: NN0, NN1 and NN2 are common nouns, NP0 proper ones. That is what
NN, NNS, NNP and NNPS are in the Penn tags of NLTK's tagger, which the published code of CoDe takes.
"""

import re
from functools import cache, lru_cache
from typing import Any, NamedTuple

_TAGS = frozenset({"NN0", "NN1", "NN2", "NP0"})
_MODEL = "morphmodel_en.pgz"
_WORD = re.compile(r"\w+(?=n't\b)|n't\b|'\w+|\w+(?:-\w+)*|[^\w\s]")
"""words, compounds with hyphens as one, clitics such as 's and n't apart, and marks"""
_KEPT = 65_536

_EMPTY_WORDS = """
    photo photograph picture image pic snapshot shot view scene background foreground wallpaper stock illustration
    camera lens filter favourite favorite top bottom side front back left right middle center centre edge corner end
    part piece set pair couple number lot bunch group row kind sort type way thing something anything nothing one
    time moment day night noon morning afternoon evening today weekend week month year season spring summer autumn
    winter holiday vacation sunday monday tuesday wednesday thursday friday saturday case fact idea example distance
    direction place area closeup close-up detail angle frame name word reason use purpose color colour style version
    """
NOT_VISUAL = frozenset(_EMPTY_WORDS.split())
"""lemmas of nouns that name no region of an image: the photo itself, places in it, times, quantities"""


class Noun(NamedTuple):
    """A noun as a caption has it."""

    word: str
    """in lower case, otherwise as it is written there"""
    lemma: str
    """its dictionary form, in lower case"""


@lru_cache(maxsize=_KEPT)
def nouns(caption: str, left_out: frozenset[str] = frozenset()) -> tuple[Noun, ...]:
    """The caption's nouns, each word once, in their order.

    Single letters and marks are none, whatever the tagger makes of them.

    Args:
        left_out: lemmas that do not count, such as `NOT_VISUAL`.
    """
    words = _WORD.findall(caption)
    found: dict[str, Noun] = {}
    for word, lemma, tag in _tagger().tag_sent(words) if words else ():
        noun = Noun(word.lower(), lemma.lower())
        if tag in _TAGS and len(word) > 1 and word[0].isalnum() and noun.lemma not in left_out:
            found.setdefault(noun.word, noun)
    return tuple(found.values())


@cache
def _tagger() -> Any:
    """The tagger, read once a process (0.2 seconds)."""
    from HanTa.HanoverTagger import HanoverTagger

    return HanoverTagger(_MODEL)
