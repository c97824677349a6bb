"""Activation maps: where in a photo each of its tagged classes seems to be (spec transfer.md, 2.3).

Tags are of whole photos, and training sees crops. So a class that is tagged counts in a crop only where the maps'
own source finds it likely there at all; the likeliest of the tagged ones always does, but where nothing speaks for any
of several: which of them a crop shows is not known then.
"""

from typing import Literal, NamedTuple

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from semivl.config import Record
from semivl.methods.parts.guidance import Guidance
from semivl.nets.label_net import LabelNet


class ActivationSettings(Record):
    """Where activation maps come from."""

    source: Literal["classifier", "guide"] = Field(
        "classifier", description="a classifier that learns from the tags, or what the guide (guidance) says of pixels"
    )
    scales: tuple[PositiveFloat, ...] = Field(
        (0.5, 1.0, 1.5, 2.0), min_length=1, description="sizes at which the classifier sees a crop; the mean is taken"
    )
    mirrored: bool = Field(True, description="it sees each mirrored too")
    untold: float = Field(
        0.1, ge=0, description="weight, to the classifier, of a class that tags do not tell of, taken as absent"
    )
    likely: float = Field(0.1, ge=0, le=1, description="probability in the crop below which a tag does not count there")
    scale: float = Field(100.0, gt=0, description="guide: factor on its cosines before the softmax")
    text: Literal["definitions", "names"] = Field("definitions", description="guide: what stands for a class")


class Activation(NamedTuple):
    """What is seen of the classes in a batch of crops."""

    maps: Tensor
    """(B, N, H, W) in [0, 1]; 0 where the class is not present"""
    present: Tensor
    """(B, N) bool: tagged, and likely in the crop"""


def counted_tags(tagged: Tensor, probability: Tensor, likely: float) -> Tensor:
    """(B, N) bool: the tagged classes that count in a crop, of (B, N) bool and (B, N) probabilities in it."""
    highest, best = probability.masked_fill(~tagged, -1).max(1, keepdim=True)
    seen = (probability >= likely).scatter(1, best, True)
    undecided = (highest <= 0) & (tagged.sum(1, keepdim=True) > 1)
    return tagged & seen & ~undecided


@torch.no_grad()
def of_classifier(net: LabelNet, images: Tensor, tagged: Tensor, settings: ActivationSettings) -> Activation:
    """ReLU of the classifier's maps, the mean over sizes and mirror images, divided by their largest value."""
    size = images.shape[-2:]
    maps, logits = [], []
    for scale in settings.scales:
        resized = images
        if scale != 1:
            resized = F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
        for mirrored in (False, True)[: 1 + settings.mirrored]:
            found = net.class_maps(net.maps(resized.flip(-1) if mirrored else resized)).float()
            logits.append(found.mean((2, 3)))
            wide = F.interpolate(found.relu(), size=size, mode="bilinear", align_corners=False)
            maps.append(wide.flip(-1) if mirrored else wide)
    mean = torch.stack(maps).mean(0)
    present = counted_tags(tagged, torch.stack(logits).mean(0).sigmoid(), settings.likely)
    highest = mean.amax((2, 3), keepdim=True)
    return Activation(mean / highest.clamp(min=1e-6) * present[:, :, None, None], present)


@torch.no_grad()
def of_guide(
    guide: Guidance, images: Tensor, tagged: Tensor, background: int, settings: ActivationSettings
) -> Activation:
    """The guide's probabilities among the classes that are tagged and the background."""
    probability = guide.probabilities(images)
    allowed = tagged.clone()
    allowed[:, background] = True
    probability = probability * allowed[:, :, None, None]
    probability = probability / probability.sum(1, keepdim=True).clamp(min=1e-30)
    return of_probabilities(probability, tagged, settings)


def of_hints(hints: Tensor, tagged: Tensor, settings: ActivationSettings) -> Activation:
    """Label maps (B, H, W) that lie on disk, 255 where they are unsure, as certainties."""
    classes = torch.arange(tagged.shape[1], device=hints.device)
    return of_probabilities((hints[:, None] == classes[:, None, None]).float(), tagged, settings)


def of_probabilities(probability: Tensor, tagged: Tensor, settings: ActivationSettings) -> Activation:
    """(B, N, H, W) probabilities of each pixel, as far as a tag is there."""
    present = counted_tags(tagged, probability.amax((2, 3)), settings.likely)
    return Activation(probability * present[:, :, None, None], present)
