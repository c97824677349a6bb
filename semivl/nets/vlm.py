"""A vision-language model, ready for dense use: its image encoder and the embeddings of what to look for."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from semivl.config import Classes, VlmConfig
from semivl.language.text import class_embeddings, definition_embeddings
from semivl.nets.encoder import Architecture, DenseEncoder, Features, from_open_clip
from semivl.nets.open_clip_loading import load_open_clip


@dataclass(frozen=True)
class DenseVLM:
    """An encoder and the text that its dense features are compared with. All text is L2-normalised."""

    encoder: DenseEncoder
    text: Tensor
    """(N, D), the plain class names"""
    phrases: Tensor
    """(M, D), the definitions of all classes, one after the other"""
    phrase_class: Tensor
    """(M,) int64, the class of each phrase"""

    def fresh_encoder(self) -> DenseEncoder:
        """A copy of the encoder, for a student to train or a teacher to freeze."""
        return copy.deepcopy(self.encoder)


def load_vlm(config: VlmConfig, classes: Classes, side: int) -> DenseVLM:
    """The pretrained model that `config` names, its position table resized for images of `side` pixels.

    Raises:
        ConfigError: the model or its weights cannot be loaded (see `load_open_clip`).
    """
    model: Any
    model, tokenizer = load_open_clip(config)
    cells = side // model.visual.patch_size[0]
    encoder = from_open_clip(model.visual, config.gelu, config.skip_blocks, (cells, cells))
    phrases, phrase_class = definition_embeddings(model, tokenizer, classes)
    return DenseVLM(encoder, class_embeddings(model, tokenizer, classes), phrases, phrase_class)


def blank_vlm(architecture: Architecture, classes: int) -> DenseVLM:
    """The same model before its weights are loaded: for a bundle, which brings them along."""
    empty = torch.zeros(classes, architecture.embedding)
    return DenseVLM(DenseEncoder(architecture), empty, empty, torch.arange(classes))


def concept_cosines(features: Features, phrases: Tensor, phrase_class: Tensor, classes: int) -> Tensor:
    """(B, N, h, w): for each class the largest cosine of its phrases (spec 2.6: maximum before the softmax)."""
    cosines = torch.einsum("bdhw,md->bmhw", features.dense, phrases)
    b, _, h, w = cosines.shape
    best = cosines.new_full((b, classes, h, w), -torch.inf)
    return best.scatter_reduce(1, phrase_class.view(1, -1, 1, 1).expand_as(cosines), cosines, reduce="amax")
