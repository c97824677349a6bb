"""Losses per pixel (SemiVL, 3.1; spec 1.5). Masks are int64 (B, H, W) with 255 = ignore."""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from semivl.config import IGNORE


class PseudoLabels(NamedTuple):
    """What a model believes of images that nobody labelled."""

    label: Tensor
    """(B, H, W) int64"""
    confidence: Tensor
    """(B, H, W) in [0, 1]"""
    ignored: Tensor
    """(B, H, W) bool: padding, where there is nothing to believe"""


def supervised_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean cross-entropy over labelled pixels; 0 where none is labelled."""
    total = F.cross_entropy(logits, masks, ignore_index=IGNORE, reduction="sum")
    return total / (masks != IGNORE).sum().clamp(min=1)


def pseudo_labels(logits: Tensor, ignored: Tensor) -> PseudoLabels:
    """Label and confidence of each pixel; no gradient passes."""
    confidence, label = logits.detach().softmax(dim=1).max(dim=1)
    return PseudoLabels(label, confidence, ignored)


def consistency_loss(logits: Tensor, believed: PseudoLabels, threshold: float) -> Tensor:
    """Cross-entropy where the belief is at least `threshold`, over all pixels that are not ignored."""
    each = F.cross_entropy(logits, believed.label, reduction="none")
    counted = (believed.confidence >= threshold) & ~believed.ignored
    return (each * counted).sum() / (~believed.ignored).sum().clamp(min=1)


def guidance_loss(logits: Tensor, guidance: Tensor) -> Tensor:
    """Cross-entropy against the teacher's labels, over all pixels, those it is not sure of included."""
    return F.cross_entropy(logits, guidance, ignore_index=IGNORE, reduction="sum") / guidance.numel()


def confident_share(believed: PseudoLabels, threshold: float) -> Tensor:
    """Share of the pixels that are not ignored whose belief reaches `threshold`."""
    counted = (believed.confidence >= threshold) & ~believed.ignored
    return counted.sum() / (~believed.ignored).sum().clamp(min=1)


def agreement(first: Tensor, second: Tensor) -> Tensor:
    """Share of the pixels where two label maps agree, among those where neither is 255; 0 where there are none."""
    both = (first != IGNORE) & (second != IGNORE)
    return ((first == second) & both).sum() / both.sum().clamp(min=1)
