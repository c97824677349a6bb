"""How often the gate promotes: `python -m benchmarks.gate_power`. A simulation, so that the truth is known.

The population: images with 21 classes, of which a background is nearly everywhere, five are frequent (30 % of the
images), ten are less so (8 %) and five are rare (2 %). The areas of a class are log-normal. How well a model does on
an image's class is a logistic number: the class' own level, how hard the image is and how hard the class is there
(both the same for both models, which is what pairing uses), and what each model adds by itself. A model also sees a
class now and then where it is not. The better or worse model is the same with all levels shifted until its mIoU over
the whole population differs by exactly the wanted points; the ruined one is shifted up to +2 in all, with one class lost.
"""

from typing import NamedTuple

import numpy as np

from semivl.evaluation.paired import Counts, compared

PRESENCE = np.array([0.95] + [0.3] * 5 + [0.08] * 10 + [0.02] * 5)
LEVEL = np.linspace(1.6, -0.6, len(PRESENCE))
IMAGE_SPREAD, CLASS_SPREAD, OWN_SPREAD = 0.6, 0.8, 0.6
"""deviations of the logistic level: of the image, of a class in it, of a model in that"""
SEEN_WRONGLY = 0.02
POPULATION = 20_000


class World(NamedTuple):
    """What is the same for both models: (P, N) areas in pixels, 0 where absent, and (P, N) levels."""

    area: np.ndarray
    level: np.ndarray


def world(random: np.random.Generator) -> World:
    shape = POPULATION, len(PRESENCE)
    area = np.exp(random.normal(8, 1, shape)) * (random.random(shape) < PRESENCE)
    hard = random.normal(0, IMAGE_SPREAD, (POPULATION, 1)) + random.normal(0, CLASS_SPREAD, shape)
    return World(area, LEVEL + hard)


def model(random: np.random.Generator, there: World, shift: np.ndarray | float, own: np.ndarray, wrong: np.ndarray) -> Counts:
    """The pixels of a model whose levels are shifted; `own` and `wrong` are its own chance."""
    share = 1 / (1 + np.exp(-(there.level + own + shift)))
    unions = there.area * (1.5 - 0.5 * share)
    false = wrong * (there.area == 0)
    return Counts(np.rint(share * unions), np.rint(unions + false))


def chance(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    shape = POPULATION, len(PRESENCE)
    own = random.normal(0, OWN_SPREAD, shape)
    return own, np.exp(random.normal(6, 1, shape)) * (random.random(shape) < SEEN_WRONGLY)


def lead(challenger: Counts, champion: Counts) -> float:
    one, other = compared(challenger, champion)
    return float(np.nanmean(one) - np.nanmean(other))


def shifted(random, there: World, champion: Counts, own, wrong, wanted: float, ruined: np.ndarray | float = 0.0) -> Counts:
    """The model whose mIoU over the population is `wanted` points above the champion's, found by halving."""
    low, high = -3.0, 3.0
    for _ in range(30):
        middle = (low + high) / 2
        made = model(random, there, middle + ruined, own, wrong)
        low, high = (middle, high) if lead(made, champion) < wanted else (low, middle)
    return made
