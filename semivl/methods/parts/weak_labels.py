"""Labels L_w of tagged photos: which tag explains which part of the foreground (spec transfer.md, 2.4).

Three things are known of a photo: its tags, where each tagged class seems to be (activation maps A), and which
pixels are foreground of any class (the label net's map M). A times M are seeds that spread over the photo's graph;
the class that gets most wins, where M is sure. No mask of the photo is ever looked at.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from semivl.config import IGNORE, Record
from semivl.methods.parts.diffusion import DiffusionSettings, Floats, diffused, graph, node_means


class WeakLabelSettings(Record):
    """How the labels of tagged photos are made."""

    source: Literal["diffusion", "product", "activation"] = Field(
        "diffusion",
        description="activation x foreground, spread over the photo; the product as it is; or activation maps alone, "
        "whose largest value stands for the foreground: no label net has a say",
    )
    low: float = Field(0.3, ge=0, le=1, description="foreground below which a pixel is background")
    high: float = Field(0.7, ge=0, le=1, description="foreground above which a tagged class gets it; 255 between")
    diffusion: DiffusionSettings = DiffusionSettings()  # pyright: ignore[reportCallIssue]


@torch.no_grad()
def weak_labels(
    images: Tensor,
    foreground: Tensor,
    activation: Tensor,
    features: Tensor,
    present: Tensor,
    background: int,
    settings: WeakLabelSettings,
) -> Tensor:
    """(B, H, W) int64 labels on the images' device: the background, a class that is present, or 255.

    Args:
        images: (B, 3, H, W) in [0, 1].
        foreground: (B, H, W) probability that a pixel belongs to an object.
        activation: (B, N, H, W) >= 0, where each class seems to be.
        features: (B, F, h, w) of any size, that tell objects apart.
        present: (B, N) bool, the classes that may be given.
        background: id of the background.
    """
    found = []
    for image, where, maps, feature, tagged in zip(images, foreground, activation, features, present, strict=True):
        classes = tagged.nonzero()[:, 0]
        if settings.source == "activation":
            where = maps[classes].amax(0) if len(classes) else torch.zeros_like(where)
        label = torch.full_like(where, background, dtype=torch.long)
        label[where >= settings.low] = IGNORE
        sure = where > settings.high
        if len(classes):
            label[sure] = classes[_winners(image, where, maps[classes], feature, sure, settings)][sure]
        found.append(label)
    return torch.stack(found)


def _winners(
    image: Tensor, foreground: Tensor, maps: Tensor, feature: Tensor, sure: Tensor, settings: WeakLabelSettings
) -> Tensor:
    """(H, W) int64 place, among the C tagged classes, of the one that wins a pixel."""
    if len(maps) == 1:  # whatever spreads: there is nobody else
        return torch.zeros_like(foreground, dtype=torch.long)
    scores = maps if settings.source == "activation" else maps * foreground
    if settings.source == "diffusion":
        wide = F.interpolate(feature[None], size=foreground.shape, mode="bilinear", align_corners=False)[0]
        seeds = _last(scores)
        made = graph(_last(image), foreground.cpu().numpy(), _last(wide), settings.diffusion)
        spread = diffused(made.weights, node_means(seeds, made.node), settings.diffusion)[made.node]
        # cells and superpixels tie often, and where nothing came in the pixel's own seeds decide
        winner = np.where(spread.max(-1) > 0, spread.argmax(-1), seeds.argmax(-1))
    else:
        winner = scores.argmax(0).cpu().numpy()
    every = with_every_class(winner, sure.cpu().numpy(), maps.cpu().numpy())
    return torch.from_numpy(every).to(foreground.device)


def _last(planes: Tensor) -> Floats:
    """(H, W, C) float64 of (C, H, W)."""
    return planes.permute(1, 2, 0).double().cpu().numpy()


def with_every_class(winner: NDArray, sure: NDArray[np.bool_], maps: Floats) -> NDArray:
    """`winner` with a component of the sure foreground for each class that wins nothing in it.

    It gets the component where its mean activation is largest, but none that is all that another class has, and
    none where it is not active at all.

    Args:
        winner: (H, W) int place among C classes.
        sure: (H, W) where a class is given.
        maps: (C, H, W) activation of the classes.
    """
    winner = winner.copy()
    component, count = ndimage.label(sure)  # pyright: ignore[reportGeneralTypeIssues]
    for place, active in enumerate(maps):
        if not count or (winner[sure] == place).any():
            continue
        means = ndimage.mean(active, component, np.arange(1, count + 1))
        for index in np.argsort(-np.asarray(means), kind="stable"):
            taken = component == index + 1
            left = np.unique(winner[sure & ~taken])
            if means[index] > 0 and np.isin(np.unique(winner[taken]), left).all():
                winner[taken] = place
                break
    return winner
