"""A finished model on disk: model.safetensors and model.json, all that prediction needs and nothing to unpickle."""

import hashlib
import json
from pathlib import Path
from typing import cast

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from semivl import __version__
from semivl.config import Classes, Config, EvaluationConfig, GroupConfig, GuidanceConfig, MethodConfig, Record
from semivl.errors import TrainingError
from semivl.methods import Method, create, inference_state
from semivl.nets.decoder import decode_in_chunks
from semivl.nets.encoder import Architecture, DenseEncoder
from semivl.nets.grouping import group_maps
from semivl.nets.grouping_encoder import OWN, blank_group_encoder, group_weights_digest, load_group_encoder
from semivl.nets.inference import for_inference
from semivl.nets.refine import refined
from semivl.nets.vlm import blank_vlm, weights_digest
from semivl.settings import ROOT

CLASS_CHUNK = 10
"""classes that a finished model decodes at once, which bounds its memory where there are many"""
WEIGHTS, CARD = "model.safetensors", "model.json"
_REFINER = "refiner."
"""what the names of the weights begin with that belong to `evaluation.refine` and not to the method's model"""


class Card(Record):
    """model.json: what it takes to build the model and to read its output."""

    semivl: str
    experiment: str
    method: MethodConfig
    classes: Classes
    evaluation: EvaluationConfig
    encoder: Architecture


class Predictor:
    """A trained model, ready to predict."""

    def __init__(self, card: Card, weights: Path, device: torch.device) -> None:
        self.classes, self.evaluation, self.device = card.classes, card.evaluation, device
        self.model_bytes = weights.stat().st_size
        self.method = create(card.method)
        _require_fitting(card, self.method, weights)
        vlm = blank_vlm(card.encoder, len(card.classes))
        self.model = self.method.build(card.classes, vlm, training=False)
        own, refining = split_weights(weights)
        self.model.load_state_dict(own)
        self.model.eval().to(device)
        decode_in_chunks(self.model, CLASS_CHUNK)
        self._group_encoder = self.encoder
        if self.evaluation.refine and self.evaluation.refine.groups.encoder != OWN:
            self._group_encoder = blank_group_encoder(self.evaluation.refine.groups).to(device)
            self._group_encoder.load_state_dict(refining)
        # measured on CPUs alone, so only they run it
        self._quick = for_inference(self.model) if device.type == "cpu" else self.model

    @property
    def encoder(self) -> DenseEncoder:
        """The trained image encoder."""
        return cast(DenseEncoder, self.model.encoder)

    @property
    def running(self) -> tuple[nn.Module, ...]:
        """All that `scores` runs; on a CPU the model's decoder is none of it, but a quicker copy is."""
        return self._quick, self._group_encoder

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, N, H, W) of images (B, 3, H, W) in [0, 1], evened out over groups by `evaluation.refine`."""
        return self.scores(images.to(self.device))

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """`logits` of images on the model's device, as tensors that a training may go on with."""
        logits, refine = self.method.predict(self._quick, images), self.evaluation.refine
        if refine is None:
            return logits
        return refined(logits, group_maps(self._group_encoder, images, refine.groups), refine.weight)


def save_bundle(folder: Path, config: Config, model: nn.Module, encoder: Architecture) -> None:
    """Writes the model's bundle; the card last, so that a bundle with a card is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(inference_state(model) | _refining_state(config.evaluation), folder / WEIGHTS)
    card = Card(
        semivl=__version__,
        experiment=config.name,
        method=config.method,
        classes=config.classes,
        evaluation=config.evaluation,
        encoder=encoder,
    )
    partial = folder / f".{CARD}"
    partial.write_text(json.dumps(card.model_dump(mode="json"), indent=1))
    partial.rename(folder / CARD)


def _require_fitting(card: Card, method: Method, weights: Path) -> None:
    """Compares the model that the card describes with the weights' shapes before it takes any memory.

    Raises:
        TrainingError: TRAIN015, they differ.
    """
    with torch.device("meta"):
        outline = method.build(card.classes, blank_vlm(card.encoder, len(card.classes)), training=False)
    described = {name: tuple(tensor.shape) for name, tensor in outline.state_dict().items()}
    with safe_open(weights, "pt") as file:
        held = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    held = {name: shape for name, shape in held.items() if not name.startswith(_REFINER)}
    if described != held:
        odd = next(iter(dict(described.items() ^ held.items())))
        what = f"the weights in {weights.parent} do not fit its {CARD}, such as {odd}."
        raise TrainingError("TRAIN015", what, "Take weights and card from the same training.")


def split_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights in a bundle's file: of the method's model, and of the encoder that groups patches for it."""
    every = load_file(path)
    refining = {name.removeprefix(_REFINER): every.pop(name) for name in list(every) if name.startswith(_REFINER)}
    return every, refining


def _refining_state(config: EvaluationConfig) -> dict[str, Tensor]:
    if config.refine is None or config.refine.groups.encoder == OWN:
        return {}
    state = load_group_encoder(config.refine.groups).state_dict()
    return {f"{_REFINER}{name}": tensor.contiguous() for name, tensor in state.items()}


def is_whole(folder: Path) -> bool:
    """Whether a finished model lies in the folder."""
    return (folder / CARD).is_file()


def load_bundle(folder: Path, device: str = "cpu") -> Predictor:
    """The model in a folder that `save_bundle` wrote.

    Raises:
        TrainingError: TRAIN004, the folder holds no model.
    """
    return Predictor(read_card(folder), folder / WEIGHTS, torch.device(device))


def read_card(folder: Path) -> Card:
    """What the bundle in a folder says of its model; TRAIN004 it holds none."""
    if not is_whole(folder):
        raise TrainingError("TRAIN004", f"{folder} holds no trained model.", "Give the folder of a bundle.")
    return Card.model_validate_json((folder / CARD).read_text())


def weights_of(folder: Path) -> str:
    """SHA-256 of the weights' file in a bundle's folder, hex."""
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def train_key(config: Config, version: str) -> str:
    """Sixteen hex digits of all that decides the weights: what the experiment learns with, from, and starts at."""
    parts = config.digest("classes", "vlm", "method", "train", "evaluation", "guidance")
    guide = config.guidance.vlm
    starts = f"{weights_digest(config.vlm)} {weights_digest(guide) if guide else ''} {_labels_digest(config.guidance)}"
    starts += finished_digest(config.guidance)
    precision = config.compute.precision if config.compute.precision != "fp32" else ""
    return hashlib.sha256(f"{parts} {starts} {version} {precision}{_grouping_digest(config)}".encode()).hexdigest()[:16]


def finished_digest(config: GuidanceConfig) -> str:
    """Hash of the weights of the finished model that guides, where a folder holds it; a registered version's number
    stands for its weights."""
    folder = ROOT / config.model if config.model else None
    return weights_of(folder) if folder and is_whole(folder) else ""


def _grouping_digest(config: Config) -> str:
    """Hashes of the files of weights that tell groups apart, for `evaluation.refine` and for the method's own groups;
    empty where there are none."""
    refine, own = config.evaluation.refine, getattr(create(config.method).settings, "groups", None)
    every = (refine.groups if refine else None, own)
    return "".join(group_weights_digest(groups) for groups in every if isinstance(groups, GroupConfig))


def _labels_digest(config: GuidanceConfig) -> str:
    """Hash over the label maps that guide; empty where none do."""
    digest = hashlib.sha256()
    files = sorted((ROOT / config.labels).glob("*.png")) if config.labels else []
    for path in files:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest() if files else ""
