"""UniMatch V2 (Yang et al., TPAMI 2025), a strong baseline without language (spec 4.3).

A moving average of the student labels the weak view. The student learns from two strong views in one pass, each of
which keeps the channels that the other loses. The decoder is a DPT head on four layers of any encoder.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import IGNORE, Classes, Record
from semivl.data import ranks
from semivl.data.stream import Batches
from semivl.methods import Guide, Losses, Method, as_float
from semivl.methods.parts.average import NAME, add_average
from semivl.methods.parts.losses import (
    PseudoLabels,
    Target,
    confident_share,
    consistency_target,
    cross_entropy_sums,
    pseudo_labels,
    supervised_target,
)
from semivl.methods.parts.student import train_for_outputs
from semivl.methods.parts.views import cutmix_boxes, mixed, mixed_labels, strong_view
from semivl.nets.dpt import DptHead, DptShape, quarter_blocks
from semivl.nets.encoder import Trained
from semivl.nets.vlm import DenseVLM

OHEM_THRESHOLD, OHEM_KEPT = 0.7, 200_000


class UniMatchV2Model(nn.Module):
    """An encoder and a DPT head: images (B, 3, H, W) in [0, 1] to logits (B, N, H, W)."""

    def __init__(self, vlm: DenseVLM, shape: DptShape, classes: int) -> None:
        super().__init__()
        self.encoder = vlm.student()
        self.blocks = quarter_blocks(self.encoder.architecture.layers)
        self.decoder = DptHead(shape, self.encoder.architecture.width, classes)

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Four maps (B, width, h, w) of images in [0, 1], shallow first."""
        # an encoder of fewer than four blocks gives some of them twice
        each = sorted(set(self.blocks))
        found = dict(zip(each, self.encoder.outputs(images, each), strict=True))
        return tuple(found[block] for block in self.blocks)

    def cells(self, features: Sequence[Tensor]) -> Tensor:
        """Logits (B, N, 8h, 8w)."""
        return self.decoder(features)

    def forward(self, images: Tensor) -> Tensor:
        cells = self.cells(self.features(images)).float()
        return F.interpolate(cells, size=images.shape[-2:], mode="bilinear", align_corners=False)


class UniMatchV2(Method):
    """Consistency training with an averaged teacher and complementary dropout."""

    passes = (3, 3)
    needs = frozenset({"mask", "none"})

    class Settings(Record):
        head: DptShape = DptShape()  # pyright: ignore[reportCallIssue]
        trains: Trained = Field("all", description="what of the encoder learns; spatial: attention and positions")
        confidence: float = Field(0.95, ge=0, le=1, description="pseudo-labels with less are not learned from")
        ohem: bool = Field(False, description="learn from the hardest labelled pixels only, as published on Cityscapes")

    def build(self, classes: Classes, vlm: DenseVLM, training: bool, guide: Guide | None = None) -> nn.Module:
        """The student, for training with its average; there is no guidance."""
        model = UniMatchV2Model(vlm, self.settings.head, len(classes))
        train_for_outputs(model.encoder, self.settings.trains)
        if training:
            add_average(model)
        return model

    def describe(self) -> dict[str, str]:
        pixels = "the hardest labelled pixels" if self.settings.ohem else "labelled pixels"
        views = "1/2 first strong view + 1/2 second, complementary channels dropped"
        return {
            "supervised": f"1/2 x cross-entropy of {pixels}",
            "consistency": f"1/2 x ({views}): the average's labels, confidence >= {self.settings.confidence}",
        }

    def training_step(self, model: nn.Module, batches: Batches, progress: float) -> Losses:
        assert isinstance(model, UniMatchV2Model) and batches.labelled is not None and batches.unlabelled is not None
        labelled, unlabelled = batches.labelled, batches.unlabelled
        weak = as_float(unlabelled.images)
        count = len(weak)
        believed = _believed(model, weak, unlabelled.ignored)
        reverse = PseudoLabels(*map(ranks.reversed_whole, believed))

        boxes = [cutmix_boxes(count, weak.shape[-1]).to(weak.device) for _ in range(2)]
        strong = [strong_view(weak) for _ in boxes]
        views = [mixed(s, ranks.reversed_whole(s), b) for s, b in zip(strong, boxes, strict=True)]
        beliefs = [mixed_labels(believed, reverse, b) for b in boxes]

        of_labelled = model.cells(model.features(as_float(labelled.images)))
        features = model.features(torch.cat(views))
        keep = complementary_masks(count, features[0].shape[1], weak.device)
        of_strong = model.cells([f * keep for f in features]).split(count)

        target = ohem_target(of_labelled, labelled.masks) if self.settings.ohem else supervised_target(labelled.masks)
        [supervised] = cross_entropy_sums(of_labelled, [target])
        consistency = torch.zeros_like(supervised)
        for cells, belief in zip(of_strong, beliefs, strict=True):
            [loss] = cross_entropy_sums(cells, [consistency_target(belief, self.settings.confidence)])
            consistency = consistency + loss / 2
        return {
            "total": (supervised + consistency) / 2,
            "supervised": supervised,
            "consistency": consistency.detach(),
            "confident_share": confident_share(believed, self.settings.confidence),
        }


@torch.no_grad()
def _believed(model: UniMatchV2Model, images: Tensor, ignored: Tensor) -> PseudoLabels:
    """The average's labels, in eval mode whatever the student's."""
    teacher = model.get_submodule(NAME).eval()
    assert isinstance(teacher, UniMatchV2Model)
    return pseudo_labels(teacher.cells(teacher.features(images)), ignored)


def complementary_masks(pairs: int, channels: int, device: torch.device) -> Tensor:
    """(2 pairs, C, 1, 1) factors for the maps of first views, then second views: what one loses, the other keeps.

    Kept channels are doubled, dropped with probability 1/2; half of the pairs (rounded down), drawn at random, keep
    all their channels as they are.
    """
    every = pairs * ranks.world()
    whole = 2.0 * torch.randint(2, (every, channels, 1, 1), device=device)
    whole[torch.randperm(every, device=device)[: every // 2]] = 1
    first = whole[ranks.part(pairs)]
    return torch.cat([first, 2 - first])


@torch.no_grad()
def ohem_target(cells: Tensor, masks: Tensor, threshold: float = OHEM_THRESHOLD, kept: int = OHEM_KEPT) -> Target:
    """The mean over the hardest labelled pixels: those whose class has at most `threshold` of the probability.

    Where these are fewer than `kept` in the batch, the `kept` least probable; all where there are no more. The
    published 200,000 are of a batch of 2 to 4 crops on each GPU.

    Args:
        cells: (B, N, h, w) logits at any resolution.
        masks: (B, H, W) int64, 255 = ignore.
    """
    labelled = masks != IGNORE
    labels = masks.where(labelled, 0)
    images = zip(cells.float().split(1), labels.split(1), strict=True)
    probability = torch.cat([_probability(*one) for one in images]).where(labelled, torch.inf)
    count = int(labelled.sum())
    if count:
        threshold = max(threshold, float(probability.flatten().kthvalue(min(kept, count)).values))
    hard = probability <= threshold
    return Target(labels, hard / hard.sum().clamp(min=1))


def _probability(cells: Tensor, labels: Tensor) -> Tensor:
    """(1, H, W): what logits (1, N, h, w) give to labels (1, H, W)."""
    logits = F.interpolate(cells, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return logits.softmax(1).gather(1, labels[:, None])[:, 0]


METHOD = UniMatchV2
