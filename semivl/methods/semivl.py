"""SemiVL: semi-supervised segmentation with vision-language guidance (Hoyer et al., ECCV 2024; spec 1.4 to 1.6).

A step learns from labelled images, and from unlabelled ones in three disguises: two strong views with CutMix and
one perturbation of features. Their targets are the student's own confident predictions on the weak view and,
with a weight that decays to zero, the labels of the frozen vision-language model.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from semivl.config import Classes, Record
from semivl.data.stream import Batches, Unlabelled
from semivl.methods import Losses, as_float
from semivl.methods.parts.guidance import Guidance
from semivl.methods.parts.losses import (
    PseudoLabels,
    agreement,
    confident_share,
    consistency_loss,
    guidance_loss,
    pseudo_labels,
    supervised_loss,
)
from semivl.methods.parts.views import cutmix_boxes, mixed, mixed_labels, strong_view
from semivl.nets.decoder import DecoderShape
from semivl.nets.segmenter import Segmenter, joined, part, perturbed
from semivl.nets.vlm import DenseVLM


class GuidanceSettings(Record):
    """Dense guidance by the frozen vision-language model."""

    weight: float = Field(0.1, ge=0, description="weight at the start; falls linearly to 0")
    threshold: float = Field(0.9, ge=0, le=1, description="pixels with a lower probability give no label")
    scale: float = Field(100.0, gt=0, description="factor on cosines before the softmax")


class SemiVL:
    """Consistency training of the language-guided model."""

    needs = frozenset({"mask", "tags", "caption", "none"})

    class Settings(Record):
        decoder: DecoderShape = DecoderShape()
        guidance: GuidanceSettings = GuidanceSettings()  # pyright: ignore[reportCallIssue]
        confidence: float = Field(0.95, ge=0, le=1, description="pseudo-labels with less are not learned from")
        dropout: float = Field(0.5, ge=0, lt=1, description="share of channels that feature perturbation drops")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def build(self, classes: Classes, vlm: DenseVLM, training: bool) -> nn.Module:
        model = Segmenter(vlm, self.settings.decoder)
        if training:
            g = self.settings.guidance
            model.add_module("teacher", Guidance(vlm, len(classes), g.threshold, g.scale))
        return model

    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        return model(images)

    def training_step(self, model: nn.Module, batches: Batches, progress: float) -> Losses:
        assert isinstance(model, Segmenter)
        labelled, unlabelled, partner = batches.labelled, batches.unlabelled, batches.partner
        assert unlabelled is not None and partner is not None
        weak, weak_partner = as_float(unlabelled.images), as_float(partner.images)
        believed_partner = self._believed(model, weak_partner, partner)
        guidance = self._guidance(model, weak, unlabelled)
        guidance_partner = self._guidance(model, weak_partner, partner)

        size = (weak.shape[-2], weak.shape[-1])
        count = len(labelled.images)
        features = model.encoder(torch.cat([as_float(labelled.images), weak]))
        shaken = perturbed(part(features, count, 2 * count), self.settings.dropout)
        logits = model.decode(joined(features, shaken), size)
        of_labelled, of_weak, of_shaken = logits.split([count, count, count])
        believed = pseudo_labels(of_weak, unlabelled.ignored)

        boxes = [cutmix_boxes(count, size[0], weak.device) for _ in range(2)]
        views = [mixed(strong_view(weak), strong_view(weak_partner), b) for b in boxes]
        of_strong = model(torch.cat(views)).split([count, count])
        targets = [mixed_labels(believed, believed_partner, b) for b in boxes]
        hints = [mixed(guidance, guidance_partner, b) for b in boxes]

        threshold = self.settings.confidence
        supervised = supervised_loss(of_labelled, labelled.masks)
        strong = [consistency_loss(p, t, threshold) for p, t in zip(of_strong, targets, strict=True)]
        feature = consistency_loss(of_shaken, believed, threshold)
        guided = [guidance_loss(p, h) for p, h in zip(of_strong, hints, strict=True)]
        guided_feature = guidance_loss(of_shaken, guidance)
        weight = self.settings.guidance.weight * (1 - progress)
        consistency = 0.25 * strong[0] + 0.25 * strong[1] + 0.5 * feature
        guide = 0.25 * guided[0] + 0.25 * guided[1] + 0.5 * guided_feature
        return {
            "total": (supervised + consistency) / 2 + weight * guide,
            "supervised": supervised,
            "consistency": consistency.detach(),
            "guidance": guide.detach(),
            "confident_share": confident_share(believed, threshold),
            "guidance_agreement": agreement(believed.label, guidance),
        }

    def _believed(self, model: Segmenter, images: Tensor, unlabelled: Unlabelled) -> PseudoLabels:
        with torch.no_grad():
            return pseudo_labels(model(images), unlabelled.ignored)

    def _guidance(self, model: Segmenter, images: Tensor, unlabelled: Unlabelled) -> Tensor:
        teacher = model.get_submodule("teacher")
        return teacher(images, unlabelled.ignored)


METHOD = SemiVL
