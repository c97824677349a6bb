"""The methods: each learns a segmentation model from the kinds of sample that it needs.

A new method is one file here that ends in `METHOD = ...`, one YAML in conf/method/, one test file.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semivl.config import Classes, MethodConfig, Record, check
from semivl.data.sample import Supervision
from semivl.data.stream import Batches, Pools
from semivl.errors import ConfigError
from semivl.methods.parts import average
from semivl.nets.vlm import DenseVLM

Losses = dict[str, Tensor]
"""Scalars by name; `total` is the one to minimise."""


Guide = DenseVLM | nn.Module
"""a vision-language model, or a finished model: images (B, 3, H, W) in [0, 1] to logits (B, N, H, W)"""
TEACHER, LEARNER = "teacher.", "learner."
"""what the names of parts begin with that are for training alone; see `Method.build`"""


@dataclass(frozen=True)
class ImageMaps:
    """What a method makes of each captioned image once, before the first step, and gets cropped along with it."""

    key: str
    """stands for all that decides a map besides the image"""
    make: Callable[[Tensor], Tensor]
    """(3, H, W) in [0, 1] to (H, W) uint8, where 255 says nothing"""


class Method:
    """What the trainer, the evaluation and the registry know of a method."""

    Settings: type[Record] = Record
    """what the method can be told in its YAML"""

    needs: frozenset[Supervision] = frozenset()
    """kinds of supervision that it learns from, each with the samples that it is given. `mask`: the masked ones.
    `none`: all without a mask, whatever else is known of them. `tags`: those without a mask that have tags. `caption`:
    all that have a caption, which is all it sees of them. Empty: it learns nothing, and `build` makes the model."""
    takes_guide: bool = False
    """whether a training learns from a guide's labels"""
    passes: tuple[int, int] = (1, 1)
    """images that encoder and decoder process with gradients, for each image of a batch"""
    partner: bool = False
    """whether a step needs other crops of its unlabelled photos too, for CutMix"""
    restarts: tuple[float, ...] = ()
    """shares of the training after which another phase begins, with the schedule of the learning rate anew"""
    reads_text: bool = False
    """whether `build` reads text of its own with the vision-language model's text tower, `vlm.language`"""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def build(self, classes: Classes, vlm: DenseVLM, training: bool, guide: Guide | None = None) -> nn.Module:
        """The model. `guide` gives dense guidance in training, to a method that takes it.

        Parts by name: `encoder` and its `stem` have learning rates of their own. For training alone are `teacher`,
        frozen and made anew whenever it is needed; `learner`, learned and kept in checkpoints, but no part of the
        finished model; and `average`, a moving average of the model, which takes the model's place in the end.
        """
        raise NotImplementedError

    def survey(self, pools: Pools, classes: Classes) -> list[str]:
        """What is worth saying of the samples before the first step, in sentences.

        Raises:
            TrainingError: the method cannot learn from them.
        """
        return []

    def image_maps(self, model: nn.Module) -> ImageMaps | None:
        """What is to be made of each captioned image once; None where nothing is."""
        return None

    def training_step(self, model: nn.Module, batches: Batches, progress: float) -> Losses:
        """The losses of one step; `progress` goes from 0 to 1."""
        raise NotImplementedError

    def finish(self, model: nn.Module) -> None:
        """What is left to do after the last step, so that the finished model needs nothing that is for training."""

    def describe(self) -> dict[str, str]:
        """Its losses by name, in words: of what, and with which weight."""
        return {}

    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """Logits (B, N, H, W) of images (B, 3, H, W) in [0, 1]; their softmax are the probabilities.

        In evaluation those of the moving average, where the model keeps one.
        """
        return (model if model.training else getattr(model, average.NAME, model))(images)


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
    return {k: v.detach() for k, v in state.items() if k not in frozen and not k.startswith(TEACHER)}


def inference_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the finished model: of its moving average where it keeps one, without what is for training."""
    kept = getattr(model, average.NAME, model)
    return {k: v.detach().contiguous() for k, v in kept.state_dict().items() if not k.startswith((TEACHER, LEARNER))}


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


def as_planes(photo: np.ndarray) -> Tensor:
    """(3, H, W) in [0, 1] of a photo (H, W, 3) uint8."""
    return as_float(torch.from_numpy(photo.copy()).permute(2, 0, 1))
