"""The model of CoDe: what it learns, what of that is for training alone, and its scores for the classes of a map.

The frozen encoder and the image segmenter make masks for embeddings of texts. The classes' own embeddings are kept in
the model (`text`), so that a finished one needs no text side. For training alone are `learner`, all that learns beside
the segmenter, and `teacher`, the frozen text tower.
"""

from typing import Literal, cast

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import ClassDefinition, Classes, Record
from semivl.data.tags import BACKGROUND
from semivl.language.templates import ENSEMBLE, Template
from semivl.language.tower import TextTower
from semivl.methods.parts.contrast import Contrast
from semivl.nets.encoder import Block, DenseEncoder
from semivl.nets.learned_context import LearnedContext
from semivl.nets.pamr import DILATIONS, ITERATIONS, pamr
from semivl.nets.region_segmenter import RegionSegmenter, RegionShape
from semivl.nets.vlm import DenseVLM
from semivl.nets.word_segmenter import WordSegmenter, WordShape

LEAST = 1e-6
"""the smallest score, of which there is a logarithm"""


class InferenceSettings(Record):
    """How masks become scores of classes."""

    pamr: int = Field(ITERATIONS, ge=0, description="iterations that refine masks along the image's edges; 0: none")
    dilations: tuple[PositiveInt, ...] = Field(
        DILATIONS, min_length=1, description="of the neighbours that PAMR looks at"
    )
    kept: float = Field(0.3, ge=0, le=1, description="share of the frozen encoder's own masks in the scores")
    kept_scale: float = Field(10.0, gt=0, description="of the frozen encoder's cosines before the sigmoid")
    kept_shift: float = Field(0.25, description="the cosine at which the frozen encoder's mask is 1/2")
    templates: tuple[Template, ...] = Field(
        ENSEMBLE, min_length=1, description="what the frozen encoder's class text is the mean of"
    )
    background: float | None = Field(
        None, ge=0, le=1, description="score of a class named background; 0.4 with PAMR, 0.5 without where empty"
    )
    background_phrases: bool = Field(
        False, description="find a class named background by its definitions, as other classes, not by a constant"
    )
    text: Literal["names", "definitions"] = Field(
        "names", description="what a class is found by: its name, or the best of its definitions"
    )


class Learner(nn.Module):
    """What learns beside the image segmenter."""

    def __init__(self, tower: TextTower, context: int, words: WordShape, prompt_side: int) -> None:
        super().__init__()
        self.context = LearnedContext(tower, context)
        self.words = WordSegmenter(tower, words)
        self.image_prompt = nn.Parameter(torch.zeros(3, prompt_side, prompt_side))
        self.text_prompt = nn.Parameter(torch.zeros(tower.longest, tower.width))
        self.feature_contrast, self.image_contrast, self.word_contrast = Contrast(), Contrast(), Contrast()


class CoDeModel(nn.Module):
    """Images (B, 3, H, W) in [0, 1] to logits (B, N, H, W)."""

    text: Tensor

    def __init__(self, classes: Classes, vlm: DenseVLM, regions: RegionShape, inference: InferenceSettings) -> None:
        super().__init__()
        vlm.student()  # refuses an encoder that cannot learn
        self.encoder = cast(DenseEncoder, vlm.frozen_encoder())
        self.regions = RegionSegmenter(self.encoder, regions)
        self.classes, self.inference = classes, inference
        groups = [searched(c, inference) for c in classes.classes]
        self.phrases = [phrase for group in groups for phrase in group]
        self.counts = [len(group) for group in groups]
        # one tensor (2, P, D): in the learned context, and as the frozen text encoder has it
        self.register_buffer("text", torch.zeros(2, len(self.phrases), self.encoder.architecture.embedding))

    def learn_with(self, tower: TextTower, learner: Learner) -> None:
        """Adds what only a training needs."""
        self.teacher, self.learner = tower, learner

    def bake(self) -> None:
        """Keeps the present embeddings of the classes, so that the text side is needed no more."""
        self.text.copy_(self._text())

    def forward(self, images: Tensor) -> Tensor:
        return self.scores(images).clamp(min=LEAST).log()

    def scores(self, images: Tensor) -> Tensor:
        """(B, N, H, W) in [0, 1]: refined masks mixed with the frozen encoder's own; not a distribution."""
        settings, text = self.inference, self._text()
        tokens, grid = self.encoder.before_last(images)
        features = self.regions.features(self.regions.backbone(tokens, grid))
        masks = self._best(self.regions.logits(self.regions.cosines(features, text[0]))).sigmoid()
        whole = padded(images, self.encoder.architecture.patch)
        if settings.pamr:
            masks = pamr(whole, masks, settings.pamr, settings.dilations)
        if settings.kept:
            dense = self.encoder.dense(cast(Block, self.encoder.blocks[-1]), tokens, grid)
            cosines = self._best(self.regions.cosines(dense, text[1]))
            own = (settings.kept_scale * (cosines - settings.kept_shift)).sigmoid()
            own = F.interpolate(own, size=masks.shape[-2:], mode="bilinear", align_corners=False)
            masks = (1 - settings.kept) * masks + settings.kept * own
        scores = F.interpolate(masks, size=whole.shape[-2:], mode="bilinear", align_corners=False)
        return self._with_background(cropped(scores, images))

    def _best(self, of_phrases: Tensor) -> Tensor:
        """(B, N, h, w) of (B, P, h, w): the best phrase of each class."""
        return torch.stack([group.amax(1) for group in of_phrases.split(self.counts, dim=1)], dim=1)

    def _with_background(self, scores: Tensor) -> Tensor:
        """The scores, a class named background having the constant where it is not searched for."""
        settings = self.inference
        if BACKGROUND not in self.classes.names or settings.background_phrases:
            return scores
        constant = settings.background
        if constant is None:
            constant = 0.4 if settings.pamr else 0.5
        place = self.classes.names.index(BACKGROUND)
        filled = torch.full_like(scores[:, :1], constant)
        return torch.cat([scores[:, :place], filled, scores[:, place + 1 :]], dim=1)

    @torch.no_grad()
    def _text(self) -> Tensor:
        """(2, P, D): the embeddings of what is searched for; while it learns, as they are now."""
        if "learner" not in self._modules:
            return self.text
        templates = self.inference.templates
        read = torch.stack([self.teacher.encode([t.format(p) for p in self.phrases]) for t in templates])
        return torch.stack([self.learner.context.baked(self.teacher, self.phrases), F.normalize(read.mean(0), dim=-1)])


def searched(definition: ClassDefinition, settings: InferenceSettings) -> tuple[str, ...]:
    """The phrases whose masks a class is the best of."""
    by_definitions = settings.background_phrases if definition.name == BACKGROUND else settings.text == "definitions"
    return definition.phrases if by_definitions else (definition.name,)


def padded(images: Tensor, patch: int) -> Tensor:
    """Images filled up to whole patches by going on outside, as the encoder fills them with zeros."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % patch, 0, -height % patch), mode="replicate")


def cropped(maps: Tensor, images: Tensor) -> Tensor:
    """Maps of padded images at the images' own size.

    By places, not as a view: of a view torch.export holds that nothing was cut off, if so it was in its example.
    """
    height, width = (torch.arange(side, device=maps.device) for side in images.shape[-2:])
    return maps.index_select(-2, height).index_select(-1, width)
