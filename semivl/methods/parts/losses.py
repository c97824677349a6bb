"""Losses per pixel (SemiVL, 3.1; spec 1.5, 1.6). Masks are int64 (B, H, W) with 255 = ignore.

Models give logits in cells of several pixels, and every loss is a weighted sum of the cross-entropy at full
resolution. Logits of that size for all classes are the largest tensors of a training step, so they are made image by
image, shared by all the losses of a prediction, and made again on the way back instead of kept (spec 7.9).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from semivl.config import IGNORE
from semivl.data import ranks

Weighting = Literal["threshold", "pixelavg", "pixelavg_batch", "pixelratio"]


class PseudoLabels(NamedTuple):
    """What a model believes of images that nobody labelled."""

    label: Tensor
    """(B, H, W) int64"""
    confidence: Tensor
    """(B, H, W) in [0, 1]"""
    ignored: Tensor
    """(B, H, W) bool: padding, where there is nothing to believe"""


class Target(NamedTuple):
    """What a prediction is compared with. A loss is the sum over pixels of weight times cross-entropy."""

    labels: Tensor
    """(B, H, W) int64, a class everywhere"""
    weight: Tensor
    """(B, H, W) float32"""


def cross_entropy_sums(cells: Tensor, targets: Sequence[Target]) -> list[Tensor]:
    """The loss of each target for logits in cells (B, N, h, w), scaled bilinearly to the targets' size."""
    labels = torch.stack([t.labels for t in targets], dim=1)
    weights = torch.stack([t.weight for t in targets], dim=1)
    with torch.autocast(cells.device.type, enabled=False):
        each = [
            checkpoint(_image_sums, *one, use_reentrant=False, preserve_rng_state=False)
            for one in zip(cells.float().split(1), labels, weights, strict=True)
        ]
    return list(torch.stack(each).sum(0))  # pyright: ignore[reportArgumentType]


def _image_sums(cells: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """(T,) of one image: cells (1, N, h, w), labels and weights (T, H, W)."""
    logits = _full(cells, labels.shape[1:])[0]
    chosen = logits.gather(0, labels)
    return ((logits.logsumexp(0) - chosen) * weights).sum((1, 2))


def _full(cells: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(cells, size=tuple(size), mode="bilinear", align_corners=False)


@torch.no_grad()
def pseudo_labels(cells: Tensor, ignored: Tensor) -> PseudoLabels:
    """Label and confidence of each pixel, of the size of `ignored`; no gradient passes."""
    found = []
    for one in cells.detach().float().split(1):
        best, label = (logits := _full(one, ignored.shape[1:])).max(dim=1)
        found.append(((best - logits.logsumexp(dim=1)).exp(), label))
    confidence, label = (torch.cat(part) for part in zip(*found, strict=True))
    return PseudoLabels(label, confidence, ignored)


def supervised_target(masks: Tensor) -> Target:
    """Mean cross-entropy over labelled pixels; 0 where none is labelled."""
    labelled = masks != IGNORE
    return Target(masks.where(labelled, 0), labelled / ranks.counted(labelled.sum()))


def consistency_target(believed: PseudoLabels, threshold: float, weighting: Weighting = "threshold") -> Target:
    """How the beliefs are learned from (spec 1.5, 1.6); 0 where every pixel is ignored.

    `threshold`: the pixels that are believed, over the number of those not ignored. The others take every pixel, and
    weigh an image by the mean confidence (`pixelavg`) or the believed share (`pixelratio`) of its pixels not ignored,
    over their number. `pixelavg_batch` gives all images the mean of their weights, times their number: what the
    published code computes, which is `pixelavg` for one image.
    """
    valid = ~believed.ignored
    sure = (believed.confidence >= threshold) & valid
    if weighting == "threshold":
        return Target(believed.label, sure / ranks.counted(valid.sum()))
    count = valid.sum((1, 2)).clamp(min=1)
    worth = sure if weighting == "pixelratio" else believed.confidence * valid
    weight = worth.sum((1, 2)) / count**2
    if weighting == "pixelavg_batch":
        weight = (ranks.mean(weight.mean()) * ranks.world()).expand_as(weight)
    else:
        weight = weight / len(weight)
    return Target(believed.label, weight[:, None, None].expand_as(believed.confidence))


def guidance_target(labels: Tensor) -> Target:
    """Labels of a guide, 255 where it is unsure; the mean goes over all pixels, those included (spec 1.5)."""
    sure = labels != IGNORE
    return Target(labels.where(sure, 0), sure / labels.numel())


def soft_cross_entropy_sum(cells: Tensor, probabilities: Tensor) -> Tensor:
    """Cross-entropy of logits in cells (B, N, h, w) with a guide's probabilities (B, N, H, W), which are 0 where it is
    unsure; the mean goes over all pixels, those included, as that of `guidance_target` does."""
    with torch.autocast(cells.device.type, enabled=False):
        each = [
            checkpoint(_soft_image_sum, *one, use_reentrant=False, preserve_rng_state=False)
            for one in zip(cells.float().split(1), probabilities, strict=True)
        ]
    return torch.stack(each).sum() * probabilities.shape[1] / probabilities.numel()  # pyright: ignore


def _soft_image_sum(cells: Tensor, probabilities: Tensor) -> Tensor:
    """Of one image: cells (1, N, h, w), probabilities (N, H, W)."""
    return -(_full(cells, probabilities.shape[1:])[0].log_softmax(0) * probabilities).sum()


def hardest(hint: Tensor) -> Tensor:
    """(B, H, W) int64 labels of hints: of probabilities the likeliest class, 255 where a guide is unsure."""
    if hint.dim() == 3:
        return hint
    best, label = hint.max(1)
    return label.masked_fill(best == 0, IGNORE)


def confident_share(believed: PseudoLabels, threshold: float) -> Tensor:
    """Share of the pixels that are not ignored whose belief reaches `threshold`."""
    counted = (believed.confidence >= threshold) & ~believed.ignored
    return counted.sum() / ranks.counted((~believed.ignored).sum())


def agreement(first: Tensor, second: Tensor) -> Tensor:
    """Share of the pixels where two label maps agree, among those where neither is 255; 0 where there are none."""
    both = (first != IGNORE) & (second != IGNORE)
    return ((first == second) & both).sum() / ranks.counted(both.sum())
