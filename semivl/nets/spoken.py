"""A dense classifier whose names are spoken through a sentence encoder: `spoken:PATH`, a guide without CLIP.

ConSE (Norouzi et al. 2014) patch by patch: the classifier is applied convolutionally; at each place the embeddings of
its most probable names are averaged with their probabilities as weights, which lands near what it sees also where no
name of its own is a class that is looked for.

    vlm.json             the network by timm's name, how images are fed, how many names are averaged
    encoder.safetensors  its weights, and the embeddings of its names
    text/                the sentence encoder's files

It has no features for a decoder: it guides, and is never a student.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import Classes, Record, VlmConfig
from semivl.errors import ConfigError
from semivl.language.sentence import load_sentence_encoder
from semivl.language.text import class_text, embed
from semivl.nets.aligned import (
    CONFIG_FILE,
    ENCODER_FILE,
    TEXT_FOLDER,
    copy_text,
    fill,
    read,
    text_digest,
    weights,
    write_weights,
)
from semivl.nets.encoder import Features
from semivl.nets.vlm import DenseVLM
from semivl.settings import home

_STRIDE = 32


class SpokenArchitecture(Record):
    """All that it takes to build the encoder before its weights are loaded."""

    network: str
    """timm's name of a convolutional classifier"""
    classes: int
    """names that it tells apart"""
    embedding: int
    """width of the sentence encoder's space"""
    side: int
    """images are resized to about side * side pixels, their aspect kept"""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    top: int = 10
    """names averaged at a place"""


class SpokenEncoder(nn.Module):
    """Images to dense embeddings in a sentence encoder's space, without skip features."""

    names: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, architecture: SpokenArchitecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.network: Any = timm.create_model(a.network, pretrained=False, num_classes=a.classes)
        self.register_buffer("names", torch.zeros(a.classes, a.embedding))
        self.register_buffer("mean", torch.tensor(a.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(a.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Features:
        """Features of images (B, 3, H, W) in [0, 1]: (B, D, h, w) at a 32nd of the size they are resized to."""
        return Features(self._spoken(self._maps(images)), ())

    def whole(self, images: Tensor) -> Tensor:
        """(B, D), L2-normalised: the embeddings of the images as the classifier itself sees them, pooled."""
        return self._spoken(self._maps(images).mean((2, 3), keepdim=True)).flatten(1)

    def _maps(self, images: Tensor) -> Tensor:
        size = _size(images.shape[-2], images.shape[-1], self.architecture.side)
        resized = F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        return self.network.forward_features((resized - self.mean) / self.std)

    def _spoken(self, maps: Tensor) -> Tensor:
        classifier = self.network.get_classifier()
        logits = F.conv2d(maps, classifier.weight[:, :, None, None], classifier.bias)
        return convex(logits.float().softmax(1), self.names, self.architecture.top)


def convex(probabilities: Tensor, names: Tensor, top: int) -> Tensor:
    """(B, D, h, w), L2-normalised: the mean of the `top` likeliest names' (C, D) by their (B, C, h, w)."""
    values, chosen = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
    kept = torch.zeros_like(probabilities).scatter_(1, chosen, values)
    with torch.autocast(kept.device.type, enabled=False):
        return F.normalize(torch.einsum("bchw,cd->bdhw", kept, names), dim=1)


def load_spoken(folder: Path, config: VlmConfig, classes: Classes, _side: int) -> DenseVLM:
    """The folder's encoder, which has an input size of its own, and the class map's embeddings.

    Raises:
        ConfigError: CONF020 a file is missing, CONF021 one cannot be used, CONF022 weights do not fit.
    """
    architecture: SpokenArchitecture = read(folder, SpokenArchitecture)
    encoder = _built(architecture, folder / CONFIG_FILE)
    fill(encoder, weights(folder / ENCODER_FILE), folder / ENCODER_FILE)
    model, tokenizer = load_sentence_encoder(folder / TEXT_FOLDER)
    text = class_text(model, tokenizer, classes, text_digest(folder, config), home() / "cache" / "text")
    if text.names.shape[1] != architecture.embedding:
        what = f"{folder / TEXT_FOLDER} embeds in {text.names.shape[1]} dimensions, not in {architecture.embedding}"
        raise ConfigError("CONF022", f"{what}.", "Make the folder anew.")
    return DenseVLM(encoder.eval(), text)


def outline_spoken(folder: Path) -> tuple[SpokenEncoder, int]:
    """The encoder without its weights, and the width of the text's space.

    Raises:
        ConfigError: CONF020 vlm.json is missing, CONF021 it cannot be used.
    """
    architecture: SpokenArchitecture = read(folder, SpokenArchitecture)
    return SpokenEncoder(architecture), architecture.embedding


def save_spoken(
    folder: Path, architecture: SpokenArchitecture, state: dict[str, Tensor], names: Sequence[str], text: Path
) -> Path:
    """Writes the folder of a classifier with timm's state dict, a name for each of its classes, in their order.

    Args:
        text: folder of the sentence encoder that speaks the names; it is copied.
    """
    encoder = _built(architecture, folder / CONFIG_FILE)
    fill(encoder.network, state, folder / ENCODER_FILE)
    encoder.names.copy_(embed(*load_sentence_encoder(text), names))
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(encoder, folder / ENCODER_FILE)
    copy_text(text, folder / TEXT_FOLDER)
    (folder / CONFIG_FILE).write_text(architecture.model_dump_json(indent=2) + "\n")
    return folder


def _built(architecture: SpokenArchitecture, path: Path) -> SpokenEncoder:
    try:
        encoder = SpokenEncoder(architecture).eval()
        with torch.inference_mode():
            encoder(torch.zeros(1, 3, _STRIDE, _STRIDE))
    except Exception as error:  # timm's networks raise whatever they like on images of another kind
        said = " ".join(str(error).split())[:300]
        remedy = "Name a convolutional classifier of timm with one linear layer at its end, as tf_efficientnet_lite2."
        raise ConfigError("CONF021", f"{path} names a network that cannot be used: {said}.", remedy) from None
    return encoder


def _size(height: int, width: int, side: int) -> tuple[int, int]:
    """The multiples of the network's stride nearest to side * side pixels in this aspect."""
    factor = side / (height * width) ** 0.5 / _STRIDE
    return max(1, round(height * factor)) * _STRIDE, max(1, round(width * factor)) * _STRIDE
