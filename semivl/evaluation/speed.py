"""Two models' times side by side: in turns, on the same photos, so that what else the machine does hits both."""

import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from semivl.config import Record
from semivl.evaluation.scores import predicted_mask

if TYPE_CHECKING:
    from semivl.training.bundle import Predictor

PHOTOS = 9
"""photos that are timed: one more or less slow one does not move their median"""


class Speeds(Record):
    """Median milliseconds an image of both models, and the median of the images' ratios."""

    challenger: float
    champion: float
    ratio: float
    """the challenger's time to the champion's"""


def side_by_side(challenger: "Predictor", champion: "Predictor", photos: Sequence[np.ndarray]) -> Speeds:
    """The times of both models on (H, W, 3) uint8 photos, from the decoded photo to its mask; each model warms up."""
    sides = {"challenger": challenger, "champion": champion}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for predictor in sides.values():
        predicted_mask(predictor, photos[0])
    for photo in photos:
        for name, predictor in sides.items():
            begun = time.perf_counter()
            predicted_mask(predictor, photo)
            times[name].append(1000 * (time.perf_counter() - begun))
        sides = dict(reversed(sides.items()))
    ratios = [one / other for one, other in zip(times["challenger"], times["champion"], strict=True)]
    return Speeds(
        challenger=statistics.median(times["challenger"]),
        champion=statistics.median(times["champion"]),
        ratio=statistics.median(ratios),
    )
