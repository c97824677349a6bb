"""Groups of patches with a name and a score: the model of method spatial_grouping (SCG, spec scg.md 2.3 and 2.6)."""

import copy
import hashlib
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import Classes, GroupConfig, Record
from semivl.data.tags import BACKGROUND
from semivl.errors import ConfigError
from semivl.methods.parts.class_bank import bank, class_cosines, owners
from semivl.nets.encoder import DenseEncoder
from semivl.nets.grouping import VERSION, group_maps
from semivl.nets.grouping_encoder import OWN, blank_group_encoder, group_weights_digest, load_group_encoder
from semivl.nets.pamr import pamr
from semivl.nets.regions import Reading, RegionSettings, read
from semivl.nets.vlm import DenseVLM

_LEAST = 1e-6
"""probability that a class has at the least, whose logarithm can be averaged"""


class NamingSettings(Record):
    """How regions get their names (spec 2.6)."""

    text: Literal["names", "definitions"] = Field(
        "definitions", description="what speaks for a class: its name, or the best of its definitions"
    )
    templates: tuple[str, ...] = Field(
        (), description="sentences with {} whose mean embeds a class; the class map's own prompt where empty"
    )
    scale: float = Field(100.0, gt=0, description="factor on cosines before the softmax")
    dense: float = Field(0.3, ge=0, le=1, description="share of the dense map in a pixel's score, beside its group's")
    background: float | None = Field(
        None,
        ge=0,
        le=1,
        description="probability of class background everywhere, against the others'; where empty, its definitions "
        "speak for it as for any class",
    )
    gate: float = Field(
        0.0, ge=0, description="classes are left out of a photo whose whole makes them less likely than gate / classes"
    )
    pamr: int = Field(0, ge=0, description="iterations of pixel-adaptive refinement of the scores")


class Recogniser(nn.Module):
    """Images (B, 3, H, W) in [0, 1] to logits (B, N, H, W): log-probabilities of each pixel's group, named as a region.

    `grouper` is there where the encoder that tells groups apart is not `encoder` itself: timm's, or a frozen copy of
    `encoder` as it was before it learned. The class text is a fixed part of the weights.
    """

    text: Tensor
    owner: Tensor

    def __init__(
        self,
        classes: Classes,
        vlm: DenseVLM,
        groups: GroupConfig,
        regions: RegionSettings,
        naming: NamingSettings,
        learns: bool,
        loaded: bool,
    ) -> None:
        """Takes copies of the encoder, which nothing trains yet.

        Args:
            learns: whether the encoder is going to.
            loaded: whether the weights of timm's encoder are to be loaded now, and not with the finished model's.

        Raises:
            ConfigError: CONF018 no text, CONF019 no transformer, CONF052 a threshold for a background that there is
                not, what `load_timm` raises.
        """
        super().__init__()
        self.groups, self.regions, self.naming = groups, regions, naming
        self.classes = len(classes)
        self.background = classes.names.index(BACKGROUND) if BACKGROUND in classes.names else None
        if naming.background is not None and self.background is None:
            what = f"naming.background is set, and no class is called {BACKGROUND}."
            raise ConfigError("CONF052", what, "Leave it empty, or add the class to the class map.")
        self.encoder = vlm.student().requires_grad_(False)
        self.encoder.stem = None
        if groups.encoder != OWN:
            self.grouper = load_group_encoder(groups) if loaded else blank_group_encoder(groups)
        elif learns:
            self.grouper = copy.deepcopy(self.encoder).eval()
        self.register_buffer("text", bank(classes, vlm, naming.text, naming.templates))
        self.register_buffer("owner", owners(classes, naming.text), persistent=False)

    @property
    def groups_by(self) -> DenseEncoder:
        """The encoder that tells groups apart."""
        return getattr(self, "grouper", self.encoder)

    def group(self, images: Tensor) -> Tensor:
        """(B, H, W) int64 groups of images."""
        return group_maps(self.groups_by, images, self.groups)

    def group_key(self) -> str:
        """Stands for all that decides groups: settings, code, the encoder's shape and weights."""
        shape = self.groups_by.architecture.model_dump_json()
        given = f"{VERSION} {self.groups.model_dump_json()} {group_weights_digest(self.groups)} {shape}"
        digest = hashlib.sha256(given.encode())
        for tensor in self.groups_by.state_dict().values():
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]

    def read(self, images: Tensor, groups: Tensor) -> Reading:
        """What one pass says of the images and their groups (B, H, W), 255 outside."""
        return read(self.encoder, images, groups, self.groups.count, self.regions)

    def forward(self, images: Tensor) -> Tensor:
        groups = self.group(images)
        return self.logits(images, groups, self.read(images, groups))

    def logits(self, images: Tensor, groups: Tensor, reading: Reading) -> Tensor:
        """(B, N, H, W) of images whose groups (B, H, W) were read."""
        share, size = self.naming.dense, images.shape[-2:]
        named = self._probabilities(self._cosines(reading.regions).transpose(1, 2))
        scores = (1 - share) * of_groups(named, groups)
        if share:
            dense = self._cosines(reading.dense.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            dense = F.interpolate(dense, size=size, mode="bilinear", align_corners=False)
            scores = scores + share * self._probabilities(dense)
        if self.naming.gate:
            scores = scores * self._likely(reading.whole)[:, :, None, None]
        if self.naming.pamr:
            scores = pamr(images, scores, self.naming.pamr)
        if self.naming.background is not None:
            scores = scores.index_fill(1, torch.tensor(self.background, device=scores.device), self.naming.background)
        return scores.clamp(min=_LEAST).log()

    def _cosines(self, embeddings: Tensor) -> Tensor:
        """(..., N) with each class's best row of text."""
        return class_cosines(embeddings, self.text, self.owner, self.classes)

    def _probabilities(self, cosines: Tensor) -> Tensor:
        """(B, N, ...) of cosines (B, N, ...); a background that has a probability of its own takes no part."""
        if self.naming.background is not None:
            own = torch.arange(self.classes, device=cosines.device) == self.background
            cosines = cosines.masked_fill(own.view(1, -1, *[1] * (cosines.dim() - 2)), -torch.inf)
        return (self.naming.scale * cosines).softmax(1)

    def _likely(self, whole: Tensor) -> Tensor:
        """(B, N) bool: the classes that the whole photo does not rule out; background is never ruled out."""
        cosines = self._cosines(whole)
        other = torch.arange(self.classes, device=whole.device) == (-1 if self.background is None else self.background)
        likely = (self.naming.scale * cosines.masked_fill(other, -torch.inf)).softmax(1)
        return (likely >= self.naming.gate / self.classes) | other


def of_groups(values: Tensor, groups: Tensor) -> Tensor:
    """(B, N, H, W) of values (B, N, K) of the groups (B, H, W)."""
    index = groups.flatten(1)[:, None].expand(-1, values.shape[1], -1)
    return values.gather(2, index).unflatten(2, (groups.shape[1], groups.shape[2]))
