"""The encoder that tells groups apart where it is not the model's own: one of timm, as DINO is (spec scg.md, 2.1)."""

from typing import Any

from torch import nn

from semivl.config import GroupConfig, VlmConfig
from semivl.errors import ConfigError
from semivl.nets.conversion import from_timm
from semivl.nets.encoder import DenseEncoder
from semivl.nets.open_clip_loading import weights_digest
from semivl.nets.timm_loading import load_timm, outline_timm
from semivl.nets.vlm import patch_grid

OWN = "own"
_TABLE_SIDE = 224
"""side in pixels of the position table where photos are grouped at their own size"""


def load_group_encoder(config: GroupConfig) -> DenseEncoder:
    """timm's encoder that tells groups apart, frozen.

    Raises:
        ConfigError: what `load_timm` raises.
    """
    net = load_timm(_as_vlm(config))
    return _frozen(from_timm(net, _as_vlm(config), _table(net, config)))


def group_encoder(config: GroupConfig, own: nn.Module) -> DenseEncoder:
    """The encoder that tells groups apart, `own` where no other is set.

    Raises:
        ConfigError: CONF051 `own` has no keys; what `load_timm` raises.
    """
    if config.encoder != OWN:
        return load_group_encoder(config)
    if not isinstance(own, DenseEncoder):
        what = f"a {type(own).__name__} has no keys to tell groups apart."
        raise ConfigError("CONF051", what, "Set the groups' encoder to timm:NAME, or choose a transformer as vlm.")
    return own


def blank_group_encoder(config: GroupConfig) -> DenseEncoder:
    """The same before its weights are loaded: for a finished model, which brings them along."""
    bare = config.model_copy(update={"weights": None})
    net = outline_timm(_as_vlm(bare))
    return _frozen(from_timm(net, _as_vlm(bare), _table(net, bare)))


def group_weights_digest(config: GroupConfig) -> str:
    """SHA-256 of the file of weights; empty where timm's own, or the model's own encoder, are used."""
    return weights_digest(_as_vlm(config))


def _as_vlm(config: GroupConfig) -> VlmConfig:
    weights = str(config.weights) if config.weights else None
    return VlmConfig(model=config.encoder, pretrained=weights, skip_blocks=())  # pyright: ignore[reportCallIssue]


def _table(net: Any, config: GroupConfig) -> tuple[int, int]:
    return patch_grid(net.patch_embed.patch_size, config.side or _TABLE_SIDE)


def _frozen(encoder: DenseEncoder) -> DenseEncoder:
    return encoder.requires_grad_(False).eval()
