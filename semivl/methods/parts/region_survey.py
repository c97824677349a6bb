"""What an adaptation of regions by captions can expect of them: how many have nouns, and which classes none names."""

from semivl.config import Classes
from semivl.data.samples import Samples
from semivl.data.tags import BACKGROUND
from semivl.errors import TrainingError
from semivl.language.nouns import NOT_VISUAL, nouns
from semivl.methods.parts.noun_survey import MOST, named


def survey(captioned: Samples, classes: Classes) -> list[str]:
    """Sentences on the captions; of very many, some evenly chosen are read.

    Raises:
        TrainingError: TRAIN030, no caption has a noun.
    """
    chosen = range(0, len(captioned), -(-len(captioned) // MOST))
    lines = [(captioned[i].caption or "").splitlines() for i in chosen]
    words = [[frozenset(w for noun in nouns(line, NOT_VISUAL) for w in noun) for line in of] for of in lines]
    naming = sum(any(of) for of in words)
    if not naming:
        what = f"not one of the {len(captioned):,} captions has a noun that can be seen."
        raise TrainingError("TRAIN030", what, "Add captions that name what images show, or leave adapt empty.")
    every = {found for of in words for found in of}
    never = [c for c in classes.classes if c.name != BACKGROUND and not any(named(c, found) for found in every)]
    return [
        f"{naming:,} of {len(lines):,} images read have a caption with nouns; the others teach whole images alone.",
        *(f"Warning: no caption names {c.name} ({', '.join(c.phrases)}): no region is learned for it." for c in never),
    ]
