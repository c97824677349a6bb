"""UniMatch on a vision transformer (Yang et al., CVPR 2023): SemiVL's baseline, without language (spec 1.4, 1.5, 2.8).

The step is SemiVL's less the guidance: two strong views with CutMix and one perturbation of features learn from the
student's own confident predictions on the weak view. The decoder is a DeepLabV3+ head on two maps of the encoder.

The published code decodes perturbed labelled features too and throws them away; here they are not made, so that
BatchNorm's statistics of that pass are of three batches instead of four.
"""

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import Classes, Record
from semivl.data import ranks
from semivl.data.stream import Batches
from semivl.errors import ConfigError
from semivl.methods import Guide, Losses, Method, as_float
from semivl.methods.parts.losses import (
    PseudoLabels,
    confident_share,
    consistency_target,
    cross_entropy_sums,
    pseudo_labels,
    supervised_target,
)
from semivl.methods.parts.student import train_for_outputs
from semivl.methods.parts.views import cutmix_boxes, mixed, mixed_labels, strong_view
from semivl.nets.deeplab import DeepLabHead
from semivl.nets.dropout import dropped_channels
from semivl.nets.encoder import Trained
from semivl.nets.vlm import DenseVLM


class Maps(NamedTuple):
    """What the head reads, both on the patch grid."""

    low: Tensor
    """(B, C1, h, w)"""
    high: Tensor
    """(B, C2, h, w)"""


class UniMatchModel(nn.Module):
    """An encoder and a DeepLabV3+ head: images (B, 3, H, W) in [0, 1] to logits (B, N, H, W)."""

    def __init__(self, vlm: DenseVLM, classes: int, clip: bool) -> None:
        """Takes a copy of the encoder.

        Raises:
            ConfigError: CONF025, CLIP's skip feature is to be read and the encoder gives none.
        """
        super().__init__()
        self.encoder = vlm.student()
        if clip and not self.encoder.skip_channels:
            what = "method unimatch with features clip reads a skip feature, and vlm gives none."
            raise ConfigError("CONF025", what, "Set vlm.skip_blocks, or features to normed.")
        self.encoder.stem = None  # the head reads nothing of it
        self.clip = clip
        a = self.encoder.architecture
        # of twelve blocks the fifth and the last, as spec 2.8 has them
        self.blocks = (a.layers // 3, a.layers - 1)
        low, high = (self.encoder.skip_channels[-1], a.embedding or a.width) if clip else (a.width, a.width)
        self.decoder = DeepLabHead(low, high, classes)

    def features(self, images: Tensor) -> Maps:
        """Maps of images (B, 3, H, W) in [0, 1]: CLIP's deepest skip and dense embedding, or two normed outputs."""
        if self.clip:
            features = self.encoder(images)
            return Maps(features.skips[-1], features.dense)
        return Maps(*self.encoder.outputs(images, self.blocks))

    def cells(self, features: Maps) -> Tensor:
        """Logits (B, N, h, w) on the patch grid."""
        return self.decoder(*features)

    def forward(self, images: Tensor) -> Tensor:
        cells = self.cells(self.features(images)).float()
        return F.interpolate(cells, size=images.shape[-2:], mode="bilinear", align_corners=False)


class UniMatch(Method):
    """Consistency training by image and feature perturbation."""

    passes = (4, 5)
    needs = frozenset({"mask", "none"})

    class Settings(Record):
        features: Literal["normed", "clip"] = Field(
            "normed",
            description="what the head reads: outputs of a low block and the last one after the final norm, or "
            "CLIP's value features of the deepest skip block and its dense embedding",
        )
        trains: Trained = Field("all", description="what of the encoder learns; spatial: attention and positions")
        drop_path: float = Field(0.0, ge=0, lt=1, description="rate of stochastic depth in the last block")
        confidence: float = Field(0.95, ge=0, le=1, description="pseudo-labels with less are not learned from")
        dropout: float = Field(0.5, ge=0, lt=1, description="share of channels that feature perturbation drops")
        cutmix_partner: Literal["same_image", "reversed"] = Field(
            "same_image", description="boxes are filled from another crop of the photo, or from the reversed batch"
        )

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.partner = settings.cutmix_partner == "same_image"

    def build(self, classes: Classes, vlm: DenseVLM, training: bool, guide: Guide | None = None) -> nn.Module:
        s = self.settings
        model = UniMatchModel(vlm, len(classes), s.features == "clip")
        if s.features == "normed":
            train_for_outputs(model.encoder, s.trains)
        else:
            model.encoder.train_parts(s.trains)
        model.encoder.set_drop_path(s.drop_path)
        return model

    def describe(self) -> dict[str, str]:
        views = "1/4 first strong view + 1/4 second + 1/2 perturbed features"
        return {
            "supervised": "1/2 x cross-entropy of labelled pixels",
            "consistency": f"1/2 x ({views}): own labels, confidence >= {self.settings.confidence}",
        }

    def training_step(self, model: nn.Module, batches: Batches, progress: float) -> Losses:
        assert isinstance(model, UniMatchModel) and batches.labelled is not None and batches.unlabelled is not None
        labelled, unlabelled = batches.labelled, batches.unlabelled
        partner = batches.partner if self.partner else unlabelled.reversed()
        assert partner is not None
        weak, weak_partner = as_float(unlabelled.images), as_float(partner.images)
        count = len(weak)

        boxes = [cutmix_boxes(count, weak.shape[-1]).to(weak.device) for _ in range(2)]
        features = model.features(torch.cat([as_float(labelled.images), weak]))
        shaken = Maps(*(torch.cat([m, dropped_channels(m[-count:], self.settings.dropout)]) for m in features))
        of_labelled, of_weak, of_shaken = model.cells(shaken).split([len(labelled.images), count, count])
        believed = pseudo_labels(of_weak, unlabelled.ignored)
        if self.partner:
            believed_partner = _believed_in_eval_mode(model, weak_partner, partner.ignored)
        else:
            believed_partner = PseudoLabels(*map(ranks.reversed_whole, believed))

        views = [mixed(strong_view(weak), strong_view(weak_partner), b) for b in boxes]
        of_strong = model.cells(model.features(torch.cat(views))).split(count)
        beliefs = [mixed_labels(believed, believed_partner, b) for b in boxes]

        [supervised] = cross_entropy_sums(of_labelled, [supervised_target(labelled.masks)])
        consistency = torch.zeros_like(supervised)
        for share, cells, belief in zip((0.25, 0.25, 0.5), (*of_strong, of_shaken), (*beliefs, believed), strict=True):
            [loss] = cross_entropy_sums(cells, [consistency_target(belief, self.settings.confidence)])
            consistency = consistency + share * loss
        return {
            "total": (supervised + consistency) / 2,
            "supervised": supervised,
            "consistency": consistency.detach(),
            "confident_share": confident_share(believed, self.settings.confidence),
        }


@torch.no_grad()
def _believed_in_eval_mode(model: UniMatchModel, images: Tensor, ignored: Tensor) -> PseudoLabels:
    training = model.training
    cells = model.eval().cells(model.features(images))
    model.train(training)
    return pseudo_labels(cells, ignored)


METHOD = UniMatch
