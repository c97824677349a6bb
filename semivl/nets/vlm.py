"""A vision-language model, ready for dense use: its image encoder and the embeddings of what to look for."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from semivl.config import Classes, VlmConfig
from semivl.errors import ConfigError
from semivl.language.text import ClassText, class_text, classes_of_phrases, definition_prompts
from semivl.language.tower import TextTower, text_tower
from semivl.nets import open_clip_loading
from semivl.nets.conversion import from_open_clip, from_timm
from semivl.nets.encoder import Architecture, DenseEncoder, Features
from semivl.nets.open_clip_loading import identity, load_open_clip, outline_open_clip
from semivl.nets.timm_loading import PREFIX as TIMM
from semivl.nets.timm_loading import load_timm, outline_timm
from semivl.settings import ROOT, home

ALIGNED, SPOKEN = "aligned:", "spoken:"


@dataclass(frozen=True)
class DenseVLM:
    """An encoder and the text that its dense features are compared with."""

    encoder: nn.Module
    """images (B, 3, H, W) in [0, 1] to `Features`"""
    text: ClassText | None
    """None for an encoder that knows no text"""
    language: TextTower | None = None
    """the text side itself, frozen, for methods that read captions; None unless it was asked for"""
    side: int | None = None
    """in pixels of the images that it was loaded for, in a training its crops; None where nobody said"""

    def student(self) -> DenseEncoder:
        """A copy of the encoder for a method to train.

        Raises:
            ConfigError: CONF019, the encoder can guide but not learn.
        """
        if not isinstance(self.encoder, DenseEncoder):
            what = f"vlm is a {type(self.encoder).__name__}, which can guide a training but not be trained."
            raise ConfigError("CONF019", what, "Set it as guidance.vlm, and a transformer as vlm.")
        return copy.deepcopy(self.encoder)

    def frozen_encoder(self) -> nn.Module:
        """A copy of the encoder for its dense embedding alone, which nothing trains."""
        encoder = copy.deepcopy(self.encoder).requires_grad_(False).eval()
        if isinstance(encoder, DenseEncoder):
            encoder.stem = None
            encoder.architecture = encoder.architecture.model_copy(update={"skip_blocks": (), "conv_stem": False})
        return encoder

    def required_text(self, who: str) -> ClassText:
        """The text.

        Raises:
            ConfigError: CONF018, there is none.
        """
        if self.text is None:
            what = f"{who} compares images with text, and vlm is an encoder without text."
            raise ConfigError("CONF018", what, "Choose a vision-language model, or method unimatch_v2.")
        return self.text

    def required_language(self, who: str) -> TextTower:
        """The text tower.

        Raises:
            ConfigError: CONF040, there is none.
        """
        if self.language is None:
            what = f"{who} reads captions with the text encoder of vlm, which has none that could be used for that."
            remedy = "Choose a vision-language model of open_clip, or an aligned: folder with a text encoder."
            raise ConfigError("CONF040", what, remedy)
        return self.language


def load_vlm(config: VlmConfig, classes: Classes, side: int, language: bool = False) -> DenseVLM:
    """The pretrained model that `config` names, its position table resized for images of `side` pixels.

    Args:
        language: keep the text tower, where there is one, for a method that reads captions.

    Raises:
        ConfigError: the model or its weights cannot be loaded (see `load_open_clip` and `load_timm`); CONF041 its text
            tower cannot be kept.
    """
    return replace(_loaded(config, classes, side, language), side=side)


def _loaded(config: VlmConfig, classes: Classes, side: int, language: bool) -> DenseVLM:
    if config.model.startswith(ALIGNED):
        from semivl.nets.aligned import load_aligned

        return load_aligned(ROOT / config.model.removeprefix(ALIGNED), config, classes, side, language)
    if config.model.startswith(SPOKEN):
        from semivl.nets.spoken import load_spoken

        return load_spoken(ROOT / config.model.removeprefix(SPOKEN), config, classes, side)
    if config.model.startswith(TIMM):
        net = load_timm(config)
        vlm = DenseVLM(from_timm(net, config, patch_grid(net.patch_embed.patch_size, side)), None)
    else:
        model: Any
        model, tokenizer = load_open_clip(config)
        text = class_text(model, tokenizer, classes, identity(config), home() / "cache" / "text")
        encoder = from_open_clip(model.visual, config, patch_grid(model.visual.patch_size, side))
        vlm = DenseVLM(encoder, text, text_tower(model, tokenizer) if language else None)
    if isinstance(vlm.encoder, DenseEncoder) and vlm.encoder.stem:
        vlm.encoder.stem.load_pretrained()
    return vlm


def weights_digest(config: VlmConfig) -> str:
    """SHA-256 of the weights where they are files here; empty where a tag of open_clip or timm stands for them."""
    if config.model.startswith((ALIGNED, SPOKEN)):
        return open_clip_loading.files_digest(ROOT / config.model.partition(":")[2])
    return open_clip_loading.weights_digest(config)


def outline_vlm(config: VlmConfig, classes: Classes, side: int) -> DenseVLM:
    """What `load_vlm` gives, with shapes but without weights, on torch's device `meta`.

    Raises:
        ConfigError: `config` names no model that can be used.
    """
    return replace(_outlined(config, classes, side), side=side)


def _outlined(config: VlmConfig, classes: Classes, side: int) -> DenseVLM:
    with torch.device("meta"):
        if config.model.startswith(ALIGNED):
            from semivl.nets.aligned import outline_aligned

            encoder, embedding = outline_aligned(ROOT / config.model.removeprefix(ALIGNED), config, side)
            return DenseVLM(encoder, _blank_text(classes, embedding) if embedding else None)
        if config.model.startswith(SPOKEN):
            from semivl.nets.spoken import outline_spoken

            encoder, embedding = outline_spoken(ROOT / config.model.removeprefix(SPOKEN))
            return DenseVLM(encoder, _blank_text(classes, embedding))
        if config.model.startswith(TIMM):
            net = outline_timm(config)
            return DenseVLM(from_timm(net, config, patch_grid(net.patch_embed.patch_size, side)), None)
        visual: Any = outline_open_clip(config)
        encoder = from_open_clip(visual, config, patch_grid(visual.patch_size, side))
        return DenseVLM(encoder, _blank_text(classes, visual.output_dim))


def _blank_text(classes: Classes, embedding: int) -> ClassText:
    names, phrases = (torch.zeros(n, embedding) for n in (len(classes), len(definition_prompts(classes))))
    return ClassText(names, names, phrases, classes_of_phrases(classes))


def blank_vlm(architecture: Architecture, classes: int) -> DenseVLM:
    """The same model before its weights are loaded: for a bundle, which brings them along."""
    empty = torch.zeros(classes, architecture.embedding)
    return DenseVLM(DenseEncoder(architecture), ClassText(empty, empty, empty, torch.arange(classes)))


def concept_cosines(features: Features, phrases: Tensor, phrase_class: Tensor, classes: int) -> Tensor:
    """(B, N, h, w): for each class the largest cosine of its phrases (spec 2.6: maximum before the softmax)."""
    with torch.autocast(features.dense.device.type, enabled=False):
        cosines = torch.einsum("bdhw,md->bmhw", features.dense.float(), phrases)
    b, _, h, w = cosines.shape
    best = cosines.new_full((b, classes, h, w), -torch.inf)
    return best.scatter_reduce(1, phrase_class.view(1, -1, 1, 1).expand_as(cosines), cosines, reduce="amax")


def patch_grid(patch: tuple[int, int], side: int) -> tuple[int, int]:
    """Patches in a square of `side` pixels, down and across.

    Raises:
        ConfigError: CONF026, there is not one.
    """
    if side < max(patch):
        what = f"{side} pixels are less than a patch of the encoder, which has {max(patch)}."
        raise ConfigError("CONF026", what, "Set a larger train.crop (or guidance.table_side), or another encoder.")
    return side // patch[0], side // patch[1]
