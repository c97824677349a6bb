"""SemiVL: semi-supervised segmentation with vision-language guidance (Hoyer et al., ECCV 2024; spec 1.4 to 1.6).

A step learns from labelled images, and from unlabelled ones in three disguises: two strong views with CutMix and
one perturbation of features. Their targets are the student's own confident predictions on the weak view and,
with a weight that decays to zero, the labels of a frozen vision-language model.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from semivl.config import IGNORE, Classes, Record
from semivl.data import ranks
from semivl.data.stream import Batches, Unlabelled
from semivl.methods import Guide, Losses, Method, as_float
from semivl.methods.parts.average import NAME, add_average
from semivl.methods.parts.guidance import GuidanceSettings, guidance
from semivl.methods.parts.losses import (
    PseudoLabels,
    Weighting,
    agreement,
    confident_share,
    consistency_target,
    cross_entropy_sums,
    guidance_target,
    hardest,
    pseudo_labels,
    soft_cross_entropy_sum,
    supervised_target,
)
from semivl.methods.parts.tags import allowed_labels, nothing_left, ruled_out
from semivl.methods.parts.views import cutmix_boxes, filled, mixed, mixed_labels, strong_view
from semivl.nets.decoder import DecoderShape
from semivl.nets.encoder import Trained
from semivl.nets.segmenter import Segmenter, joined, part, perturbed
from semivl.nets.vlm import DenseVLM


class SemiVL(Method):
    """Consistency training of the language-guided model."""

    passes = (4, 5)
    needs = frozenset({"mask", "none"})

    class Settings(Record):
        decoder: DecoderShape = DecoderShape()
        trains: Trained = Field("spatial", description="what of the encoder learns; spatial: attention and positions")
        text: Literal["names", "averages"] = Field(
            "names", description="class text of the decoder: the plain names, or the mean of each class's definitions"
        )
        guidance: GuidanceSettings = GuidanceSettings()  # pyright: ignore[reportCallIssue]
        confidence: float = Field(0.95, ge=0, le=1, description="pseudo-labels with less are not learned from")
        weighting: Weighting = Field("threshold", description="what pseudo-labelled pixels weigh (spec 1.6)")
        dropout: float = Field(0.5, ge=0, lt=1, description="share of channels that feature perturbation drops")
        cutmix_partner: Literal["same_image", "reversed"] = Field(
            "same_image", description="boxes are filled from another crop of the photo, or from the reversed batch"
        )
        tags: bool = Field(True, description="what complete tags exclude is neither believed nor hinted at")
        average: bool = Field(False, description="pseudo-labels, and the final model, from a moving average")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.partner = settings.cutmix_partner == "same_image"
        self.takes_guide = settings.guidance.weight > 0

    def build(self, classes: Classes, vlm: DenseVLM, training: bool, guide: Guide | None = None) -> nn.Module:
        text = vlm.required_text("method semivl")
        model = Segmenter(vlm, getattr(text, self.settings.text), self.settings.decoder, self.settings.trains)
        if training and self.settings.average:
            add_average(model)
        if training and guide and self.takes_guide:
            model.add_module("teacher", guidance(guide, self.settings.guidance))
        return model

    def describe(self) -> dict[str, str]:
        s, g = self.settings, self.settings.guidance
        views = "1/4 first strong view + 1/4 second + 1/2 perturbed features"
        chosen = (
            f"own labels, confidence >= {s.confidence}" if s.weighting == "threshold" else f"weighed by {s.weighting}"
        )
        guide = f"{g.form} of the guide, probability >= {g.threshold} at scale {g.scale:g}, by {g.text}"
        return {
            "supervised": "1/2 x cross-entropy of labelled pixels",
            "consistency": f"1/2 x ({views}): {chosen}",
            "guidance": f"{g.weight} falling to 0 x ({views}): {guide}" if g.weight else "none",
        }

    def training_step(self, model: nn.Module, batches: Batches, progress: float) -> Losses:
        assert isinstance(model, Segmenter) and batches.labelled is not None and batches.unlabelled is not None
        labelled, unlabelled = batches.labelled, batches.unlabelled
        partner = batches.partner if self.partner else unlabelled.reversed()
        assert partner is not None
        weak, weak_partner = as_float(unlabelled.images), as_float(partner.images)
        count, side = len(weak), weak.shape[-1]
        boxes = [cutmix_boxes(count, side) for _ in range(2)]
        used = filled(boxes)
        boxes = [b.to(weak.device) for b in boxes]

        features = model.features(torch.cat([as_float(labelled.images), weak]))
        shaken = perturbed(part(features, len(labelled.images), None), self.settings.dropout)
        of_labelled, of_weak, of_shaken = model.cells(joined(features, shaken)).split(
            [len(labelled.images), count, count]
        )
        if NAME in dict(model.named_children()):
            believed = self._believed(model, weak, unlabelled.ignored, self._tags(unlabelled))
        else:
            believed = bounded(of_weak, unlabelled.ignored, self._tags(unlabelled))
        hint = self._hint(model, weak, unlabelled)
        if self.partner:
            believed_partner = self._of_partner(model, weak_partner, partner, used)
            hint_partner = self._hint(model, weak_partner, partner)
        else:
            believed_partner = PseudoLabels(*map(ranks.reversed_whole, believed))
            hint_partner = ranks.reversed_whole(hint)

        views = [mixed(strong_view(weak), strong_view(weak_partner), b) for b in boxes]
        of_strong = model.cells(model.features(torch.cat(views))).split([count, count])
        predictions = (*of_strong, of_shaken)
        beliefs = (*(mixed_labels(believed, believed_partner, b) for b in boxes), believed)
        hints = (*(mixed(hint, hint_partner, b) for b in boxes), hint)

        [supervised] = cross_entropy_sums(of_labelled, [supervised_target(labelled.masks)])
        consistency, guide = torch.zeros_like(supervised), torch.zeros_like(supervised)
        for share, cells, belief, hinted in zip((0.25, 0.25, 0.5), predictions, beliefs, hints, strict=True):
            target = consistency_target(belief, self.settings.confidence, self.settings.weighting)
            if hinted.dim() == 3:
                of_belief, of_hint = cross_entropy_sums(cells, [target, guidance_target(hinted)])
            else:
                [of_belief], of_hint = cross_entropy_sums(cells, [target]), soft_cross_entropy_sum(cells, hinted)
            consistency, guide = consistency + share * of_belief, guide + share * of_hint
        weight = self.settings.guidance.weight * (1 - progress)
        return {
            "total": (supervised + consistency) / 2 + weight * guide,
            "supervised": supervised,
            "consistency": consistency.detach(),
            "guidance": guide.detach(),
            "confident_share": confident_share(believed, self.settings.confidence),
            "guidance_agreement": agreement(believed.label, hardest(hint)),
        }

    def _of_partner(self, model: Segmenter, images: Tensor, partner: Unlabelled, used: Tensor) -> PseudoLabels:
        """Beliefs about the partners that fill a box; the others' are never looked at."""
        none = torch.zeros_like(partner.ignored)
        believed = PseudoLabels(none.long(), none.float(), partner.ignored)
        if len(used):
            tags = self._tags(partner)
            found = self._believed(model, images[used], partner.ignored[used], None if tags is None else tags[used])
            believed.label[used], believed.confidence[used] = found.label, found.confidence
        return believed

    @torch.no_grad()
    def _believed(self, model: Segmenter, images: Tensor, ignored: Tensor, tags: Tensor | None) -> PseudoLabels:
        model.eval()
        source = getattr(model, NAME, model)
        believed = bounded(source.cells(source.features(images)), ignored, tags)
        model.train()
        return believed

    def _hint(self, model: Segmenter, images: Tensor, unlabelled: Unlabelled) -> Tensor:
        """(B, H, W) int64 labels of whoever guides, 255 everywhere where nobody does; or (B, N, H, W) probabilities."""
        if unlabelled.hints is not None and self.takes_guide:
            return allowed_labels(unlabelled.hints, self._tags(unlabelled))
        teacher = model._modules.get("teacher")
        if teacher is None:
            return torch.full_like(unlabelled.ignored, IGNORE, dtype=torch.long)
        return teacher(images, unlabelled.ignored, self._tags(unlabelled))

    def _tags(self, unlabelled: Unlabelled) -> Tensor | None:
        return unlabelled.tags if self.settings.tags else None


def bounded(cells: Tensor, ignored: Tensor, tags: Tensor | None) -> PseudoLabels:
    """Pseudo-labels that the tags allow."""
    return pseudo_labels(ruled_out(cells, tags), nothing_left(tags, ignored))


METHOD = SemiVL
