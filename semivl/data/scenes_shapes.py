"""Outlines of the eight objects in the demo's scenes, drawn from polygons and ellipses.

The objects come in look-alike pairs that share their colours and textures (cat and fox, duck and hen, car and
truck, mushroom and umbrella): what tells them apart is shape, and the word in the caption. An object stands in
a box of about [-1, 1] x [-1, 1], x to the right (it looks right), y downwards, its foot near y = 1.
"""

from collections.abc import Callable

from numpy.random import Generator

from semivl.data.scenes_animals import cat, duck, fox, hen
from semivl.data.scenes_outline import Part
from semivl.data.scenes_things import car, mushroom, truck, umbrella

SHAPES: dict[str, Callable[[Generator], list[Part]]] = {
    "cat": cat,
    "fox": fox,
    "duck": duck,
    "hen": hen,
    "car": car,
    "truck": truck,
    "mushroom": mushroom,
    "umbrella": umbrella,
}
"""Outline of each object by its class name, look-alikes beside each other."""
