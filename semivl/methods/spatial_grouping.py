"""Spatial grouping (SCG): groups of alike patches, each named as a region by a vision-language model (Zhang et al.
2023, arXiv 2304.01114; spec scg.md). The paper's code was never released; docs/spatial-grouping.md says what is its
claim and what a reconstruction.

Without `adapt` nothing is learned: class names are enough. With it the encoder learns from captions to recognise
regions: each noun of a caption is to find a region in its own image and in no other.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from semivl.config import Classes, GroupConfig, Record
from semivl.data import ranks
from semivl.data.stream import Batches, Pools
from semivl.language.templates import ENSEMBLE
from semivl.language.tower import TextTower
from semivl.methods import Guide, ImageMaps, Losses, Method, as_float
from semivl.methods.parts import region_contrast
from semivl.methods.parts.caption_draws import Draws, draw, in_templates
from semivl.methods.parts.class_bank import prompts
from semivl.methods.parts.recogniser import NamingSettings, Recogniser
from semivl.methods.parts.region_survey import survey
from semivl.methods.parts.student import train_last
from semivl.nets.encoder import DenseEncoder
from semivl.nets.learned_context import LearnedContext
from semivl.nets.regions import Reading, RegionSettings
from semivl.nets.vlm import DenseVLM

_MOST_SCALE = 100.0


class AdaptSettings(Record):
    """How the encoder learns to recognise regions from captions (spec 2.4, 2.5)."""

    trains: Literal["last", "spatial", "all"] = Field(
        "last", description="what of the encoder learns: last blocks and projection, attention and positions, or all"
    )
    last: int = Field(2, ge=1, description="how many blocks `last` are")
    nouns: int = Field(4, ge=1, description="nouns of a caption that a step takes at the most")
    templates: tuple[str, ...] = Field(
        ENSEMBLE, min_length=1, description="a noun is read in one of these, drawn each time"
    )
    context: int = Field(
        0, ge=0, description="learned vectors before a noun or class, in place of all templates and prompts; 0: none"
    )
    unit: Literal["image", "region"] = Field(
        "image", description="what a noun chooses among: images, by their pooled regions, or all regions"
    )
    pooling: region_contrast.Pooling = Field("attention", description="unit image: how an image's regions are pooled")
    pooling_temperature: float = Field(0.07, gt=0, description="unit image: of attention and logsumexp")
    temperature: float = Field(0.07, gt=0, description="of the contrasts at the start; it is learned")
    two_way: bool = Field(False, description="also make every region choose a noun, which the paper leaves out")
    noun_weight: float = Field(1.0, ge=0)
    whole_weight: float = Field(1.0, ge=0, description="of whole images against captions")
    distillation: float = Field(0.0, ge=0, description="weight of whole images staying where they were")


class Learner(nn.Module):
    """What is learned for training alone: the scale of cosines, and the context of nouns where there is one."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(temperature).reciprocal().log())
        self.context: LearnedContext | None = None
        self.phrases: Sequence[str] = ()
        """what is read behind the context to find the classes, a phrase for each row of the model's text"""

    @property
    def scale(self) -> Tensor:
        return self.log_scale.exp().clamp(max=_MOST_SCALE)


class Teacher(nn.Module):
    """What is frozen for training alone: the text tower and, to stay near it, the encoder as it was."""

    language: TextTower
    encoder: DenseEncoder | None

    def __init__(self, language: TextTower, encoder: DenseEncoder | None) -> None:
        super().__init__()
        self.language, self.encoder = language, encoder


