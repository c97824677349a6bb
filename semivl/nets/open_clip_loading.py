"""Vision-language models through open_clip: by its own names, or from a folder in its own format.

`local-dir:PATH` is a folder with open_clip_config.json and weights; PATH is relative to the checkout. It never
touches the network. An open_clip name with a weights tag downloads what is not yet in open_clip's cache.
"""

import difflib
import hashlib
import json
import logging
import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import open_clip
import torch
from open_clip.factory import load_state_dict
from open_clip.transformer import VisionTransformer
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from semivl.config import VlmConfig
from semivl.errors import ConfigError
from semivl.settings import ROOT, home

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
_OPENAI_NUMBERS = ("input_resolution", "context_length", "vocab_size")
_LOCAL = "local-dir:"
_HUB = "hf-hub:"
_WEIGHTS = ("*.safetensors", "*.bin", "*.pth")


def load_open_clip(config: VlmConfig) -> tuple[nn.Module, Any]:
    """The model in float32, set to evaluation, and its tokenizer (list of texts to (B, context) int64).

    Raises:
        ConfigError: CONF010 unknown model name, CONF011 no such folder or no config in it, CONF012 a config that
            cannot be used, CONF013 no weights, CONF014 weights that do not fit, CONF015 unknown weights tag,
            CONF016 weights that could not be downloaded, CONF017 an image tower that is no plain ViT.
    """
    name, pretrained = _local(config) if config.model.startswith(_LOCAL) else _known(config)
    try:
        if pretrained and Path(pretrained).is_file():
            pretrained = str(_plain(Path(pretrained)))
        model = open_clip.create_model(name, pretrained=pretrained, require_pretrained=True)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip raises bare RuntimeErrors, and whatever its hub client raises
        raise _fault(config, error) from error
    _plain_vit(config, model)
    return model.float().eval(), tokenizer


def outline_open_clip(config: VlmConfig) -> Any:
    """The image tower without weights.

    Raises:
        ConfigError: as `load_open_clip`, as far as the weights themselves are not needed to know.
    """
    name, _ = _local(config) if config.model.startswith(_LOCAL) else _known(config)
    logging.disable(logging.WARNING)  # open_clip warns of the weights that are left out on purpose
    try:
        model = open_clip.create_model(name, load_weights=False, device="meta")
    except Exception as error:
        raise _fault(config, error) from error
    finally:
        logging.disable(logging.NOTSET)
    return _plain_vit(config, model)


def _plain_vit(config: VlmConfig, model: Any) -> VisionTransformer:
    if not isinstance(model.visual, VisionTransformer) or model.visual.attn_pool is not None:
        raise ConfigError(
            "CONF017",
            f"the image tower of vlm.model {config.model} is no plain vision transformer.",
            "Choose a model of the ViT family without attentional pooling, ViT-B-16 for one.",
        )
    return model.visual


def read_config(folder: Path) -> dict[str, Any]:
    """What open_clip_config.json in the folder says.

    Raises:
        ConfigError: CONF011 no such folder or no config in it, CONF012 a config that cannot be used.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        missing = f"there is no {path}" if folder.is_dir() else f"there is no folder {folder}"
        raise ConfigError("CONF011", f"{missing}.", "Give a folder in open_clip's format as local-dir:PATH.")
    try:
        config = json.loads(path.read_text())
        if not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config["model_cfg"]):
            raise KeyError("model_cfg needs embed_dim, vision_cfg and text_cfg")
    except (ValueError, KeyError, TypeError) as error:
        what = f"{path} is no open_clip config: {error}."
        raise ConfigError("CONF012", what, "Compare it with conf/vlm/tiny-clip/open_clip_config.json.") from None
    return config


def weights_digest(config: VlmConfig) -> str:
    """SHA-256 of a folder's files, or of the file of weights; empty where open_clip's tag stands for them."""
    if config.model.startswith(_LOCAL):
        return files_digest(ROOT / config.model.removeprefix(_LOCAL))
    path = ROOT / (config.pretrained or "")
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def files_digest(folder: Path) -> str:
    """SHA-256 of the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def identity(config: VlmConfig) -> str:
    """Hash that stands for the model: its name, the tag of its weights, and the weights themselves where they are here.

    One tag may serve two models, which differ in their activation.
    """
    return hashlib.sha256(f"{config.model} {config.pretrained} {weights_digest(config)}".encode()).hexdigest()


def _local(config: VlmConfig) -> tuple[str, None]:
    folder = ROOT / config.model.removeprefix(_LOCAL)
    read_config(folder)
    if not any(found for pattern in _WEIGHTS for found in folder.glob(pattern)):
        raise ConfigError(
            "CONF013", f"{folder} holds a config but no weights.", f"Put {WEIGHTS_FILE} beside the config."
        )
    return f"{_LOCAL}{folder}", None


def _known(config: VlmConfig) -> tuple[str, str | None]:
    name = config.model
    if name.startswith(_HUB):
        return name, None
    if name.replace("/", "-") not in (models := open_clip.list_models()):
        near = difflib.get_close_matches(name, models, n=3, cutoff=0.4)
        remedy = f"Did you mean {', '.join(near)}?" if near else "open_clip.list_models() names them all."
        raise ConfigError("CONF010", f"open_clip knows no model {name} (vlm.model).", remedy)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not config.pretrained:
        raise ConfigError(
            "CONF013",
            f"vlm.model {name} has no weights.",
            f"Set vlm.pretrained to one of {', '.join(tags)}, or a file.",
        )
    weights = ROOT / config.pretrained
    if weights.is_file():
        return name, str(weights)
    if config.pretrained not in tags:
        near = difflib.get_close_matches(config.pretrained, tags, n=1) or tags
        raise ConfigError(
            "CONF015",
            f"vlm.pretrained {config.pretrained} is neither a file nor a weights tag of {name}.",
            f"Choose one of: {', '.join(near)}.",
        )
    return name, config.pretrained


def _plain(weights: Path) -> Path:
    """The weights as open_clip reads them: OpenAI's own files are TorchScript, with three numbers among the tensors."""
    if weights.suffix == ".safetensors":
        return weights
    plain = home() / "cache" / "weights" / f"{hashlib.sha256(weights.read_bytes()).hexdigest()}.safetensors"
    if plain.is_file():
        return plain
    try:
        state: Any = torch.jit.load(weights, map_location="cpu").state_dict()
    except RuntimeError:
        state = load_state_dict(str(weights))
    plain.parent.mkdir(parents=True, exist_ok=True)
    partial = plain.with_suffix(f".{os.getpid()}")
    save_file({k: v.contiguous() for k, v in state.items() if k not in _OPENAI_NUMBERS}, partial)
    return partial.replace(plain)


def _fault(config: VlmConfig, error: Exception) -> ConfigError:
    said = " ".join(str(error).split())[:300]
    local = config.model.startswith(_LOCAL) or (config.pretrained and (ROOT / config.pretrained).is_file())
    if not local:
        return ConfigError(
            "CONF016",
            f"the weights of vlm.model {config.model} could not be had: {said}.",
            "Check the network, or download them elsewhere and set vlm.pretrained to the file.",
        )
    unreadable = isinstance(error, SafetensorError | UnpicklingError) or not config.model.startswith(_LOCAL)
    if unreadable or "size mismatch" in said or "key(s) in state_dict" in said:
        return ConfigError(
            "CONF014",
            f"the weights of vlm.model {config.model} do not fit its config: {said}.",
            "Mend either.",
        )
    return ConfigError("CONF012", f"open_clip cannot use vlm.model {config.model}: {said}.", "Mend its config.")
