"""The student: a dense encoder, the class text, and the language-guided decoder in one module."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.nets.decoder import DecoderShape, LanguageDecoder
from semivl.nets.encoder import Features
from semivl.nets.vlm import DenseVLM


class Segmenter(nn.Module):
    """Images (B, 3, H, W) in [0, 1] to logits (B, N, H, W). The class text is a fixed part of its weights."""

    text: Tensor

    def __init__(self, vlm: DenseVLM, shape: DecoderShape) -> None:
        super().__init__()
        self.encoder = vlm.fresh_encoder()
        self.encoder.train_spatial_parts_only()
        architecture = self.encoder.architecture
        self.decoder = LanguageDecoder(shape, architecture.embedding, architecture.width)
        self.register_buffer("text", vlm.text.clone())

    def decode(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Logits (B, N, *size) of features."""
        logits = self.decoder(features, self.text)
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        return self.decode(self.encoder(images), (height, width))


def perturbed(features: Features, probability: float) -> Features:
    """Features with whole channels dropped, drawn anew for each image and each map (spec 2.7)."""
    dropped = (F.dropout2d(f, probability) for f in (features.dense, *features.skips))
    dense, *skips = dropped
    return Features(dense, tuple(skips))


def joined(first: Features, second: Features) -> Features:
    """Two batches of features as one."""
    skips = tuple(torch.cat(pair) for pair in zip(first.skips, second.skips, strict=True))
    return Features(torch.cat([first.dense, second.dense]), skips)


def part(features: Features, start: int, stop: int) -> Features:
    """The images `start` to `stop` of a batch of features."""
    return Features(features.dense[start:stop], tuple(s[start:stop] for s in features.skips))
