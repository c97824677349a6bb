"""What the tags of an image say of the classes: there, not there, or not known."""

import numpy as np
from numpy.typing import NDArray

from semivl.config import Classes
from semivl.data.mask_ids import BACKGROUND as BACKGROUND
from semivl.data.sample import Row

THERE, ABSENT, UNKNOWN = 1, 0, -1


def classes_by_tag(classes: Classes) -> dict[str, int]:
    """The class that each name stands for: the class's own, then its definitions; without regard to case."""
    named: dict[str, int] = {}
    for number, one in enumerate(classes.classes):
        for phrase in one.phrases:
            named.setdefault(phrase.casefold(), number)
    return named | {one.name.casefold(): number for number, one in enumerate(classes.classes)}


class TagReader:
    """Reads tags by a class map."""

    def __init__(self, classes: Classes) -> None:
        self.by_name = classes_by_tag(classes)
        self.names = classes.names

    def read(self, row: Row) -> NDArray[np.int8]:
        """(N,) int8: THERE, ABSENT or UNKNOWN for each class. Nobody tags a background: it is never known.

        What is not tagged is ABSENT where the tags are complete, and UNKNOWN where they are positive-only.
        """
        told = np.full(len(self.names), ABSENT if row.tags_complete else UNKNOWN, np.int8)
        for tag in row.tags:
            number = self.by_name.get(tag.casefold())
            if number is not None:
                told[number] = THERE
        told[[name == BACKGROUND for name in self.names]] = UNKNOWN
        return told
