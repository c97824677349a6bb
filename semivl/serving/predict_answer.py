"""Answers: photos to masks and confidences, by the same few lines for folders of photos and for requests."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from semivl.evaluation.window import sliding_scores

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


def batches_photos(predictor: "Predictor") -> bool:
    """Whether photos of equal size can be predicted together: not where probabilities are summed."""
    return predictor.evaluation.mode == "average_logits"


@torch.inference_mode()
def answers(predictor: "Predictor", photos: Sequence[np.ndarray]) -> list[Answer]:
    """The answer for each of the (H, W, 3) uint8 photos, which are all of one size.

    One photo's mask is `evaluation.scores.predicted_mask`'s. Several at once go through the network together; a float's
    last bit may then fall otherwise than for one alone.
    """
    images = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).float() / 255
    size = (images.shape[2], images.shape[3])
    return [_read_out(scores, size, predictor.evaluation.mode) for scores in _scores(predictor, images)]


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


def _scores(predictor: "Predictor", images: Tensor) -> Tensor:
    """(P, N, h, w) scores of the window's mode for (P, 3, H, W) images.

    The windows of all photos are cut at the same places, so the photos travel as channels of one image.
    """
    count, classes, config = len(images), len(predictor.classes), predictor.evaluation
    if count == 1:
        return sliding_scores(predictor.logits, images[0], classes, config)[None]
    assert batches_photos(predictor), "a softmax over the classes of all photos would mix them"

    def predict(windows: Tensor) -> Tensor:
        logits = predictor.logits(windows.unflatten(1, (count, 3)).flatten(0, 1))
        return logits.unflatten(0, (-1, count)).flatten(1, 2)

    fewer = config.model_copy(update={"batch": max(1, config.batch // count)})
    return sliding_scores(predict, images.flatten(0, 1), count * classes, fewer).unflatten(0, (count, classes))


def _read_out(scores: Tensor, size: tuple[int, int], mode: str) -> Answer:
    """The best class of every pixel, the first where several are, and its probability; a class at a time, as
    all of them at the photo's size may not fit in memory."""
    best = _to_size(scores[0], size)
    mask = torch.zeros(size, dtype=torch.uint8, device=scores.device)
    for index, each in enumerate(scores[1:], start=1):
        score = _to_size(each, size)
        mask[score > best] = index
        best = torch.maximum(best, score)
    total = torch.zeros_like(best)
    for each in scores:
        score = _to_size(each, size)
        total += (score - best).exp() if mode == "average_logits" else score
    probability = 1 / total if mode == "average_logits" else best / total
    return Answer(mask.cpu().numpy(), (255 * probability).round().to(torch.uint8).cpu().numpy())


def _to_size(score: Tensor, size: tuple[int, int]) -> Tensor:
    if score.shape == size:
        return score
    return interpolate(score[None, None], size, mode="bilinear", align_corners=True)[0, 0]
