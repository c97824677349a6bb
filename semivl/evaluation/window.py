"""Prediction of whole photos by a sliding window whose logits are averaged.

The mode in which SemiVL is scored (arXiv 2311.16241, section 4): equal windows over the photo, the last of a
row shifted back to the border, logits summed and divided by the number of windows that saw the pixel.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from semivl.config import EvaluationConfig

Predict = Callable[[Tensor], Tensor]
"""(B, 3, h, w) float in [0, 1] -> (B, N, h, w) logits"""


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where the windows along one side begin: they cover it whole, and none reaches over the border."""
    last = max(length - window, 0)
    return [min(place, last) for place in range(0, last + stride, stride)]


def average_logits(predict: Predict, image: Tensor, classes: int, config: EvaluationConfig) -> Tensor:
    """(N, h, w) float32 logits at the size that is predicted: `config.short_side`, else the photo's own.

    A photo smaller than the window is one window. A stride larger than the window counts as the window, so
    that no pixel is left out.

    Args:
        image: (3, H, W) float in [0, 1].
    """
    if config.short_side:
        image = _shrink_or_grow(image, config.short_side)
    height, width = image.shape[1:]
    rows, columns = min(config.window, height), min(config.window, width)
    corners = [
        (y, x)
        for y in starts(height, rows, min(config.stride, config.window))
        for x in starts(width, columns, min(config.stride, config.window))
    ]
    total = visits = torch.empty(0)
    for first in range(0, len(corners), config.batch):
        batch = corners[first : first + config.batch]
        logits = predict(torch.stack([image[:, y : y + rows, x : x + columns] for y, x in batch])).float()
        if first == 0:
            total = logits.new_zeros(classes, height, width)
            visits = logits.new_zeros(height, width)
        for (y, x), window in zip(batch, logits, strict=True):
            total[:, y : y + rows, x : x + columns] += window
            visits[y : y + rows, x : x + columns] += 1
    return total / visits


def sliding_logits(predict: Predict, image: Tensor, classes: int, config: EvaluationConfig) -> Tensor:
    """(N, H, W) float32 logits at the photo's own size, which is also that of its mask."""
    logits = average_logits(predict, image, classes, config)
    return _to_size(logits, (image.shape[1], image.shape[2]))


def segment(predict: Predict, image: Tensor, classes: int, config: EvaluationConfig) -> Tensor:
    """(H, W) uint8 class ids: the argmax of `sliding_logits`, one class at a time.

    Where the photo is large and the classes are many, the logits at full size would not fit in memory.
    """
    logits = average_logits(predict, image, classes, config)
    size = (image.shape[1], image.shape[2])
    best = _to_size(logits[:1], size)[0]
    mask = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    for index in range(1, classes):
        score = _to_size(logits[index : index + 1], size)[0]
        mask[score > best] = index
        best = torch.maximum(best, score)
    return mask


def _to_size(logits: Tensor, size: tuple[int, int]) -> Tensor:
    if logits.shape[1:] == size:
        return logits
    return interpolate(logits[None], size, mode="bilinear", align_corners=True)[0]


def _shrink_or_grow(image: Tensor, short_side: int) -> Tensor:
    height, width = image.shape[1:]
    ratio = short_side / min(height, width)
    size = (max(round(height * ratio), 1), max(round(width * ratio), 1))
    return interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[0].clamp(0, 1)