class SpatialGrouping(Method):
    """Segmentation by naming groups."""

    class Settings(Method.Settings):
        groups: GroupConfig = GroupConfig()  # pyright: ignore[reportCallIssue]
        regions: RegionSettings = RegionSettings()  # pyright: ignore[reportCallIssue]
        naming: NamingSettings = NamingSettings()  # pyright: ignore[reportCallIssue]
        adapt: AdaptSettings | None = Field(None, description="learn from captions; nothing is learned where empty")

    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.needs = frozenset({"caption"} if settings.adapt else ())
        self.reads_text = settings.adapt is not None or bool(settings.naming.templates)

    def build(self, classes: Classes, vlm: DenseVLM, training: bool, guide: Guide | None = None) -> nn.Module:
        s, outlined = self.settings, next(vlm.encoder.parameters()).is_meta
        loaded = training and not outlined
        model = Recogniser(classes, vlm, s.groups, s.regions, s.naming, s.adapt is not None, loaded)
        if s.adapt:
            self._train_parts(model.encoder, s.adapt)
        if s.adapt and training:
            tower = vlm.required_language("method spatial_grouping with adapt")
            before = vlm.student().requires_grad_(False).eval() if s.adapt.distillation else None
            model.teacher = Teacher(tower, before)
            model.learner = Learner(s.adapt.temperature)
            if s.adapt.context:
                model.learner.context = LearnedContext(tower, s.adapt.context)
                model.learner.phrases = prompts(classes, s.naming.text)
            self.finish(model)
        return model

    def finish(self, model: nn.Module) -> None:
        """Keeps the classes' text as the learned context makes it; without one it stays as it is."""
        assert isinstance(model, Recogniser)
        if self.settings.adapt and self.settings.adapt.context:
            learner, teacher = for_training(model)
            assert learner.context
            model.text.copy_(learner.context.baked(teacher.language, learner.phrases))

    def _train_parts(self, encoder: DenseEncoder, adapt: AdaptSettings) -> None:
        if adapt.trains == "last":
            train_last(encoder, adapt.last)
        else:
            encoder.train_parts(adapt.trains)

    def survey(self, pools: Pools, classes: Classes) -> list[str]:
        return survey(pools.captioned, classes) if self.settings.adapt else []

    def image_maps(self, model: nn.Module) -> ImageMaps | None:
        """Groups never change, so each image's are made once."""
        assert isinstance(model, Recogniser)
        device = model.text.device
        return ImageMaps(model.group_key(), lambda image: model.group(image[None].to(device))[0].to(torch.uint8).cpu())

    def training_step(self, model: nn.Module, batches: Batches, progress: float) -> Losses:
        adapt, captioned = self.settings.adapt, batches.captioned
        assert isinstance(model, Recogniser) and adapt and captioned and captioned.maps is not None
        learner, teacher = for_training(model)
        images, drawn = as_float(captioned.images), draw(captioned.captions, adapt.nouns).to(captioned.images.device)
        reading = model.read(images, captioned.maps)
        regions, present, of_photos = map(ranks.gathered, (reading.regions, reading.present, reading.whole))
        nouns = self._nouns_loss(regions, present, drawn, learner, teacher)
        same = torch.tensor([[a == b for b in drawn.captions] for a in drawn.captions], device=images.device)
        captions = embedded(teacher.language.encode, drawn.captions)
        whole = region_contrast.whole_contrast(of_photos, captions, same, learner.scale)
        moved = torch.zeros_like(whole) if teacher.encoder is None else moved_from(teacher.encoder, images, reading)
        return {
            "total": adapt.noun_weight * nouns + adapt.whole_weight * whole + adapt.distillation * moved,
            "nouns": nouns.detach(),
            "whole": whole.detach(),
            "distillation": moved.detach(),
            "scale": learner.scale.detach(),
        }

    def _nouns_loss(self, regions: Tensor, present: Tensor, drawn: Draws, learner: Learner, teacher: Teacher) -> Tensor:
        """The contrast of nouns and regions (B, K, D) that are `present` (B, K); 0 where no caption has a noun."""
        adapt, scale = self.settings.adapt, learner.scale
        assert adapt
        if not drawn.nouns:
            return torch.zeros_like(scale)
        if learner.context:
            nouns = embedded(partial(learner.context, teacher.language), [noun.word for noun in drawn.nouns])
        else:
            nouns = embedded(teacher.language.encode, in_templates(drawn.nouns, adapt.templates))
        owner, counted = drawn.owner, drawn.counted
        if adapt.unit == "image":
            scores = region_contrast.image_scores(regions, present, nouns, adapt.pooling, adapt.pooling_temperature)
            loss = region_contrast.nouns_to_images(scores, owner, counted, scale)
        else:
            loss = region_contrast.nouns_to_regions(regions, present, nouns, owner, counted, scale)
        if not adapt.two_way:
            return loss
        return (loss + region_contrast.regions_to_nouns(regions, present, nouns, owner, counted, scale)) / 2

    def describe(self) -> dict[str, str]:
        """Its losses by name, in words."""
        adapt = self.settings.adapt
        if adapt is None:
            return {"none": "nothing is learned"}
        way = "and regions among nouns, halved" if adapt.two_way else "one way"
        how = f"images by their regions ({adapt.pooling})" if adapt.unit == "image" else "all regions of the batch"
        losses = {
            "nouns": f"{adapt.noun_weight:g} x nouns of captions among {how}, {way}; not among images that have them",
            "whole": f"{adapt.whole_weight:g} x whole images against captions, both ways",
        }
        if adapt.distillation:
            losses["distillation"] = f"{adapt.distillation:g} x (1 - cosine of whole images with where they were)"
        return losses


def for_training(model: Recogniser) -> tuple[Learner, Teacher]:
    """What only a training's model has."""
    learner, teacher = model.get_submodule("learner"), model.get_submodule("teacher")
    assert isinstance(learner, Learner) and isinstance(teacher, Teacher)
    return learner, teacher


def embedded(read: Callable[[Sequence[str]], Tensor], texts: Sequence[str]) -> Tensor:
    """(M, D) float32 embeddings of texts that all ranks ask for, each different one read once, by one of them."""
    every = list(dict.fromkeys(texts))
    rows = ranks.gathered(read(every[ranks.chunk(len(every))]).float())
    return rows[[every.index(text) for text in texts]]


def moved_from(encoder: DenseEncoder, images: Tensor, reading: Reading) -> Tensor:
    """Mean of 1 - cosine between the whole images' embeddings and those of the encoder as it was."""
    with torch.no_grad():
        before = encoder.whole(images)
    return 1 - (reading.whole * before).sum(1).mean()


METHOD = SpatialGrouping
