"""Groups of alike patches: where the things in a photo end, found without text and without masks (SCG, spec 2.1).

The features are the keys of a block of a frozen vision transformer. Groups are the same whenever the photo is: nothing
is drawn by chance. Which layer, which grouper and how many groups are not in the paper's abstract; they are settings.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from semivl.config import GroupConfig
from semivl.errors import ConfigError
from semivl.nets.encoder import DenseEncoder
from semivl.nets.grouping_kmeans import kmeans, on_sphere
from semivl.nets.grouping_linkage import agglomerative
from semivl.nets.grouping_parts import without_specks
from semivl.nets.grouping_spectral import affinities, spectral

VERSION = 1
"""of what decides groups beside settings and weights: groups of another one that were kept are not taken"""
LONGEST = 4
"""long side in short ones; of a photo that is longer, as many patches are grouped as of one that long"""
MOST = 8192
"""patches of a photo that is grouped at its own size"""


@torch.no_grad()
def group_maps(encoder: DenseEncoder, images: Tensor, config: GroupConfig) -> Tensor:
    """(B, H, W) int64 groups of images (B, 3, H, W) in [0, 1], each image's numbered from 0, on the images' device.

    Raises:
        ConfigError: CONF050, the encoder has no such block.
    """
    size = (images.shape[2], images.shape[3])
    resized = _resized(images, grid_size(size, config.side, encoder.architecture.patch), encoder.architecture.patch)
    keys = F.normalize(encoder.keys(resized, _block(encoder, config)).float(), dim=1).permute(0, 2, 3, 1)
    colours = F.adaptive_avg_pool2d(resized, (keys.shape[1], keys.shape[2])).permute(0, 2, 3, 1)
    return _grouped(keys, colours, *size, config.model_dump_json())


@torch.library.custom_op("semivl::grouped", mutates_args=())
def _grouped(features: Tensor, colours: Tensor, height: int, width: int, config: str) -> Tensor:
    """(B, H, W) int64 groups; one step to torch, which can tell its shape without taking it."""
    settings = GroupConfig.model_validate_json(config)
    each = zip(features.cpu(), colours.cpu(), strict=True)
    return torch.stack([upsampled(grouped(*one, settings), (height, width)) for one in each]).to(features.device)


@_grouped.register_fake
def _(features: Tensor, colours: Tensor, height: int, width: int, config: str) -> Tensor:
    return features.new_empty((len(features), height, width), dtype=torch.int64)


def grouped(features: Tensor, colours: Tensor, config: GroupConfig) -> Tensor:
    """(h, w) int64 groups of patches with unit features (h, w, D) and mean colours (h, w, 3), numbered from 0."""
    if config.grouper == "spectral":
        groups = spectral(affinities(features, colours, config.colour), config.count, config.eigenvectors)
    elif config.grouper == "kmeans":
        width = features.shape[-1]
        groups = kmeans(placed(features, config.position).flatten(0, 1), config.count, on_sphere(width))
    else:
        groups = agglomerative(features, config.merge_above, config.count)
    labels = groups.view(features.shape[:2]).numpy()
    return torch.from_numpy(without_specks(labels, features, config.smallest))


def placed(features: Tensor, weight: float) -> Tensor:
    """(h, w, D + 2): features and, times `weight`, the row and column over the longer side."""
    h, w = features.shape[:2]
    places = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"), dim=-1)
    return torch.cat([features, weight * places / max(h, w)], dim=-1)


def upsampled(groups: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W) int64 groups of patches (h, w) that cover the photo: at each pixel the largest bilinear share."""
    shares = F.one_hot(groups).permute(2, 0, 1)[None].float()
    return F.interpolate(shares, size=size, mode="bilinear", align_corners=False)[0].argmax(0)


def grid_size(size: tuple[int, int], side: int | None, patch: int) -> tuple[int, int]:
    """Patches down and across that a photo of (H, W) pixels is grouped in, its short side brought to `side` pixels.

    Every pair of patches is compared, so that there is a bound on their number; a photo beyond it is made smaller.
    """
    factor = (side or min(size)) / min(size)
    most = LONGEST * (side / patch) ** 2 if side else MOST
    longest = math.sqrt(most / size[0] / size[1]) * patch
    if factor <= longest * (1 + 1e-9):
        return max(1, round(size[0] * factor / patch)), max(1, round(size[1] * factor / patch))
    rows, columns = (min(max(1, int(length * longest / patch)), int(most)) for length in size)
    return rows, columns


def _block(encoder: DenseEncoder, config: GroupConfig) -> int:
    layers = encoder.architecture.layers
    if not -layers <= config.block < layers:
        what = f"groups.block {config.block} is none of the encoder's {layers} blocks."
        raise ConfigError("CONF050", what, f"Name one from 0 to {layers - 1}, or -1 for the last.")
    return config.block % layers


def _resized(images: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """The images at so many whole patches."""
    size = (grid[0] * patch, grid[1] * patch)
    if images.shape[2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)
