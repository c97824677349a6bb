"""A class without masks, learned from tags: method transfer on scenes, or on the VOC subset, several seeds.

    python -m benchmarks.transfer                          # scenes, 3 seeds: docs/transfer.md's tables
    python -m benchmarks.transfer --data voc --seeds 1     # SEMIVL_REAL_DATA holds voc2012-subset/
    python -m benchmarks.transfer --table                  # what is finished so far, as tables

Half of the classes have masks (strong); the others are 255 in the masks and are only named by the tags of other
photos (weak). The label net of a seed is learned once. Then every variant learns its model for the same steps, from
the same crops: the second phase of a training, which is the same whatever came before it. Each finished run is a
line of docs/results/transfer-DATA.jsonl; a run that has its line is not run again.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.transfer_photos import Photos, Shown, scenes, voc
from semivl.config import IGNORE, Classes, Config, EvaluationConfig, MethodConfig, load
from semivl.data.stream import Batches, Unlabelled
from semivl.evaluation.counting import confusion, iou_points
from semivl.evaluation.window import segment
from semivl.methods import Method, as_float, create
from semivl.methods.parts.label_transfer import LabelTransferSettings, labelled_by
from semivl.nets.label_net import LabelNet
from semivl.nets.vlm import DenseVLM, load_vlm
from semivl.settings import ROOT
from semivl.training.step import build_optimizer, take_step

RESULTS = ROOT / "docs" / "results"
VARIANTS: dict[str, dict[str, Any]] = {
    "label net": {},
    "activation maps": {"label_transfer": {"labels": {"source": "activation", "low": 0.3, "high": 0.3}}},
    "tags only": {"weak_weight": 0.0, "tag_weight": 1.0},
    "adversary": {"adversary": {"strong": 0.01, "weak": 0.01}},
    "all masks": {},
}
LABELS: dict[str, dict[str, Any]] = {
    "activation > 0.3": {"source": "activation", "low": 0.3, "high": 0.3},
    "activation x foreground": {"source": "product", "low": 0.5, "high": 0.5},
    "+ self-diffusion": {"low": 0.5, "high": 0.5},
    "+ ignore band 0.3 to 0.7": {"low": 0.3, "high": 0.7},
}
LOOKED_AT = 150
"""tagged photos whose labels are compared with their true masks"""


@dataclass(frozen=True)
class Setting:
    """A data set divided into strong and weak classes."""

    config: Config
    names: tuple[str, ...]
    weak: tuple[int, ...]
    strong_photos: Photos
    weak_photos: Photos
    evaluation: Photos

    def shown(self, seed: int) -> Shown:
        """What a training of that seed sees."""
        n, train = len(self.names), self.config.train.model_copy(update={"seed": seed})
        hidden = self.strong_photos.hiding(self.weak)
        return Shown(hidden, self.weak_photos, self.strong_photos.tags(n), self.weak_photos.tags(n), train)


def scenes_setting(overrides: dict[str, Any]) -> Setting:
    """300 scenes with masks of cat, duck, car and mushroom, and 600 with complete tags."""
    config = load("scenes-transfer", overrides)
    names = config.classes.names
    weak = tuple(names.index(name) for name in ("fox", "hen", "truck", "umbrella"))
    photos = (scenes("labelled", 300), scenes("unlabelled", 600), scenes("evaluation", 120))
    return Setting(config, names, weak, *photos)


SETTINGS = {"scenes": scenes_setting}


def experiment(setting: Setting, variant: str) -> Method:
    """The method of a variant."""
    settings = setting.config.method.settings
    if variant == "all masks":
        kept = {name: settings[name] for name in ("decoder", "text", "trains") if name in settings}
        return create(MethodConfig(name="supervised", settings=kept))
    return create(MethodConfig(name="transfer", settings=merged(settings, VARIANTS[variant])))


def merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The settings with the changes, group by group."""
    both = {k: merged(settings[k], v) for k, v in changes.items() if isinstance(v, dict) and k in settings}
    return settings | changes | both


def first_phase(setting: Setting, seed: int, vlm: DenseVLM) -> nn.Module:
    """The model of a training whose first phase is over."""
    shown = setting.shown(seed)
    torch.manual_seed(seed)
    method = experiment(setting, "label net")
    model = method.build(setting.config.classes, vlm, True, vlm).train()
    last = round(method.settings.first_phase * shown.config.steps)
    learn(method, model, shown, 0, last)
    return model


def second_phase(setting: Setting, variant: str, seed: int, vlm: DenseVLM, first: nn.Module) -> Method:
    """The method of the variant and its trained model."""
    shown, method = setting.shown(seed), experiment(setting, variant)
    if variant == "all masks":
        n, double = len(setting.names), shown.config.model_copy(update={"batch": 2 * shown.config.batch})
        both = Photos([*setting.strong_photos.images, *setting.weak_photos.images],
                      [*setting.strong_photos.masks, *setting.weak_photos.masks])  # fmt: skip
        shown = replace(shown, strong=both, strong_tags=both.tags(n), config=double)
    torch.manual_seed(seed)
    model = method.build(setting.config.classes, vlm, True, vlm).train()
    learned = first.state_dict()
    own = model.state_dict()
    model.load_state_dict({k: learned[k] if k in learned and "discriminator" not in k else own[k] for k in own})
    start = round(0.4 * shown.config.steps)
    learn(method, model, shown, start, shown.config.steps)
    return method, model


def learn(method: Method, model: nn.Module, shown: Shown, start: int, stop: int) -> None:
    """Takes the steps, saying now and then how it goes."""
    optimizer, since = build_optimizer(model, shown.config), time.perf_counter()
    for step in range(start, stop):
        losses = take_step(method, model, optimizer, shown.step(step), shown.config, step)
        if (step + 1) % 50 == 0:
            said = " ".join(f"{name} {float(value):.3f}" for name, value in losses.items())
            print(f"  step {step + 1}, {time.perf_counter() - since:.0f} s: {said}", flush=True)


@torch.no_grad()
def foreground_iou(net: LabelNet, photos: Photos, classes: tuple[int, ...]) -> float:
    """IoU in points of object against background, other classes' pixels left out, on photos that show the classes."""
    both = either = 0
    for image, mask in zip(photos.images, photos.masks, strict=True):
        counted = np.isin(mask, (0, *classes))
        truth = np.isin(mask, classes)
        if not truth.any():
            continue
        planes = as_float(torch.from_numpy(image).permute(2, 0, 1)[None])
        found = net.objects(net.maps(planes)).probability(mask.shape)[0].numpy() > 0.5
        both += int((found & truth).sum())
        either += int(((found | truth) & counted).sum())
    return 100 * both / either


@torch.no_grad()
def label_scores(net: LabelNet, photos: Photos, tags: Tensor, settings: LabelTransferSettings) -> np.ndarray:
    """(N,) IoU in points of the labels that are made of tagged photos, 255 left out."""
    classes = tags.shape[1]
    total = np.zeros((classes, classes), np.int64)
    for place, (image, mask) in enumerate(zip(photos.images, photos.masks, strict=True)):
        planes = torch.from_numpy(image).permute(2, 0, 1)[None]
        nothing = torch.zeros(1, *mask.shape, dtype=torch.bool)
        shown = Unlabelled(planes, nothing, None, tags[place : place + 1])
        labels = labelled_by(net, None, shown, settings).labels[0]
        known = labels != IGNORE
        total += confusion(torch.from_numpy(mask)[known], labels[known], classes).numpy()
    return iou_points(total)
