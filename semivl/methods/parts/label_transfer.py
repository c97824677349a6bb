"""Label transfer: what the label net learns, and the labels of tagged photos made with it (spec transfer.md, 2)."""

from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from semivl.config import IGNORE, Record
from semivl.data import ranks
from semivl.data.stream import Labelled, Unlabelled
from semivl.data.tags import THERE
from semivl.methods import Losses, as_float
from semivl.methods.parts import activation
from semivl.methods.parts.activation import Activation, ActivationSettings
from semivl.methods.parts.guidance import Guidance
from semivl.methods.parts.tag_losses import crop_tags, doubtful, object_loss, object_target, tag_loss
from semivl.methods.parts.weak_labels import WeakLabelSettings, weak_labels
from semivl.nets.label_net import LabelNet, LabelNetSettings


class LabelTransferSettings(Record):
    """The label net and the labels that are made with it."""

    net: LabelNetSettings = LabelNetSettings()  # pyright: ignore[reportCallIssue]
    dice: float = Field(1.0, ge=0, description="weight of the label net's Dice loss beside its cross-entropy")
    warm_up: float = Field(
        0.5, ge=0, le=1, description="share of the label net's steps before doubtful background is left out"
    )
    activation: ActivationSettings = ActivationSettings()  # pyright: ignore[reportCallIssue]
    labels: WeakLabelSettings = WeakLabelSettings()  # pyright: ignore[reportCallIssue]


class Labelling(NamedTuple):
    """Labels of crops without masks, and what they were made of."""

    labels: Tensor
    """(B, S, S) int64, 255 where unsure"""
    foreground: Tensor
    """(B, S, S) probability of an object"""
    activation: Activation


def learned_from(
    net: LabelNet, labelled: Labelled, unlabelled: Unlabelled | None, settings: LabelTransferSettings, doubts: bool
) -> Losses:
    """The label net's losses, `total` among them; notes which classes the masks show.

    Args:
        unlabelled: tagged crops for its classifier, where it has one.
        doubts: background that the net itself takes for an object is left out, where tags name a class without masks.
    """
    note_drawn(net, labelled.masks)
    images = as_float(labelled.images)
    maps = None if net.classifier is None else net.maps(images)
    objects = net.objects(images, maps)
    masks = labelled.masks
    if doubts:
        masks = without_doubtful(net, labelled, objects.probability(mask_size(masks)), settings)
    of_objects = object_loss(objects.logits, object_target(masks, net.background), settings.dice)
    if maps is None:
        return {"total": of_objects, "objects": of_objects}
    assert unlabelled is not None and unlabelled.tags is not None
    told = torch.cat([crop_tags(labelled.masks, labelled.tags, net.drawn), unlabelled.tags])
    of_weak = net.class_maps(net.maps(as_float(unlabelled.images)))
    logits = torch.cat([net.class_maps(maps).mean((2, 3)), of_weak.mean((2, 3))])
    of_tags = tag_loss(logits, told, net.background, settings.activation.untold)
    return {"total": of_objects + of_tags, "objects": of_objects, "classifier": of_tags}


def note_drawn(net: LabelNet, masks: Tensor) -> None:
    """Notes the classes that the masks (B, H, W) show, on whichever rank."""
    shown = torch.zeros_like(net.drawn)
    shown[masks[masks != IGNORE].unique()] = True
    net.drawn |= ranks.either(shown)


@torch.no_grad()
def without_doubtful(net: LabelNet, labelled: Labelled, foreground: Tensor, settings: LabelTransferSettings) -> Tensor:
    """The masks (B, S, S), 255 where an object of a class that no mask shows may lie in what is drawn as background."""
    found = doubtful(labelled.masks, labelled.tags, net.drawn, foreground, net.background, settings.labels.low)
    return labelled.masks.masked_fill(found, IGNORE)


@torch.no_grad()
def labelled_by(
    net: LabelNet, guide: nn.Module | None, unlabelled: Unlabelled, settings: LabelTransferSettings
) -> Labelling:
    """Labels of crops that have tags; their masks, if there are any, are nowhere in what this is given."""
    assert unlabelled.tags is not None
    images, tagged, how = as_float(unlabelled.images), unlabelled.tags == THERE, settings.activation
    objects = net.objects(images)
    foreground = objects.probability(mask_size(images))
    if how.source == "classifier":
        active = activation.of_classifier(net, images, tagged, how)
    elif unlabelled.hints is not None:
        active = activation.of_hints(unlabelled.hints, tagged, how)
    else:
        assert isinstance(guide, Guidance)
        active = activation.of_guide(guide, images, tagged, net.background, how)
    labels = weak_labels(
        images, foreground, active.maps, objects.features, active.present, net.background, settings.labels
    )
    unknown = unlabelled.ignored
    if settings.labels.source == "activation" and how.source == "guide" and unlabelled.hints is not None:
        # label maps are the foreground here, so where they say nothing at all not even that is known
        unknown = unknown | (unlabelled.hints == IGNORE).flatten(1).all(1)[:, None, None]
    return Labelling(labels.masked_fill(unknown, IGNORE), foreground, active)


def mask_size(maps: Tensor) -> tuple[int, int]:
    """(H, W) of maps (..., H, W)."""
    return maps.shape[-2], maps.shape[-1]
