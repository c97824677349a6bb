"""The label net: where in a photo there is an object of any class, and which classes it holds (spec transfer.md, 2).

The foreground, a head on an encoder or a small net on pixels, knows no classes, so what it learns from the classes that
have masks holds for those that have none. The classifier, a head on the encoder, learns from tags; its maps before the
mean say where a class seems to be.
It learns beside the model and is no part of the finished one.
"""

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import Record
from semivl.nets.dpt import DptHead, DptShape, quarter_blocks
from semivl.nets.encoder import DenseEncoder, Trained
from semivl.nets.unet import UNet, UNetShape


class LabelNetSettings(Record):
    """The label net's parts."""

    foreground: Literal["dpt", "unet"] = Field(
        "dpt", description="what finds objects: a DPT head on the encoder, or a U-Net on pixels"
    )
    head: DptShape = Field(DptShape(features=32, channels=(24, 48, 96, 192)), description="of foreground dpt")
    unet: UNetShape = Field(UNetShape(), description="of foreground unet")  # pyright: ignore[reportCallIssue]
    trains: Trained = Field(
        "spatial", description="what of its encoder learns; spatial: attention and positions. Take none with unet"
    )


class Foreground(NamedTuple):
    """What the foreground head says."""

    logits: Tensor
    """(B, h, w): at eight times the patch grid, or the photo's size"""
    features: Tensor
    """(B, F, h, w), what its last layer reads"""

    def probability(self, size: tuple[int, int]) -> Tensor:
        """(B, H, W) in [0, 1]."""
        wide = F.interpolate(self.logits[:, None].float(), size=size, mode="bilinear", align_corners=False)
        return wide[:, 0].sigmoid()


class LabelNet(nn.Module):
    """Maps of images (B, 3, H, W) in [0, 1] for the foreground head and for the classifier."""

    drawn: Tensor
    """(N,) bool: classes that a mask has shown since the training began"""

    def __init__(
        self, encoder: DenseEncoder, classes: int, background: int, settings: LabelNetSettings, classifies: bool
    ) -> None:
        """Takes the encoder itself.

        Args:
            background: id of the class that is no object.
            classifies: with a classifier, which learns from tags.
        """
        super().__init__()
        self.encoder, a, self.background = encoder, encoder.architecture, background
        unet = settings.foreground == "unet"
        encoder.train_parts("none" if unet and not classifies else settings.trains)
        for unread in (encoder.projection, encoder.head, encoder.stem):
            if unread is not None:
                unread.requires_grad_(False)
        self.blocks = quarter_blocks(a.layers)
        self.foreground = UNet(settings.unet, 1) if unet else DptHead(settings.head, a.width, 1)
        self.classifier = nn.Conv2d(a.width, classes, 1) if classifies else None
        self.register_buffer("drawn", torch.zeros(classes, dtype=torch.bool))

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Four maps (B, width, h, w) on the patch grid, shallow first."""
        each = sorted(set(self.blocks))  # an encoder of fewer than four blocks gives some of them twice
        found = dict(zip(each, self.encoder.outputs(images, each), strict=True))
        return tuple(found[block] for block in self.blocks)

    def objects(self, images: Tensor, maps: tuple[Tensor, ...] | None = None) -> Foreground:
        """The foreground of images (B, 3, H, W) in [0, 1]; `maps` are theirs, where somebody made them already."""
        if isinstance(self.foreground, UNet):
            features = self.foreground.features(images)
            return Foreground(self.foreground.out(features)[:, 0], features)
        features = self.foreground.penultimate(self.maps(images) if maps is None else maps)
        return Foreground(self.foreground.head[2](features)[:, 0], features)

    def class_maps(self, maps: tuple[Tensor, ...]) -> Tensor:
        """(B, N, h, w) whose means over the photo are the classifier's logits."""
        assert self.classifier is not None
        return self.classifier(maps[-1])
