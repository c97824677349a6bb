"""Prediction of whole photos by a sliding window, in the two modes that SemiVL is scored in (spec semivl.md, 5).

`average_logits` (VOC, COCO, ADE20K): equal windows over the photo, the last of a row shifted back to the border,
logits summed and divided by the number of windows that saw the pixel. `sum_probabilities` (Cityscapes): windows
from the corner on, those at the far border cut short, probabilities summed and not divided.

Photos of one size may be predicted together. What memory that takes does not grow with a photo's height: the scores of
rows that no window still to come will see are handed on and forgotten.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.functional import interpolate

from semivl.config import EvaluationConfig

Predict = Callable[[Tensor], Tensor]
"""(B, 3, h, w) float in [0, 1] -> (B, N, h, w) logits"""
MOST_SCORES = 2**25
"""scores of classes and pixels that are resized to the photo's own size at once: 128 MiB"""


class Window(NamedTuple):
    """A part of the photo, in pixels."""

    rows: slice
    columns: slice

    def cut(self, image: Tensor) -> Tensor:
        """(..., h, w) of (..., H, W); a view."""
        return image[..., self.rows, self.columns]

    @property
    def size(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


class Answer(NamedTuple):
    """What is said of photos, at their own size."""

    mask: Tensor
    """(B, H, W) uint8 class ids"""
    confidence: Tensor
    """(B, H, W) float32: the probability of that class"""


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where the windows along one side begin: they cover it whole, and none reaches over the border."""
    last = max(length - window, 0)
    return [min(place, last) for place in range(0, last + stride, stride)]


def windows(size: tuple[int, int], config: EvaluationConfig) -> list[Window]:
    """The mode's windows over (H, W) pixels, from the top.

    A photo smaller than the window is one window. A stride larger than the window counts as the window, so
    that no pixel is left out.
    """
    stride = min(config.stride, config.window)
    if config.mode == "average_logits":
        sides = [[(s, s + min(config.window, n)) for s in starts(n, min(config.window, n), stride)] for n in size]
    else:
        sides = [[(s, min(s + config.window, n)) for s in range(0, n, stride)] for n in size]
    return [Window(slice(*rows), slice(*columns)) for rows in sides[0] for columns in sides[1]]


def strips(predict: Predict, images: Tensor, config: EvaluationConfig) -> Iterator[Tensor]:
    """The mode's scores (B, N, r, W) float32 of images (B, 3, H, W) in [0, 1], r rows at a time from the top.

    `average_logits`: the mean of the logits of all windows that see a pixel. `sum_probabilities`: the sum of the
    probabilities, between 0 and the number of these windows.
    """
    averages = config.mode == "average_logits"
    height, width = images.shape[-2:]
    chosen = windows((height, width), config)
    batches = list(_batches(chosen, len(images), config.batch))
    visits = _visits(chosen, height, width).to(torch.float32)
    open_rows, top = None, 0
    for i, batch in enumerate(batches):
        logits = predict(torch.stack([window.cut(images[image]) for window, image in batch])).float()
        scores = logits if averages else logits.softmax(1)
        if len(chosen) == 1 and len(batches) == 1:
            yield scores
            return
        if open_rows is None:
            open_rows = scores.new_zeros(len(images), scores.shape[1], 0, width)
        missing = max(window.rows.stop for window, _ in batch) - top - open_rows.shape[2]
        open_rows = F.pad(open_rows, (0, 0, 0, max(missing, 0)))
        for (window, image), score in zip(batch, scores, strict=True):
            open_rows[image, :, window.rows.start - top : window.rows.stop - top, window.columns].add_(score)
        done = min((w.rows.start for later in batches[i + 1 :] for w, _ in later), default=height)
        if done > top:
            ready = open_rows[:, :, : done - top]
            yield ready / visits[top:done].to(ready.device) if averages else ready
            open_rows, top = open_rows[:, :, done - top :], done


def average_logits(predict: Predict, image: Tensor, classes: int, config: EvaluationConfig) -> Tensor:
    """(N, H, W) float32, the mean of the logits of all windows that see a pixel of the image (3, H, W) in [0, 1]."""
    return _whole(predict, image, config.model_copy(update={"mode": "average_logits"}))


def sum_probabilities(predict: Predict, image: Tensor, classes: int, config: EvaluationConfig) -> Tensor:
    """(N, H, W) float32, the sum of the probabilities of all windows that see a pixel; between 0 and their number."""
    return _whole(predict, image, config.model_copy(update={"mode": "sum_probabilities"}))


def sliding_scores(predict: Predict, image: Tensor, classes: int, config: EvaluationConfig) -> Tensor:
    """(N, h, w) float32 of the mode, at the size that is predicted: `config.short_side`, else the photo's own."""
    return _whole(predict, _predicted_at(image[None], config)[0], config)


def sliding_logits(predict: Predict, image: Tensor, classes: int, config: EvaluationConfig) -> Tensor:
    """(N, H, W) float32 of the mode at the photo's own size, which is also that of its mask; the largest wins."""
    scores = sliding_scores(predict, image, classes, config)
    return _to_size(scores[None], (image.shape[1], image.shape[2]))[0]


def segment(predict: Predict, image: Tensor, classes: int, config: EvaluationConfig) -> Tensor:
    """(H, W) uint8 class ids: the argmax of `sliding_logits`, without ever holding all of these for a large photo."""
    return answers(predict, image[None], config).mask[0]


def answers(predict: Predict, images: Tensor, config: EvaluationConfig) -> Answer:
    """The class of every pixel, the argmax of `sliding_logits`, and its probability.

    Probabilities are the softmax of the averaged logits, or the summed probabilities divided by their sum, in either
    case after resizing to the photo's own size.

    Args:
        images: (B, 3, H, W) float in [0, 1]; see `photos_at_once` for how many.
    """
    size = (images.shape[2], images.shape[3])
    logits = config.mode == "average_logits"
    resized = _predicted_at(images, config)
    parts = strips(predict, resized, config)
    if resized.shape == images.shape:
        masks, confidences = zip(*(_largest([scores], logits) for scores in parts), strict=True)
        return Answer(_joined_rows(masks), _joined_rows(confidences))
    found = [_largest(_resized_classes(photo[None], size), logits) for photo in torch.cat(list(parts), 2)]
    return Answer(torch.cat([one.mask for one in found]), torch.cat([one.confidence for one in found]))


def best_class(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W) uint8 ids of the largest of (N, h, w) scores at that size; the first of those that are equal."""
    return _largest(_resized_classes(scores[None], size), True).mask[0]


def _joined_rows(parts: Sequence[Tensor]) -> Tensor:
    """(B, H, W) of its rows."""
    return torch.cat(list(parts), 1) if len(parts) > 1 else parts[0]


def photos_at_once(size: tuple[int, int], config: EvaluationConfig) -> int:
    """How many photos of (H, W) pixels are predicted together: no more than `batch` windows, and no more pixels of
    photos than these windows have, unless it is one."""
    height, width = predicted_size(size, config)
    in_windows = config.batch // len(windows((height, width), config))
    in_pixels = config.batch * config.window**2 // (size[0] * size[1])
    return max(1, min(in_windows, in_pixels))


def predicted_size(size: tuple[int, int], config: EvaluationConfig) -> tuple[int, int]:
    """(h, w) at which a photo of (H, W) is predicted."""
    if not config.short_side:
        return size
    ratio = config.short_side / min(size)
    return max(round(size[0] * ratio), 1), max(round(size[1] * ratio), 1)


def _batches(chosen: list[Window], images: int, batch: int) -> Iterator[list[tuple[Window, int]]]:
    """The windows of all images, those of equal size that follow each other together, at most `batch` at once."""
    for _, alike in groupby(chosen, key=lambda window: window.size):
        group = [(window, image) for window in alike for image in range(images)]
        for first in range(0, len(group), batch):
            yield group[first : first + batch]


def _visits(chosen: list[Window], height: int, width: int) -> Tensor:
    """(H, W) how many windows see each pixel; they lie on a grid, so that rows and columns count apart."""
    down, across = torch.zeros(height, dtype=torch.int32), torch.zeros(width, dtype=torch.int32)
    for start, stop in {(w.rows.start, w.rows.stop) for w in chosen}:
        down[start:stop] += 1
    for start, stop in {(w.columns.start, w.columns.stop) for w in chosen}:
        across[start:stop] += 1
    return down[:, None] * across


def _whole(predict: Predict, image: Tensor, config: EvaluationConfig) -> Tensor:
    return torch.cat(list(strips(predict, image[None], config)), 2)[0]


def _largest(chunks: Iterable[Tensor], logits: bool) -> Answer:
    """The largest of the scores (B, n, H, W), which come some classes at a time, the first of equal ones."""
    found: tuple[Tensor, Tensor, Tensor] | None = None
    first = 0
    for chunk in chunks:
        best = chunk.amax(1)
        mask = torch.zeros_like(best, dtype=torch.uint8)
        # a class after the other is vectorised, as torch.max with indices over an outer dimension is not
        for index in reversed(range(chunk.shape[1])):
            mask.masked_fill_(chunk[:, index] == best, first + index)
        total = (chunk - best[:, None]).exp_().sum(1) if logits else chunk.sum(1)
        first += chunk.shape[1]
        found = (best, mask, total) if found is None else _joined(found, (best, mask, total), logits)
    assert found is not None
    best, mask, total = found
    return Answer(mask, 1 / total if logits else best / total)


def _joined(
    a: tuple[Tensor, Tensor, Tensor], b: tuple[Tensor, Tensor, Tensor], logits: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Largest score, its class and the sum of all (of logits: of exponentials relative to the largest) of two parts."""
    best = torch.maximum(a[0], b[0])
    mask = torch.where(b[0] > a[0], b[1], a[1])
    if not logits:
        return best, mask, a[2] + b[2]
    return best, mask, a[2] * (a[0] - best).exp() + b[2] * (b[0] - best).exp()


def _resized_classes(scores: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """The scores (1, N, h, w) at (H, W), as many classes at a time as MOST_SCORES allows."""
    for chunk in scores.split(max(1, MOST_SCORES // (size[0] * size[1])), 1):
        yield _to_size(chunk, size)


def _to_size(scores: Tensor, size: tuple[int, int]) -> Tensor:
    if scores.shape[2:] == size:
        return scores
    return interpolate(scores, size, mode="bilinear", align_corners=True)


def _predicted_at(images: Tensor, config: EvaluationConfig) -> Tensor:
    """The images (B, 3, H, W), resized where `short_side` asks for it."""
    if not config.short_side:
        return images
    size = predicted_size((images.shape[2], images.shape[3]), config)
    return interpolate(images, size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)
