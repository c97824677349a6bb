"""Image encoders without text through timm: DINOv2, ViTs pretrained on ImageNet."""

import difflib
from pathlib import Path
from typing import Any

import timm

from semivl.config import VlmConfig
from semivl.errors import ConfigError
from semivl.settings import ROOT

PREFIX = "timm:"


def load_timm(config: VlmConfig) -> Any:
    """timm's VisionTransformer that `vlm.model: timm:NAME` means, with `vlm.pretrained`'s file or timm's own weights.

    Raises:
        ConfigError: CONF010 unknown name, CONF013 no such file, CONF014 a file that does not fit, CONF016 weights that
            could not be downloaded, CONF017 a model that is no plain vision transformer.
    """
    name, weights = _known(config)
    try:
        if weights:
            return timm.create_model(name, num_classes=0, checkpoint_path=str(weights)).eval()
        return timm.create_model(name, num_classes=0, pretrained=True).eval()
    except Exception as error:  # timm raises bare RuntimeErrors, and whatever its hub client raises
        said = " ".join(str(error).split())[:300]
        if weights:
            what = f"the weights {weights} do not fit vlm.model {config.model}: {said}."
            raise ConfigError("CONF014", what, "Mend either.") from error
        what = f"the weights of vlm.model {config.model} could not be had: {said}."
        remedy = "Check the network, or download them elsewhere and set vlm.pretrained to the file."
        raise ConfigError("CONF016", what, remedy) from error


def outline_timm(config: VlmConfig) -> Any:
    """The same without weights.

    Raises:
        ConfigError: CONF010, CONF013 or CONF017, as `load_timm`.
    """
    return timm.create_model(_known(config)[0], num_classes=0, pretrained=False)


def _known(config: VlmConfig) -> tuple[str, Path | None]:
    """timm's name, and the file of weights where one is set."""
    name = config.model.removeprefix(PREFIX)
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        remedy = f"Did you mean {', '.join(near)}?" if near else "timm.list_models() names them all."
        raise ConfigError("CONF010", f"timm knows no model {name} (vlm.model).", remedy)
    weights = ROOT / config.pretrained if config.pretrained else None
    if weights and not weights.is_file():
        raise ConfigError(
            "CONF013", f"vlm.pretrained: there is no file {weights}.", "Give the weights of a timm model."
        )
    if not timm.models.is_model_in_modules(name.partition(".")[0], ["vision_transformer"]):
        what = f"vlm.model {config.model} is no plain vision transformer."
        raise ConfigError("CONF017", what, "Choose a ViT, such as timm:vit_small_patch14_dinov2.")
    return name, weights
