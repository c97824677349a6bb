"""A folder of ours with an image encoder and, where it has one, its way to a text encoder: `aligned:PATH`.

    vlm.json             the image encoder's architecture, and which text encoder belongs to it
    encoder.safetensors  its weights
    text/                the text encoder: a sentence encoder's files, or a folder in open_clip's format
    text.safetensors     `projection`, from the text encoder's embedding into the shared space

Without text it holds an encoder for methods that need none. A text encoder that open_clip knows by name is not
copied: vlm.json names it. `semivl.training.alignment` writes such folders.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import Classes, Record, VlmConfig
from semivl.errors import ConfigError
from semivl.language import sentence
from semivl.language.text import TextEncoder, Tokenizer, class_text
from semivl.language.tower import ProjectedTower, text_tower
from semivl.nets import open_clip_loading
from semivl.nets.conv_stem import IMAGENET_MEAN, IMAGENET_STD
from semivl.nets.encoder import Architecture, DenseEncoder, resized_positions
from semivl.nets.vlm import DenseVLM, patch_grid
from semivl.settings import ROOT, home

CONFIG_FILE, ENCODER_FILE, PROJECTION_FILE, TEXT_FOLDER = "vlm.json", "encoder.safetensors", "text.safetensors", "text"
LOCAL = "local-dir:"


class Described(Record):
    """What vlm.json says."""

    architecture: Architecture
    text: str | VlmConfig | None = None
    """`text` for the folder of that name, open_clip's name and tag, or nothing"""


class ProjectedText(nn.Module):
    """A text encoder whose normalised embedding goes through a linear layer into the shared space."""

    projection: Tensor

    def __init__(self, encoder: TextEncoder, projection: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("projection", projection)

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """(B, D) embeddings of token ids (B, L)."""
        projected = self.encoder.encode_text(text, normalize=True) @ self.projection.T
        return F.normalize(projected, dim=-1) if normalize else projected


def load_aligned(folder: Path, config: VlmConfig, classes: Classes, side: int, language: bool = False) -> DenseVLM:
    """The folder's encoder, its position table resized for images of `side` pixels, and the class map's embeddings.

    Args:
        language: keep the text tower, where there is one.

    Raises:
        ConfigError: CONF020 a file is missing, CONF021 one cannot be used, CONF022 weights do not fit; what
            `load_open_clip` raises for its text encoder.
    """
    described, encoder = load_encoder(folder, config, side)
    if described.text is None:
        return DenseVLM(encoder, None)
    inner, tokenizer, projection = _text_side(folder, described)
    model = ProjectedText(inner, projection)
    digest = text_digest(folder, described.text)
    text = class_text(model, tokenizer, classes, digest, home() / "cache" / "text")
    tower = ProjectedTower(text_tower(inner, tokenizer), projection) if language else None
    return DenseVLM(encoder, text, tower)


def load_encoder(folder: Path, config: VlmConfig, side: int) -> tuple[Described, DenseEncoder]:
    """What vlm.json says, and the image encoder with `config`'s choices for images of `side` pixels."""
    described = read(folder, Described)
    own = described.architecture
    encoder = DenseEncoder(_architecture(own, config, side))
    state = weights(folder / ENCODER_FILE)
    if "position" in state and len(state["position"]) == 1 + own.grid[0] * own.grid[1]:
        state["position"] = resized_positions(state["position"], own.grid, encoder.architecture.grid)
    if encoder.stem:
        encoder.stem.load_pretrained()
        state |= {f"stem.{k}": v for k, v in encoder.stem.state_dict().items()}
    fill(encoder, state, folder / ENCODER_FILE)
    return described, encoder.eval()


def outline_aligned(folder: Path, config: VlmConfig, side: int) -> tuple[DenseEncoder, int]:
    """The encoder without its weights, and the width of the text's space; 0 without text.

    Raises:
        ConfigError: CONF020 vlm.json is missing, CONF021 it cannot be used.
    """
    described = read(folder, Described)
    encoder = DenseEncoder(_architecture(described.architecture, config, side))
    return encoder, described.architecture.embedding if described.text is not None else 0


def _architecture(own: Architecture, config: VlmConfig, side: int) -> Architecture:
    """The folder's architecture with the config's choices."""
    imagenet = config.normalisation == "imagenet"
    return own.model_copy(
        update={
            "grid": patch_grid((own.patch, own.patch), side),
            "gelu": own.gelu if config.gelu == "own" else config.gelu,
            "layer_norm_eps": config.layer_norm_eps or own.layer_norm_eps,
            "mean": IMAGENET_MEAN if imagenet else own.mean,
            "std": IMAGENET_STD if imagenet else own.std,
            "skip_blocks": config.skip_blocks,
            "conv_stem": config.conv_stem,
            "pool": "dense",  # alignment teaches patches alone, and no class token
        }
    )


def load_text_encoder(source: str | VlmConfig) -> tuple[TextEncoder, Tokenizer]:
    """The text encoder of a folder (a sentence encoder's, or in open_clip's format) or of an open_clip model."""
    model: Any
    if isinstance(source, str) and not (ROOT / source / open_clip_loading.CONFIG_FILE).is_file():
        return sentence.load_sentence_encoder(ROOT / source)
    config = VlmConfig(model=f"{LOCAL}{source}") if isinstance(source, str) else source  # pyright: ignore[reportCallIssue]
    model, tokenizer = open_clip_loading.load_open_clip(config)
    return model, tokenizer


def save_aligned(
    folder: Path, encoder: DenseEncoder, text: str | VlmConfig | None = None, projection: Tensor | None = None
) -> Path:
    """Writes the folder; `text` is the text encoder's folder, which is copied, or what open_clip knows it by."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(encoder, folder / ENCODER_FILE)
    if projection is not None:
        save_file({"projection": projection.detach().contiguous()}, folder / PROJECTION_FILE)
    if isinstance(text, str):
        copy_text(ROOT / text, folder / TEXT_FOLDER)
    described = Described(architecture=encoder.architecture, text=TEXT_FOLDER if isinstance(text, str) else text)
    (folder / CONFIG_FILE).write_text(described.model_dump_json(indent=2) + "\n")
    return folder


def write_weights(module: nn.Module, path: Path) -> None:
    """Writes the state dict beside the path and renames it: a reader finds the whole file or none."""
    part = path.with_name(f".{path.name}.part")
    save_file({k: v.detach().contiguous() for k, v in module.state_dict().items()}, part)
    part.replace(path)


def copy_text(source: Path, target: Path) -> None:
    """Copies the files of a text encoder's folder that are read here."""
    wanted = (*sentence.FILES, open_clip_loading.CONFIG_FILE, open_clip_loading.WEIGHTS_FILE)
    for name in wanted:
        if (source / name).is_file() and (source / name).resolve() != (target / name).resolve():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)


