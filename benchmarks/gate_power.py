"""How often the gate promotes: `python -m benchmarks.gate_power`. A simulation, since only there is the truth known.

The population is 20,000 images and 21 classes: a background in nearly all images, five frequent classes (30 % of the
images), ten less frequent (8 %) and five rare (2 %). Areas are log-normal. The share of a class that a model gets right
in an image is a logistic number: the class' level, how hard the image is and how hard the class is in it (the same for
both models: what pairing makes use of), and what each model adds by itself. In 8 % of its appearances a model misses a
class altogether, and now and then it sees one that is not there. A better or worse model has all its levels shifted
until its mIoU over the whole population differs by exactly so much; where a class is ruined, its IoU is brought down
to a tenth and all else is shifted until the mean is still 2 points better.

Evaluation sets are drawn from the population anew each time. Of the gate the two rules of chance are asked, GATE004 and
GATE005, with conf/gate/better.yaml.
"""

import argparse
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from semivl.config import GateConfig
from semivl.evaluation.paired import Counts, Interval, compared
from semivl.evaluation.scores import Scores
from semivl.registry.gate_exposure import Exposure
from semivl.registry.gate_rules import Case, Side, keeps_classes, leads

PRESENCE = np.array([0.95] + [0.3] * 5 + [0.08] * 10 + [0.02] * 5)
CLASSES = len(PRESENCE)
LEVEL = np.linspace(1.8, -0.4, CLASSES)
IMAGE_SPREAD, CLASS_SPREAD, OWN_SPREAD = 0.6, 0.8, 0.6
MISSED, SEEN_WRONGLY = 0.08, 0.02
FREQUENT, MIDDLING, RARE = 3, 10, 18
LEADS = {"equal": 0.0, "better by 1": 1.0, "better by 2": 2.0, "better by 5": 5.0, "worse by 2": -2.0}
RUINED = {"a frequent class ruined": FREQUENT, "a middling class ruined": MIDDLING, "a rare class ruined": RARE}
POPULATION = 20_000


class World(NamedTuple):
    """What is the same for both models: (P, N) areas in pixels, 0 where absent, and (P, N) logistic levels."""

    area: np.ndarray
    level: np.ndarray


class Chance(NamedTuple):
    """What a model adds by itself: (P, N) levels, whether it misses the class, and pixels that it sees wrongly."""

    level: np.ndarray
    missed: np.ndarray
    wrong: np.ndarray


def world(random: np.random.Generator) -> World:
    shape = POPULATION, CLASSES
    hard = random.normal(0, IMAGE_SPREAD, (POPULATION, 1)) + random.normal(0, CLASS_SPREAD, shape)
    return World(np.exp(random.normal(8, 1, shape)) * (random.random(shape) < PRESENCE), LEVEL + hard)


def chance(random: np.random.Generator) -> Chance:
    shape = POPULATION, CLASSES
    wrong = np.exp(random.normal(6, 1, shape)) * (random.random(shape) < SEEN_WRONGLY)
    return Chance(random.normal(0, OWN_SPREAD, shape), random.random(shape) < MISSED, wrong)


def model(there: World, own: Chance, shift: np.ndarray | float) -> Counts:
    """The pixels of the model whose levels are shifted by so much."""
    share = np.where(own.missed, 0, 1 / (1 + np.exp(-(there.level + own.level + shift))))
    unions = there.area * (1.5 - 0.5 * share)
    return Counts(np.rint(share * unions), np.rint(unions + own.wrong * (there.area == 0)))


def shifted(there: World, own: Chance, champion: Counts, lead: float, ruined: int | None = None) -> Counts:
    """The model whose mIoU over the population leads the champion's by so much, with that class at a tenth."""
    shift, low, high = np.zeros(CLASSES), -4.0, 4.0
    made = champion
    for _ in range(25):
        shift[:] = (low + high) / 2
        made = model(there, own, shift)
        if ruined is not None:
            made.intersections[:, ruined] = np.rint(made.intersections[:, ruined] / 10)
        one, other = compared(made, champion)
        low, high = (shift[0], high) if np.mean(one - other) < lead else (low, shift[0])
    return made


def picked(counts: Counts, images: np.ndarray) -> Counts:
    """The counts of an evaluation set."""
    return Counts(counts.intersections[images], counts.unions[images])


def judged(gate: GateConfig, challenger: Counts, champion: Counts, trial: int) -> tuple[bool, bool, Interval]:
    """Whether the lead is beyond chance, whether every class is kept, and the lead."""
    sides = []
    for version, made in ((2, challenger), (1, champion)):
        scores = Scores.model_construct(
            model_version=version, digest=f"{trial}", iou={f"class {c}": 0.0 for c in range(CLASSES)}
        )
        sides.append(Side(scores, made, Exposure(overlaps=())))
    case = Case(gate=gate, digest=f"{trial}", challenger=sides[0], champion=sides[1])
    lead, classes = leads(case), keeps_classes(case)
    assert lead and classes and case.lead
    return lead.met, classes.met, case.lead


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[400, 400, 300], help="evaluation sets of each size")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200, 1500], help="images")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    random, gate = np.random.default_rng(chosen.seed), GateConfig()  # pyright: ignore[reportCallIssue]
    there, ours, theirs = world(random), chance(random), chance(random)
    champion = model(there, ours, 0.0)
    print(f"champion: {np.mean(compared(champion, champion)[0]):.1f} mIoU", flush=True)
    challengers = {name: shifted(there, theirs, champion, lead) for name, lead in LEADS.items()}
    challengers |= {name: shifted(there, theirs, champion, 2.0, c) for name, c in RUINED.items()}
    promoted = [{"challenger": name} for name in challengers]
    refused = [{"challenger": name} for name in challengers]
    equal = []
    for size, trials in zip(chosen.sizes, chosen.trials, strict=True):
        for place, (name, challenger) in enumerate(challengers.items()):
            begun, found = time.perf_counter(), []
            for trial in range(trials):
                images = random.integers(POPULATION, size=size)
                found.append(judged(gate, picked(challenger, images), picked(champion, images), trial))
            seconds = (time.perf_counter() - begun) / trials
            lead, kept, leads_found = zip(*found, strict=True)
            promoted[place][f"{size} images"] = f"{np.logical_and(lead, kept).mean():.1%}"
            refused[place][f"{size} images"] = f"{1 - np.mean(kept):.1%}"
            if name == "equal":
                equal.append({"images": size, "sets": trials} | spread(leads_found) | {"seconds": f"{seconds:.2f}"})
        print(f"{size} images done", flush=True)
    show("promoted", promoted)
    show("refused since a class fell (GATE005)", refused)
    show("two equal models, and the seconds that a decision took", equal)


def spread(leads: Sequence[Interval]) -> dict[str, str]:
    """How far the measured lead of equal models wavers in points, and how often a bound is on the wrong side."""
    return {
        "deviation of the lead": f"{np.std([one.difference for one in leads]):.2f}",
        "lower bound above 0": f"{np.mean([one.low > 0 for one in leads]):.1%}",
        "upper bound below 0": f"{np.mean([one.high < 0 for one in leads]):.1%}",
    }


def show(title: str, rows: list[dict]) -> None:
    """A table for a document."""
    print(f"\n{title}\n\n| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(str(value) for value in row.values())} |")


if __name__ == "__main__":
    main()
