"""CoDe: image-text co-decomposition (Wu et al., CVPR 2024; spec code.md), from images and captions alone.

Of each caption a few nouns are taken. For each, the image segmenter makes a mask of the image and the text segmenter a
share of every token; what they leave of image and caption, the rest filled by learned prompts, is read by the frozen
vision-language model, and region, words and noun are drawn together against those of other items. The frozen model
keeps the nouns where it had them, and priors on area and smoothness keep the masks in shape.
"""

from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import Classes, Record
from semivl.data import ranks
from semivl.data.stream import Batches, Captioned, Pools
from semivl.language.nouns import NOT_VISUAL
from semivl.language.templates import IMAGENET, Template
from semivl.language.tower import TextTower
from semivl.methods import Guide, Losses, Method, as_float
from semivl.methods.parts import contrast, noun_survey, regions
from semivl.methods.parts.caption_nouns import IGNORED, Read, read_captions, token_labels
from semivl.methods.parts.code_model import CoDeModel, InferenceSettings, Learner
from semivl.methods.parts.highlight import hard_masks, highlighted_images, highlighted_words
from semivl.nets.region_segmenter import RegionShape
from semivl.nets.vlm import DenseVLM
from semivl.nets.word_segmenter import WordShape


class Weights(Record):
    """Of the losses; the defaults are those of the released configuration."""

    feature: float = Field(0.1, ge=0, description="features under a mask against nouns")
    image: float = Field(0.1, ge=0, description="highlighted images against nouns")
    word: float = Field(0.5, ge=0, description="highlighted images against highlighted captions")
    tokens: float = Field(1.0, ge=0, description="the caption's tokens sorted to its nouns")
    kept: float = Field(8.0, ge=0, description="nouns in the learned context near their frozen embeddings")
    smooth_features: float = Field(1.0, ge=0, description="total variation of the features")
    smooth_masks: float = Field(1.0, ge=0, description="total variation of the masks")
    positive_area: float = Field(0.5, ge=0, description="area of nouns' masks on their own images")
    negative_area: float = Field(0.05, ge=0, description="area of nouns' masks on other images")


class Apart(NamedTuple):
    """What items are told from, (M, M) bool."""

    items: Tensor
    """items from items"""
    whole: Tensor
    """items' whole images from nouns"""