def read(folder: Path, kind: type[Any]) -> Any:
    """vlm.json as a record of that kind.

    Raises:
        ConfigError: CONF020 it is not there, CONF021 it cannot be used.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        what = f"there is no {path}" if folder.is_dir() else f"there is no folder {folder}"
        raise ConfigError("CONF020", f"{what}.", "Give a folder that `semivl pretrain` or benchmarks.small_vlm made.")
    try:
        return kind.model_validate(json.loads(path.read_text()))
    except (ValueError, ValidationError) as error:
        said = " ".join(str(error).split())[:300]
        raise ConfigError("CONF021", f"{path} cannot be used: {said}.", "Make the folder anew.") from None


def weights(path: Path) -> dict[str, Tensor]:
    """The file's tensors in float32.

    Raises:
        ConfigError: CONF020 it is not there, CONF022 it is no safetensors file.
    """
    if not path.is_file():
        raise ConfigError("CONF020", f"there is no {path}.", "Make the folder anew.")
    try:
        return {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    except SafetensorError as error:
        raise ConfigError("CONF022", f"{path} is damaged: {error}.", "Make the folder anew.") from None


def fill(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Loads the state dict; CONF022 where it does not fit."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        said = " ".join(str(error).split())[:300]
        raise ConfigError("CONF022", f"{path} does not fit {CONFIG_FILE}: {said}.", "Mend either.") from None


def _text_side(folder: Path, described: Described) -> tuple[TextEncoder, Tokenizer, Tensor]:
    """The text encoder, its tokenizer, and the projection (D, the encoder's own D) behind it."""
    assert described.text is not None
    source = str(folder / TEXT_FOLDER) if isinstance(described.text, str) else described.text
    inner, tokenizer = load_text_encoder(source)
    projection = weights(folder / PROJECTION_FILE).get("projection")
    width = described.architecture.embedding
    found = None if projection is None else tuple(projection.shape)
    made = inner.encode_text(tokenizer(["a"])).shape[-1]
    if projection is None or found != (width, made):
        what = f"{folder / PROJECTION_FILE} has a projection of {found}, not of {(width, made)}"
        raise ConfigError("CONF022", f"{what}.", "Make the folder anew.")
    return inner, tokenizer, projection


def text_digest(folder: Path, text: str | VlmConfig) -> str:
    """SHA-256 of all that decides an embedding: the projection, and the text encoder's files or name."""
    digest = hashlib.sha256((folder / PROJECTION_FILE).read_bytes() if (folder / PROJECTION_FILE).is_file() else b"")
    if isinstance(text, VlmConfig):
        digest.update(text.model_dump_json().encode())
    for path in sorted((folder / TEXT_FOLDER).rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
