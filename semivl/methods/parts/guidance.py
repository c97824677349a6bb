"""Dense guidance: what another model says of unlabelled pixels (SemiVL, 3.4; spec 2.6).

The paper's guide is the frozen vision-language model by itself. A finished model of any method may stand in its place,
such as one that learned from captions alone: see `guidance.model` and docs/methods.md.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import IGNORE, Record
from semivl.methods import Guide
from semivl.methods.parts.tags import nothing_left, ruled_out
from semivl.nets.vlm import DenseVLM, concept_cosines


class GuidanceSettings(Record):
    """Dense guidance by a frozen model."""

    weight: float = Field(0.1, ge=0, description="weight at the start; falls linearly to 0")
    threshold: float = Field(0.9, ge=0, le=1, description="pixels with a lower probability give no label")
    scale: float = Field(100.0, gt=0, description="factor on cosines before the softmax")
    text: Literal["definitions", "names"] = Field("definitions", description="what stands for a class: the best of its")
    form: Literal["labels", "probabilities"] = Field(
        "labels", description="what is learned from a confident pixel: its likeliest class, or all its probabilities"
    )


class Guidance(nn.Module):
    """A frozen model that says what pixels show."""

    def __init__(self, settings: GuidanceSettings) -> None:
        super().__init__()
        self.settings = settings

    def train(self, mode: bool = True) -> "Guidance":
        """Stays as it is: what is frozen has no training mode."""
        return super().train(False)

    def logits(self, images: Tensor) -> Tensor:
        """(B, N, h, w) of images (B, 3, H, W) in [0, 1], in cells or pixels."""
        raise NotImplementedError

    @torch.no_grad()
    def probabilities(self, images: Tensor, tags: Tensor | None = None) -> Tensor:
        """(B, N, H, W); 0 for classes that `tags` (B, N) exclude."""
        logits = F.interpolate(self.logits(images), size=images.shape[-2:], mode="bilinear", align_corners=False)
        return ruled_out(logits, tags).softmax(dim=1)

    @torch.no_grad()
    def forward(self, images: Tensor, ignored: Tensor, tags: Tensor | None = None) -> Tensor:
        """What is learned of images in [0, 1], by `form`: (B, H, W) int64 labels, 255 where unsure or `ignored`, or
        (B, N, H, W) probabilities, 0 there; so is all of an image whose `tags` exclude every class."""
        probabilities = self.probabilities(images, tags)
        confidence, label = probabilities.max(dim=1)
        unsure = (confidence < self.settings.threshold) | nothing_left(tags, ignored)
        if self.settings.form == "labels":
            return label.masked_fill(unsure, IGNORE)
        return probabilities.masked_fill(unsure[:, None], 0)


class LanguageGuidance(Guidance):
    """A frozen copy of a vision-language model's encoder that names pixels by the definitions of the classes."""

    phrases: Tensor
    phrase_class: Tensor

    def __init__(self, guide: DenseVLM, settings: GuidanceSettings) -> None:
        super().__init__(settings)
        text = guide.required_text("guidance")
        self.encoder = guide.frozen_encoder()
        self.classes = len(text.names)
        every = settings.text == "definitions"
        self.register_buffer("phrases", (text.phrases if every else text.names).clone())
        self.register_buffer("phrase_class", text.phrase_class.clone() if every else torch.arange(self.classes))

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Scaled cosines, the best phrase of a class standing for it."""
        cosines = concept_cosines(self.encoder(images), self.phrases, self.phrase_class, self.classes)
        return self.settings.scale * cosines


class ModelGuidance(Guidance):
    """A finished model, images (B, 3, H, W) in [0, 1] to logits (B, N, H, W)."""

    def __init__(self, guide: nn.Module, settings: GuidanceSettings) -> None:
        super().__init__(settings)
        self.model = guide.requires_grad_(False)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        return self.model(images).float()


def guidance(guide: Guide, settings: GuidanceSettings) -> Guidance:
    """The guidance that a vision-language model or a finished model gives."""
    return LanguageGuidance(guide, settings) if isinstance(guide, DenseVLM) else ModelGuidance(guide, settings)
