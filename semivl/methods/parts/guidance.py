"""Dense guidance: the labels that the frozen vision-language model gives by itself (SemiVL, 3.4; spec 2.6)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import IGNORE
from semivl.nets.vlm import DenseVLM, concept_cosines


class Guidance(nn.Module):
    """A frozen copy of the pretrained encoder that names pixels by the definitions of the classes."""

    phrases: Tensor
    phrase_class: Tensor

    def __init__(self, vlm: DenseVLM, classes: int, threshold: float, scale: float) -> None:
        super().__init__()
        self.encoder = vlm.fresh_encoder().requires_grad_(False)
        self.classes, self.threshold, self.scale = classes, threshold, scale
        self.register_buffer("phrases", vlm.phrases.clone())
        self.register_buffer("phrase_class", vlm.phrase_class.clone())

    def probabilities(self, images: Tensor) -> Tensor:
        """(B, N, H, W): softmax over classes of scaled cosines, the best phrase of a class standing for it."""
        with torch.no_grad():
            cosines = concept_cosines(self.encoder(images), self.phrases, self.phrase_class, self.classes)
            size = images.shape[-2:]
            cosines = F.interpolate(cosines, size=size, mode="bilinear", align_corners=False)
            return (self.scale * cosines).softmax(dim=1)

    def forward(self, images: Tensor, ignored: Tensor) -> Tensor:
        """(B, H, W) int64 labels of images in [0, 1]; 255 where unsure or `ignored`."""
        confidence, label = self.probabilities(images).max(dim=1)
        return label.masked_fill((confidence < self.threshold) | ignored, IGNORE)
