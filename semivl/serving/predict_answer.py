"""Answers: photos to masks and confidences, by the same few lines for folders of photos and for requests."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from semivl.evaluation import window
from semivl.evaluation.split import as_images

if TYPE_CHECKING:
    from semivl.training.bundle import Predictor


class Answer(NamedTuple):
    """What a model says of one photo, in the orientation in which it is seen."""

    mask: np.ndarray
    """(H, W) uint8 class ids"""
    confidence: np.ndarray
    """(H, W) uint8: the probability of the mask's class, 255 where it is certain"""

    @property
    def mean_confidence(self) -> float:
        """In points, of all pixels."""
        return round(float(self.confidence.mean(dtype=np.float64)) / 2.55, 2)


@torch.inference_mode()
def answers(predictor: "Predictor", photos: Sequence[np.ndarray]) -> list[Answer]:
    """The answer for each of the (H, W, 3) uint8 photos, which are all of one size.

    One photo's mask is `evaluation.scores.predicted_mask`'s. Several at once go through the network together; a float's
    last bit may then fall otherwise than for one alone.
    """
    found = window.answers(predictor.logits, as_images(photos, predictor.device), predictor.evaluation)
    levels = (255 * found.confidence).round().to(torch.uint8).cpu().numpy()
    return [Answer(*pair) for pair in zip(found.mask.cpu().numpy(), levels, strict=True)]


def shares(mask: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Points of the pixels that each class has, of those that are there, in the order of their ids."""
    counts = np.bincount(mask.ravel(), minlength=len(names))
    return {names[i]: round(100 * int(counts[i]) / mask.size, 4) for i in map(int, np.flatnonzero(counts))}


def run_lengths(answer: Answer, names: Sequence[str]) -> dict[str, dict[str, object]]:
    """COCO's compressed run lengths of each class that is there, with its mean probability as score."""
    from pycocotools import mask as runs

    found = {}
    for number in map(int, np.unique(answer.mask)):
        chosen = answer.mask == number
        coded: dict[str, Any] = runs.encode(np.asfortranarray(chosen.astype(np.uint8)))  # pyright: ignore
        score = round(float(answer.confidence[chosen].mean(dtype=np.float64)) / 255, 4)
        found[names[number]] = {"size": coded["size"], "counts": coded["counts"].decode(), "score": score}
    return found


def picture(pixels: np.ndarray, kind: str, **options: int) -> bytes:
    """(H, W) grey or (H, W, 3) colours as a file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()
