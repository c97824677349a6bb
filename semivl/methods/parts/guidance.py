"""Dense guidance: the labels that the frozen vision-language model gives by itself (SemiVL, 3.4; spec 2.6)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import IGNORE, Record
from semivl.nets.vlm import DenseVLM, concept_cosines


class GuidanceSettings(Record):
    """Dense guidance by a frozen vision-language model."""

    weight: float = Field(0.1, ge=0, description="weight at the start; falls linearly to 0")
    threshold: float = Field(0.9, ge=0, le=1, description="pixels with a lower probability give no label")
    scale: float = Field(100.0, gt=0, description="factor on cosines before the softmax")
    text: Literal["definitions", "names"] = Field("definitions", description="what stands for a class: the best of its")


class Guidance(nn.Module):
    """A frozen copy of the pretrained encoder that names pixels by the definitions of the classes."""

    phrases: Tensor
    phrase_class: Tensor

    def __init__(self, guide: DenseVLM, settings: GuidanceSettings) -> None:
        super().__init__()
        text = guide.required_text("guidance")
        self.encoder = guide.frozen_encoder()
        self.settings = settings
        self.classes = len(text.names)
        every = settings.text == "definitions"
        self.register_buffer("phrases", (text.phrases if every else text.names).clone())
        self.register_buffer("phrase_class", text.phrase_class.clone() if every else torch.arange(self.classes))

    def train(self, mode: bool = True) -> "Guidance":
        """Stays as it is: what is frozen has no training mode."""
        return super().train(False)

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """(B, N, H, W): softmax over classes of scaled cosines, the best phrase of a class standing for it."""
        cosines = concept_cosines(self.encoder(images), self.phrases, self.phrase_class, self.classes)
        cosines = F.interpolate(cosines, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return (self.settings.scale * cosines).softmax(dim=1)

    @torch.no_grad()
    def forward(self, images: Tensor, ignored: Tensor) -> Tensor:
        """(B, H, W) int64 labels of images in [0, 1]; 255 where unsure or `ignored`."""
        confidence, label = self.probabilities(images).max(dim=1)
        return label.masked_fill((confidence < self.settings.threshold) | ignored, IGNORE)
