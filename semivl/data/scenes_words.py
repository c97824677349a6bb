"""The words of the demo's scenes: class names, what people call them, backgrounds, and chatter.

conf/classes/scenes.yaml lists the same names and phrases; a test holds the two together.
"""

from numpy.random import Generator

OBJECT_WORDS: dict[str, tuple[str, ...]] = {
    "cat": ("cat", "kitten", "house cat"),
    "fox": ("fox", "vixen", "wild fox"),
    "duck": ("duck", "drake", "mallard"),
    "hen": ("hen", "chicken", "rooster"),
    "car": ("car", "sedan", "hatchback"),
    "truck": ("truck", "lorry", "delivery truck"),
    "mushroom": ("mushroom", "toadstool", "fungus"),
    "umbrella": ("umbrella", "parasol", "brolly"),
}
"""What captions call an object, its class name first."""

BACKGROUND_WORDS: dict[str, tuple[str, ...]] = {
    "grass": ("grass", "meadow", "lawn"),
    "water": ("water", "lake", "pond"),
    "sand": ("sand", "beach", "dune"),
    "street": ("street", "road", "asphalt"),
    "snow": ("snow", "snowfield"),
    "leaves": ("autumn leaves", "forest floor"),
}
"""What captions call the ground, by the name of its texture. All of it is the class `background`."""

SKY_WORDS = ("sky", "horizon")
NAMES: tuple[str, ...] = ("background", *OBJECT_WORDS)
"""The class map of the scenes: a mask's id is the place in this tuple."""

_OPENINGS = (
    "a photo of {}",
    "{}",
    "a picture of {}",
    "my photo of {}",
    "{} seen today",
    "we found {}",
    "look , {}",
)
_CHATTER = (
    "on a sunday afternoon", "with my new camera", "holiday 2019", "near our village", "what a day", "in soft light",
    "shot from the garden gate", "wallpaper", "no filter", "one of my favourites", "before the rain", "at noon",
    "for the family album", "stock image", "a quiet moment", "taken by anna", "close to the station", "late in spring",
)  # fmt: skip
_ADJECTIVES = ("nice", "old", "small", "big", "lovely", "lonely", "funny", "plain", "quiet", "pretty")
_COUNTS = ("zero", "a", "two", "three", "four")


def caption(rng: Generator, objects: list[str], ground: str, sky: bool, mentioned: float, placed: float) -> str:
    """One line that people could have written under the photo.

    Args:
        objects: class names of the objects that can be seen, one for each object, largest first.
        ground: a key of BACKGROUND_WORDS.
        mentioned: share of the objects that are named; at least one of them always is.
        placed: share of the captions that name the ground.
    """
    named = [name for name in objects if rng.random() < mentioned] or objects[:1]
    kinds = list(dict.fromkeys(named))
    rng.shuffle(kinds)
    phrases = [_phrase(rng, kind, named.count(kind)) for kind in kinds]
    text = _pick(rng, _OPENINGS).format(" and ".join(phrases))
    if rng.random() < placed:
        text += f" on the {_pick(rng, BACKGROUND_WORDS[ground])}"
    if sky and rng.random() < 0.6 * placed:
        text += f" under the {_pick(rng, SKY_WORDS)}"
    if rng.random() < 0.5:
        text += f" , {_pick(rng, _CHATTER)}"
    return text


def landscape(rng: Generator, ground: str, sky: bool) -> str:
    """A caption of a photo without objects."""
    text = _pick(rng, _OPENINGS).format(f"the {_pick(rng, BACKGROUND_WORDS[ground])}")
    return f"{text} under the {_pick(rng, SKY_WORDS)}" if sky and rng.random() < 0.8 else text


def _phrase(rng: Generator, kind: str, count: int) -> str:
    words = OBJECT_WORDS[kind]
    noun = words[0] if rng.random() < 0.6 else _pick(rng, words)
    adjective = f"{_pick(rng, _ADJECTIVES)} " if rng.random() < 0.35 else ""
    if count == 1:
        return f"a {adjective}{noun}"
    return f"{_COUNTS[min(count, 4)]} {adjective}{_plural(noun)}"


def _plural(noun: str) -> str:
    irregular = {
        "fox": "foxes",
        "wild fox": "wild foxes",
        "fungus": "fungi",
        "lorry": "lorries",
        "brolly": "brollies",
    }
    return irregular.get(noun, noun + "s")


def _pick(rng: Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]
