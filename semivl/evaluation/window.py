"""Prediction of whole photos by a sliding window, in the two modes that SemiVL is scored in (spec semivl.md, 5).

`average_logits` (VOC, COCO, ADE20K): equal windows over the photo, the last of a row shifted back to the border,
logits summed and divided by the number of windows that saw the pixel. `sum_probabilities` (Cityscapes): windows
from the corner on, those at the far border cut short, probabilities summed and not divided.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from semivl.config import EvaluationConfig

Predict = Callable[[Tensor], Tensor]
"""(B, 3, h, w) float in [0, 1] -> (B, N, h, w) logits"""


class Window(NamedTuple):
    """A part of the photo, in pixels."""

    rows: slice
    columns: slice

    def cut(self, image: Tensor) -> Tensor:
        """(C, h, w) of (C, H, W); a view."""
        return image[:, self.rows, self.columns]


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where the windows along one side begin: they cover it whole, and none reaches over the border."""
    last = max(length - window, 0)
    return [min(place, last) for place in range(0, last + stride, stride)]


def average_logits(predict: Predict, image: Tensor, classes: int, config: EvaluationConfig) -> Tensor:
    """(N, H, W) float32, the mean of the logits of all windows that see a pixel.

    A photo smaller than the window is one window. A stride larger than the window counts as the window, so
    that no pixel is left out.

    Args:
        image: (3, H, W) float in [0, 1].
    """
    height, width = image.shape[1:]
    rows, columns = min(config.window, height), min(config.window, width)
    stride = min(config.stride, config.window)
    windows = [
        Window(slice(y, y + rows), slice(x, x + columns))
        for y in starts(height, rows, stride)
        for x in starts(width, columns, stride)
    ]
    visits = torch.zeros(height, width)
    for window in windows:
        visits[window.rows, window.columns] += 1
    total = torch.zeros(classes, height, width)
    for window, logits in _predicted(predict, image, windows, config.batch):
        total = total.to(logits.device)
        window.cut(total).add_(logits)
    return total / visits.to(total.device)


def sum_probabilities(predict: Predict, image: Tensor, classes: int, config: EvaluationConfig) -> Tensor:
    """(N, H, W) float32, the sum of the probabilities of all windows that see a pixel; between 0 and their number.

    Args:
        image: (3, H, W) float in [0, 1].
    """
    height, width = image.shape[1:]
    stride = min(config.stride, config.window)
    windows = [
        Window(slice(y, min(y + config.window, height)), slice(x, min(x + config.window, width)))
        for y in range(0, height, stride)
        for x in range(0, width, stride)
    ]
    total = torch.zeros(classes, height, width)
    for window, logits in _predicted(predict, image, windows, config.batch):
        total = total.to(logits.device)
        window.cut(total).add_(logits.softmax(0))
    return total


_MODES = {"average_logits": average_logits, "sum_probabilities": sum_probabilities}


def sliding_scores(predict: Predict, image: Tensor, classes: int, config: EvaluationConfig) -> Tensor:
    """(N, h, w) float32 of the mode, at the size that is predicted: `config.short_side`, else the photo's own."""
    if config.short_side:
        image = _shrink_or_grow(image, config.short_side)
    return _MODES[config.mode](predict, image, classes, config)


def sliding_logits(predict: Predict, image: Tensor, classes: int, config: EvaluationConfig) -> Tensor:
    """(N, H, W) float32 of the mode at the photo's own size, which is also that of its mask; the largest wins."""
    scores = sliding_scores(predict, image, classes, config)
    return _to_size(scores, (image.shape[1], image.shape[2]))


def segment(predict: Predict, image: Tensor, classes: int, config: EvaluationConfig) -> Tensor:
    """(H, W) uint8 class ids: the argmax of `sliding_logits`, one class at a time.

    Where the photo is large and the classes are many, the scores at full size would not fit in memory.
    """
    return best_class(sliding_scores(predict, image, classes, config), (image.shape[1], image.shape[2]))


def best_class(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W) uint8 ids of the largest of (N, h, w) scores at that size; the first of those that are equal."""
    best = _to_size(scores[:1], size)[0]
    mask = torch.zeros(size, dtype=torch.uint8, device=scores.device)
    for index in range(1, len(scores)):
        score = _to_size(scores[index : index + 1], size)[0]
        mask[score > best] = index
        best = torch.maximum(best, score)
    return mask


def _predicted(predict: Predict, image: Tensor, windows: list[Window], batch: int) -> Iterator[tuple[Window, Tensor]]:
    """Every window with its (N, h, w) float32 logits; those of equal shape are predicted together."""
    alike: dict[tuple[int, ...], list[Window]] = {}
    for window in windows:
        alike.setdefault(window.cut(image).shape, []).append(window)
    for group in alike.values():
        for first in range(0, len(group), batch):
            some = group[first : first + batch]
            logits = predict(torch.stack([window.cut(image) for window in some])).float()
            yield from zip(some, logits, strict=True)


def _to_size(scores: Tensor, size: tuple[int, int]) -> Tensor:
    if scores.shape[1:] == size:
        return scores
    return interpolate(scores[None], size, mode="bilinear", align_corners=True)[0]


def _shrink_or_grow(image: Tensor, short_side: int) -> Tensor:
    height, width = image.shape[1:]
    ratio = short_side / min(height, width)
    size = (max(round(height * ratio), 1), max(round(width * ratio), 1))
    return interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[0].clamp(0, 1)
