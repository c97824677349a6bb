"""What a model says of an image that nobody labelled: the mask that it would draw, how unsure it is, and an embedding.

Unsure is the mean entropy of the pixels in those regions of the image where it is largest. Over all of the image, a
large and easy background would hide the object that the model does not know; of single pixels, the largest are always
those along outlines, which are as unsure in images that the model knows well.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from semivl.errors import LabelError
from semivl.evaluation.window import best_class, sliding_scores
from semivl.methods import as_planes

if TYPE_CHECKING:
    from semivl.training.bundle import Predictor

REGIONS = 8
"""an image is cut into so many regions along each side"""
TOP_SHARE = 0.25
"""of the regions, the most uncertain ones, that an image's uncertainty is the mean of"""
SIDE = 224
"""pixels of the square that an image is embedded at"""


class Said(NamedTuple):
    """What the model says of one photo."""

    mask: np.ndarray
    """(H, W) uint8 class ids, at the photo's size"""
    uncertainty: float
    """0 to 1: entropy of the most uncertain regions, as a share of the largest that there can be"""
    feature: np.ndarray
    """(D,) float32, L2-normalised"""


@torch.inference_mode()
def said(predictor: "Predictor", photo: np.ndarray) -> Said:
    """What the model says of a photo (H, W, 3) uint8.

    Raises:
        LabelError: LABEL003 what it says is no number.
    """
    image = as_planes(photo)
    scores = sliding_scores(predictor.logits, image, len(predictor.classes), predictor.evaluation)
    if not torch.isfinite(scores).all():
        raise LabelError("LABEL003", "the model's output is not finite.", "Choose by another version: --model NAME@1.")
    sums = predictor.evaluation.mode == "sum_probabilities"
    probabilities = F.normalize(scores, p=1, dim=0) if sums else scores.softmax(0)
    mask = best_class(scores, (photo.shape[0], photo.shape[1])).cpu().numpy()
    return Said(mask, uncertainty(probabilities), embedding(predictor, image))


def uncertainty(probabilities: Tensor) -> float:
    """0 to 1, see `Said`, of (N, H, W) probabilities."""
    entropy = torch.special.entr(probabilities).sum(0) / np.log(len(probabilities))
    regions = F.adaptive_avg_pool2d(entropy[None, None], REGIONS).flatten()
    return float(regions.topk(max(1, round(TOP_SHARE * len(regions)))).values.mean().clamp(0, 1))


def embedding(predictor: "Predictor", image: Tensor) -> np.ndarray:
    """(D,) float32, L2-normalised: the mean of the last block's patches, of (3, H, W) in [0, 1] made a square."""
    square = F.interpolate(image[None], (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    [patches] = predictor.encoder.outputs(square.to(predictor.device), [predictor.encoder.architecture.layers - 1])
    return F.normalize(patches.mean((2, 3)), dim=1)[0].float().cpu().numpy()
