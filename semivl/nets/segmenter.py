"""The student: a dense encoder, the class text, and the language-guided decoder in one module."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.errors import ConfigError
from semivl.nets.decoder import DecoderShape, LanguageDecoder
from semivl.nets.dropout import dropped_channels
from semivl.nets.encoder import Features, Trained
from semivl.nets.vlm import DenseVLM


class Segmenter(nn.Module):
    """Images (B, 3, H, W) in [0, 1] to logits (B, N, H, W). The class text is a fixed part of its weights."""

    text: Tensor

    def __init__(self, vlm: DenseVLM, text: Tensor, shape: DecoderShape, trains: Trained = "spatial") -> None:
        """Takes a copy of the encoder; text is (N, D), L2-normalised.

        Raises:
            ConfigError: CONF025, the encoder does not give the two skip features that the decoder needs.
        """
        super().__init__()
        self.encoder = vlm.student()
        self.encoder.train_parts(trains)
        channels = self.encoder.skip_channels
        if len(channels) != 2:
            what = f"the language-guided decoder needs two skip features, and vlm gives {len(channels)}."
            raise ConfigError("CONF025", what, "Set vlm.skip_blocks to two blocks, or to one with vlm.conv_stem.")
        self.canvas = shape.canvas
        self.decoder = LanguageDecoder(shape, text.shape[1], channels)
        self.register_buffer("text", text.clone())

    def features(self, images: Tensor) -> Features:
        """What the decoder reads of the images."""
        return self.encoder(images)

    def cells(self, features: Features) -> Tensor:
        """Logits (B, N, 4h, 4w), for h by w patches."""
        return self.decoder(features, self.text)

    def forward(self, images: Tensor) -> Tensor:
        cells = self.cells(self.features(images)).float()
        if self.canvas:
            cells = F.interpolate(cells, size=(self.canvas, self.canvas), mode="bilinear", align_corners=False)
        return F.interpolate(cells, size=images.shape[-2:], mode="bilinear", align_corners=False)


def perturbed(features: Features, probability: float) -> Features:
    """Features with whole channels dropped, drawn anew for each image and each map (spec 2.7)."""
    dropped = (dropped_channels(f, probability) for f in (features.dense, *features.skips))
    dense, *skips = dropped
    return Features(dense, tuple(skips))


def joined(first: Features, second: Features) -> Features:
    """Two batches of features as one."""
    skips = tuple(torch.cat(pair) for pair in zip(first.skips, second.skips, strict=True))
    return Features(torch.cat([first.dense, second.dense]), skips)


def part(features: Features, start: int, stop: int | None) -> Features:
    """The images `start` to `stop` of a batch of features, to the last without a `stop`."""
    return Features(features.dense[start:stop], tuple(s[start:stop] for s in features.skips))
