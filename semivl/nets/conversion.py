"""Weights of open_clip's and timm's vision transformers as a `DenseEncoder` (spec 2.1)."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from semivl.config import VlmConfig
from semivl.errors import ConfigError
from semivl.nets.conv_stem import IMAGENET_MEAN, IMAGENET_STD
from semivl.nets.encoder import Architecture, DenseEncoder, renamed, resized_positions

OPEN_CLIP_NAMES = {
    "conv1.": "patch.",
    "class_embedding": "class_token",
    "positional_embedding": "position",
    "transformer.resblocks.": "blocks.",
    "attn.in_proj_": "in_proj.",
    "attn.out_proj.": "out_proj.",
    "mlp.c_fc.": "fc.",
    "mlp.c_proj.": "proj.",
}
TIMM_NAMES = {
    "patch_embed.proj.": "patch.",
    "cls_token": "class_token",
    "reg_token": "registers",
    "pos_embed": "position",
    "attn.qkv.": "in_proj.",
    "attn.proj.": "out_proj.",
    "norm1.": "ln_1.",
    "norm2.": "ln_2.",
    "mlp.fc1.": "fc.",
    "mlp.fc2.": "proj.",
    "ls1.gamma": "scale_1",
    "ls2.gamma": "scale_2",
    "fc_norm.": "ln_post.",
    "norm.": "ln_post.",
}


def from_open_clip(visual: Any, config: VlmConfig, grid: tuple[int, int]) -> DenseEncoder:
    """The dense encoder with the weights of an open_clip VisionTransformer, its position table resized to `grid`."""
    state = visual.state_dict()
    first = visual.transformer.resblocks[0]
    own_gelu = "quick" if type(first.mlp.gelu).__name__ == "QuickGELU" else "exact"
    architecture = Architecture(
        width=state["conv1.weight"].shape[0],
        layers=len(visual.transformer.resblocks),
        heads=first.attn.num_heads,
        mlp=len(state["transformer.resblocks.0.mlp.c_fc.weight"]),
        patch=state["conv1.weight"].shape[-1],
        embedding=state["proj"].shape[1],
        **_chosen(config, own_gelu, visual.ln_post.eps, visual.preprocess_cfg["mean"], visual.preprocess_cfg["std"]),
        grid=grid,
        pool="mean" if visual.pool_type == "avg" else "class",
    )
    converted = dict(renamed(state, OPEN_CLIP_NAMES))
    converted["projection.weight"] = converted.pop("proj").T
    return _filled(architecture, converted)


def from_timm(net: Any, config: VlmConfig, grid: tuple[int, int]) -> DenseEncoder:
    """The dense encoder with the weights of a timm VisionTransformer; it has no text space."""
    state = {k: v for k, v in net.state_dict().items() if not k.startswith("head.")}
    architecture = Architecture(
        width=net.embed_dim,
        layers=len(net.blocks),
        heads=net.blocks[0].attn.num_heads,
        mlp=len(state["blocks.0.mlp.fc1.weight"]),
        patch=state["patch_embed.proj.weight"].shape[-1],
        embedding=0,
        pre_norm=False,
        patch_bias=True,
        layer_scale="blocks.0.ls1.gamma" in state,
        registers=net.num_reg_tokens,
        dense="ordinary",
        **_chosen(config, "exact", net.blocks[0].norm1.eps, net.pretrained_cfg["mean"], net.pretrained_cfg["std"]),
        grid=grid,
    )
    flat = ("cls_token", "reg_token", "pos_embed")
    converted = dict(renamed({k: v[0] if k in flat else v for k, v in state.items()}, TIMM_NAMES))
    if net.no_embed_class:
        converted["position"] = F.pad(converted["position"], (0, 0, 1, 0))
    return _filled(architecture, converted)


def _chosen(config: VlmConfig, gelu: str, eps: float, mean: Any, std: Any) -> dict[str, Any]:
    """What the config decides, and the encoder itself where the config leaves it open."""
    imagenet = config.normalisation == "imagenet"
    return {
        "gelu": gelu if config.gelu == "own" else config.gelu,
        "layer_norm_eps": config.layer_norm_eps or eps,
        "mean": IMAGENET_MEAN if imagenet else tuple(mean),
        "std": IMAGENET_STD if imagenet else tuple(std),
        "skip_blocks": config.skip_blocks,
        "conv_stem": config.conv_stem,
    }


def _filled(architecture: Architecture, converted: Mapping[str, Tensor]) -> DenseEncoder:
    """Raises: ConfigError CONF017, the weights are those of a transformer with parts that a plain one has not."""
    encoder = DenseEncoder(architecture)
    try:
        state = {k: v.reshape(-1) if k == "class_token" else v for k, v in converted.items()}
        side = math.isqrt(len(state["position"]) - 1)
        state["position"] = resized_positions(state["position"], (side, side), architecture.grid)
        own = {f"stem.{k}": v for k, v in encoder.stem.state_dict().items()} if encoder.stem else {}
        encoder.load_state_dict(state | own)
    except (RuntimeError, KeyError) as error:
        said = " ".join(str(error).split())[:200]
        what = f"vlm.model is no plain vision transformer: {said}."
        raise ConfigError("CONF017", what, "Choose a ViT with a class token and nothing beside, as ViT-B-16.") from None
    return encoder