class CoDecomposition(Method):
    """Masks for any noun, learned from captions."""

    needs = frozenset({"caption"})
    reads_text = True

    class Settings(Method.Settings):
        nouns: int = Field(2, ge=1, description="taken of each caption; captions with fewer teach nothing")
        all_nouns: bool = Field(True, description="also nouns that name no region, such as photo and day, as published")
        least_captions: int = Field(64, ge=1, description="images with a usable caption that a training needs")
        negatives: contrast.Negatives = Field(
            "other_nouns",
            description="what an item is told from: all other items, as published; those with another noun; or, for "
            "whole images, those whose caption lacks the noun",
        )
        context: int = Field(16, ge=1, description="learned vectors before a noun")
        prompt_side: int = Field(224, ge=1, description="side of the learned image that fills what is not highlighted")
        templates: tuple[Template, ...] = Field(
            IMAGENET,
            min_length=1,
            description="the frozen embedding of a noun is that in one of these, drawn anew each time",
        )
        adapted_from: float = Field(0.6, ge=0, le=1, description="share of the training that leaves the last block be")
        area: float = Field(0.25, ge=0, le=1, description="share of an image that a noun is expected to fill")
        weights: Weights = Weights()  # pyright: ignore[reportCallIssue]
        regions: RegionShape = RegionShape()  # pyright: ignore[reportCallIssue]
        words: WordShape = WordShape()  # pyright: ignore[reportCallIssue]
        inference: InferenceSettings = InferenceSettings()  # pyright: ignore[reportCallIssue]

    settings: Settings

    def build(self, classes: Classes, vlm: DenseVLM, training: bool, guide: Guide | None = None) -> nn.Module:
        s = self.settings
        model = CoDeModel(classes, vlm, s.regions, s.inference)
        if training:
            tower = vlm.required_language("method co_decomposition")
            model.learn_with(tower, Learner(tower, s.context, s.words, s.prompt_side))
        return model

    def survey(self, pools: Pools, classes: Classes) -> list[str]:
        s = self.settings
        return noun_survey.survey(pools.captioned, classes, s.nouns, s.least_captions, self._left_out)

    def finish(self, model: nn.Module) -> None:
        assert isinstance(model, CoDeModel)
        model.bake()

    def describe(self) -> dict[str, str]:
        s, w = self.settings, self.settings.weights
        return {
            "feature": f"{w.feature} x InfoNCE of features under a noun's mask and nouns; negatives: {s.negatives}",
            "image": f"{w.image} x InfoNCE of highlighted images and nouns",
            "word": f"{w.word} x InfoNCE of highlighted images and highlighted captions",
            "tokens": f"{w.tokens} x cross-entropy of the captions' nouns",
            "kept": f"{w.kept} x (1 - cosine of nouns in the learned context and frozen)",
            "smooth": f"{w.smooth_features} x total variation of features + {w.smooth_masks} x of masks",
            "area": f"{w.positive_area} x |area - {s.area}| of own masks + {w.negative_area} x area of others'",
        }

    def training_step(self, model: nn.Module, batches: Batches, progress: float) -> Losses:
        assert isinstance(model, CoDeModel) and batches.captioned is not None
        captioned = batches.captioned
        read = read_captions(captioned.captions, self.settings.nouns, self._left_out)
        if not read.rows:
            return {"total": self._nothing(model, progress)}
        own = read.of(ranks.part(len(captioned.images)))
        nouns = model.learner.context(model.teacher, [noun.word for noun in own.items])
        negatives = self._negatives(read, nouns.device)
        found, highlighted = self._of_images(model, captioned, own, self._of_all(nouns), negatives, progress)
        found |= self._of_words(model, own, nouns, highlighted, negatives.items)
        found["kept"] = 1 - ranks.mean_of_all((nouns * self._frozen(model.teacher, read, own)).sum(1))
        w = self.settings.weights
        total = torch.stack([getattr(w, name) * found[name] for name in Weights.model_fields]).sum()
        told = {name: value.detach() for name, value in found.items()}
        return {"total": total, **told, "usable": nouns.new_tensor(len(read.rows) / len(captioned.captions))}

    @property
    def _left_out(self) -> frozenset[str]:
        return frozenset() if self.settings.all_nouns else NOT_VISUAL

    def _of_all(self, items: Tensor) -> Tensor:
        """(M, ...) of the rank's own items: all ranks', since items are told from those of every image of the batch."""
        return regions.of_all_ranks(items, self.settings.nouns)

    def _of_images(
        self, model: CoDeModel, captioned: Captioned, own: Read, nouns: Tensor, negatives: Apart, progress: float
    ) -> tuple[Losses, Tensor]:
        """The losses on masks of the nouns (M, D), and the embeddings (M, D) of the images that they highlight."""
        rows, places = (torch.tensor(of, dtype=torch.int64, device=nouns.device) for of in (own.rows, own.places))
        images, ignored = as_float(captioned.images[rows]), captioned.ignored[rows]
        features = self._features(model, images, progress)
        logits = model.regions.logits(model.regions.cosines(features, nouns))
        valid = F.interpolate((~ignored).float()[:, None], size=logits.shape[-2:], mode="area")
        masks = logits.sigmoid() * valid

        draw = torch.rand(len(nouns), *logits.shape[2:], device=nouns.device)[places]
        kept = hard_masks(regions.own_masks(logits, places), draw)
        kept = kept * regions.own_masks(valid.expand_as(logits), places).round()
        shown = highlighted_images(
            model.encoder, images.repeat(self.settings.nouns, 1, 1, 1), kept, model.learner.image_prompt
        )
        highlighted = self._of_all(model.encoder.whole(shown))
        areas = regions.of_items(ranks.gathered(regions.shares(masks, valid)))
        pooled = regions.of_items(ranks.gathered(regions.pooled_cosines(features, masks, nouns)))
        area = areas.diagonal().mean()
        return {
            "feature": model.learner.feature_contrast(pooled, negatives.whole),
            "image": model.learner.image_contrast(contrast.cosines(highlighted, nouns), negatives.items),
            "smooth_features": regions.total_variation(features),
            "smooth_masks": regions.total_variation(masks),
            "positive_area": (area - self.settings.area).abs(),
            "negative_area": regions.mean_of(areas, negatives.whole),
            "area": area,
        }, highlighted

    def _nothing(self, model: CoDeModel, progress: float) -> Tensor:
        """The loss, 0, of a batch without a usable caption, of all that learns at this point."""
        kept = () if self._adapts(progress) else model.regions.block.parameters()
        left_out = {id(p) for p in kept}
        learning = [p for p in model.parameters() if p.requires_grad and id(p) not in left_out]
        return 0 * torch.stack([p.sum() for p in learning]).sum()

    def _adapts(self, progress: float) -> bool:
        """Whether the copied block learns yet."""
        return progress >= self.settings.adapted_from

    def _features(self, model: CoDeModel, images: Tensor, progress: float) -> Tensor:
        """Dense features; in the first phase the gradient ends before the copied block."""
        with torch.no_grad():
            tokens, grid = model.encoder.before_last(images)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._adapts(progress)):
            backbone = model.regions.backbone(tokens, grid)
        return model.regions.features(backbone)

    def _of_words(self, model: CoDeModel, own: Read, nouns: Tensor, highlighted: Tensor, negatives: Tensor) -> Losses:
        """The losses on the tokens of the own captions, whose nouns are (P, D), and of what all captions highlight
        against what the images do (M, D)."""
        tower, learner, count = model.teacher, model.learner, self.settings.nouns
        tokens = tower.tokens(own.captions)
        spoken = tower.spoken(tokens)
        with torch.no_grad():
            embedded = tower.embedded(tokens)
            hidden = tower.hidden(embedded, tokens)
        logits = learner.words.logits(learner.words.features(hidden, spoken), nouns.unflatten(0, (count, -1)))
        labels = token_labels(tower, tokens, own)
        each = torch.tensor([0.5, *[1.0] * count], device=logits.device)
        shares = logits.softmax(1)[:, 1:].transpose(0, 1).flatten(0, 1)
        kept = highlighted_words(embedded.repeat(count, 1, 1), shares, spoken.repeat(count, 1), learner.text_prompt)
        again = tokens.repeat(count, 1)
        said = self._of_all(F.normalize(tower.pooled(tower.hidden(kept, again), again).float(), dim=-1))
        learned = labels != IGNORED
        weight = (each[labels.clamp(min=0)] * learned).sum()
        wrong = F.cross_entropy(logits, labels, weight=each, ignore_index=IGNORED, reduction="sum")
        return {
            "tokens": wrong / ranks.counted(weight, least=1e-6),
            "word": learner.word_contrast(contrast.cosines(highlighted, said), negatives),
            "words_right": (logits.argmax(1) == labels).sum() / ranks.counted(learned.sum()),
        }

    @torch.no_grad()
    def _frozen(self, tower: TextTower, read: Read, own: Read) -> Tensor:
        """(P, D): the frozen embedding of each own noun in a template drawn for it."""
        templates = self.settings.templates
        drawn = torch.randint(len(templates), (len(read.items),)).tolist()
        said = [templates[i].format(noun.word) for i, noun in zip(drawn, read.items, strict=True)]
        return tower.encode([said[place] for place in own.places])

    def _negatives(self, read: Read, device: torch.device) -> Apart:
        if self.settings.negatives == "all":
            every = contrast.other_items(len(read.items), device)
            return Apart(every, every)
        others = contrast.other_nouns(read.lemmas, device)
        if self.settings.negatives == "other_nouns":
            return Apart(others, others)
        return Apart(others, contrast.unmentioned(read.lemmas, read.mentioned, device))


METHOD = CoDecomposition
