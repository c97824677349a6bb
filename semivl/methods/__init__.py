"""The methods: each learns a segmentation model from the kinds of sample that it needs.

A new method is one file here that ends in `METHOD = ...`, one YAML in conf/method/, one test file.
"""

import importlib
import pkgutil
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from semivl.config import Classes, MethodConfig, Record, check
from semivl.data.sample import Supervision
from semivl.data.stream import Batches
from semivl.errors import ConfigError
from semivl.methods.parts import average
from semivl.nets.vlm import DenseVLM

Losses = dict[str, Tensor]
"""Scalars by name; `total` is the one to minimise."""


class Method(Protocol):
    """What the trainer, the evaluation and the registry know of a method."""

    needs: frozenset[Supervision]
    """kinds of sample that it learns from"""
    takes_guide: bool
    """whether a training learns from a guide's labels"""
    passes: tuple[int, int]
    """images that encoder and decoder process with gradients, for each image of a batch"""
    partner: bool
    """whether a step needs other crops of its unlabelled photos too, for CutMix"""

    def __init__(self, settings: Any) -> None: ...

    def build(self, classes: Classes, vlm: DenseVLM, training: bool, guide: DenseVLM | None = None) -> nn.Module:
        """The model. `guide` gives dense guidance in training, to a method that takes it.

        Parts by name: `encoder` and its `stem` have learning rates of their own. Made for training alone are `teacher`,
        made anew from the guide whenever it is needed, and `average`, a moving average of the model, which takes the
        model's place in the end.
        """
        ...

    def training_step(self, model: nn.Module, batches: Batches, progress: float) -> Losses:
        """The losses of one step; `progress` goes from 0 to 1."""
        ...

    def describe(self) -> dict[str, str]:
        """Its losses by name, in words: of what, and with which weight."""
        ...

    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """Logits (B, N, H, W) of images (B, 3, H, W) in [0, 1]."""
        ...


def names() -> list[str]:
    """The methods there are."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg)


def create(config: MethodConfig) -> Method:
    """The method with its settings.

    Raises:
        ConfigError: CONF006 there is no such method, CONF003 a setting that it does not have.
    """
    if config.name not in names():
        raise ConfigError("CONF006", f"there is no method {config.name}.", f"Known: {', '.join(names())}.")
    method = _module(config.name).METHOD
    settings: type[Record] = method.Settings
    return method(check(settings, config.settings, f"method {config.name}"))


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")


def after_step(model: nn.Module, step: int) -> None:
    """What follows an update of the weights: the moving average moves, where the model keeps one."""
    if average.NAME in dict(model.named_children()):
        average.update(model, step)


def evolving_state(model: nn.Module) -> dict[str, Tensor]:
    """What a training changes: learned parameters, running statistics, the moving average."""
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad and not n.startswith(f"{average.NAME}.")}
    state = model.state_dict()
    return {k: v.detach() for k, v in state.items() if k not in frozen and not k.startswith("teacher.")}


def inference_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the finished model: of its moving average where it keeps one, without the teacher."""
    kept = getattr(model, average.NAME, model)
    return {k: v.detach().contiguous() for k, v in kept.state_dict().items() if not k.startswith("teacher.")}


@torch.no_grad()
def start_from(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Puts the weights of a finished model into one that is to be trained, and into its moving average.

    The class text stays the model's own: it follows from the class names and the settings.
    """
    for part in (model, getattr(model, average.NAME, None)):
        for name, tensor in (part.state_dict() if part is not None else {}).items():
            if name in weights and name != "text":
                tensor.copy_(weights[name])


def as_float(images: Tensor) -> Tensor:
    """uint8 images as float in [0, 1]."""
    return images.to(torch.float32) / 255
