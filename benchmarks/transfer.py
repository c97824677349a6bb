"""A class without masks, learned from tags: method transfer on scenes, or on the VOC subset, several seeds.

    python -m benchmarks.transfer --net unet               # scenes, 3 seeds: docs/transfer.md's tables
    python -m benchmarks.transfer --seeds 0 --variants     # the labels alone, by the experiment's own label net
    python -m benchmarks.transfer --data voc --seeds 0     # SEMIVL_REAL_DATA holds voc2012-subset/
    python -m benchmarks.transfer --table                  # what is finished so far, as tables

Half of the classes have masks (strong); they are 255 in the masks of the others (weak), which tags of further photos
name. The label net of a seed is learned once. Then every variant learns its model for the same steps, from the same
crops: the second phase of a training, which is the same whatever came before it. Each finished run is a line of
docs/results/transfer-DATA.jsonl; a run that has its line, by its seed, label net and number of steps, is not run again.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks.transfer_photos import Setting, Shown, scenes_setting, voc_setting
from semivl.config import IGNORE, MethodConfig
from semivl.data.stream import Batches
from semivl.evaluation.by_strength import by_strength
from semivl.evaluation.counting import by_name, confusion, iou_points, mean_iou
from semivl.evaluation.window import segment
from semivl.methods import Losses, Method, as_float, create
from semivl.methods.parts.label_transfer import LabelTransferSettings, labelled_by, mask_size
from semivl.methods.parts.losses import cross_entropy_sums, supervised_target
from semivl.nets.label_net import LabelNet
from semivl.nets.vlm import DenseVLM, load_vlm
from semivl.settings import ROOT, home
from semivl.training.step import build_optimizer, first_step, take_step

RESULTS = ROOT / "docs" / "results"
SETTINGS = {"scenes": scenes_setting, "voc": voc_setting}
ACTIVATION = {"source": "activation", "low": 0.3, "high": 0.3}
TAGS_ONLY = {"weak_weight": 0.0, "tag_weight": 1.0}
NO_DOUBTS = {"low": 1.0, "high": 1.0}
"""no background of masks is left out as doubtful; for models that learn from no labels"""
VARIANTS: dict[str, dict[str, Any]] = {
    "all masks": {},
    "label net": {},
    "activation maps": {"label_transfer": {"labels": ACTIVATION}},
    "tags only": TAGS_ONLY,
    "tags only, all counted": TAGS_ONLY | {"label_transfer": {"activation": {"likely": 0.0}}},
    "tags only, no doubts": TAGS_ONLY | {"label_transfer": {"labels": NO_DOUBTS}},
    "label net, adversary": {"adversary": {"strong": 0.01, "weak": 0.01}},
}
LABELS: dict[str, dict[str, Any]] = {
    "activation > 0.3": ACTIVATION,
    "activation x foreground": {"source": "product", "low": 0.5, "high": 0.5},
    "+ self-diffusion": {"low": 0.5, "high": 0.5},
    "+ ignore band 0.3 to 0.7": {"low": 0.3, "high": 0.7},
}
UNET_STEPS = 7200
"""of the label net on pixels, which begins with random weights"""
UNET = {"foreground": "unet", "trains": "none"}
"""its encoder serves the classifier alone, and is locked: learning from tags for long, it would draw the activation
maps to the parts that tell classes apart"""
LOOKED_AT = range(10_000, 10_030)
"""steps, none of which a training takes, whose crops tell how good labels are"""


def experiment(setting: Setting, changes: dict[str, Any]) -> Method:
    """Method transfer as the experiment sets it, with changes."""
    return create(MethodConfig(name="transfer", settings=merged(setting.config.method.settings, changes)))


def merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The settings with the changes, group by group."""
    both = {k: merged(settings[k], v) for k, v in changes.items() if isinstance(v, dict) and k in settings}
    return settings | changes | both


def phase_border(setting: Setting) -> int:
    """The first step of the second phase."""
    return first_step(setting.config.train, experiment(setting, {}).settings.first_phase)


def first_phase(setting: Setting, seed: int, vlm: DenseVLM, folder: Path) -> LabelNet:
    """The label net after the first phase; it is kept in the folder."""
    torch.manual_seed(seed)
    method = experiment(setting, {})
    model = method.build(setting.config.classes, vlm, True, vlm).train()
    net = model.get_submodule("learner.labels")
    assert isinstance(net, LabelNet)
    path = folder / f"label-net-{setting.config.train.steps}-{seed}.safetensors"
    if path.is_file():
        net.load_state_dict(load_file(path))
        return net
    learn(method, model, setting.shown(seed), 0, phase_border(setting))
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, path)
    return net


def second_phase(setting: Setting, variant: str, seed: int, vlm: DenseVLM, net: LabelNet) -> nn.Module:
    """The model of the variant after all steps."""
    shown, start = setting.shown(seed), phase_border(setting)
    torch.manual_seed(seed)
    if variant == "all masks":
        return of_all_masks(setting, shown, start, vlm)
    method = experiment(setting, VARIANTS[variant])
    model = method.build(setting.config.classes, vlm, True, vlm).train()
    model.get_submodule("learner.labels").load_state_dict(net.state_dict())
    learn(method, model, shown, start, shown.config.steps)
    return model


class AllMasks(Method):
    """The bound: a model of any method learns from true masks alone."""

    def training_step(self, model: Any, batches: Batches, progress: float) -> Losses:
        assert batches.labelled is not None
        cells = model.cells(model.features(as_float(batches.labelled.images)))
        [loss] = cross_entropy_sums(cells, [supervised_target(batches.labelled.masks)])
        return {"total": loss}


def of_all_masks(setting: Setting, shown: Shown, start: int, vlm: DenseVLM) -> nn.Module:
    """The variants' network, learned from the true masks of all photos, as many crops a step."""
    both = setting.strong_photos.and_(setting.weak_photos)
    bound, method = AllMasks(None), experiment(setting, {})
    bound.restarts = method.restarts
    double = shown.config.model_copy(update={"batch": 2 * shown.config.batch})
    shown = replace(shown, strong=both, strong_tags=both.tags(len(setting.names)), config=double)
    model = method.build(setting.config.classes, vlm, False).train()
    learn(bound, model, shown, start, double.steps)
    return model


def learn(method: Method, model: nn.Module, shown: Shown, start: int, stop: int) -> None:
    """Takes the steps, saying now and then how it goes."""
    optimizer, since = build_optimizer(model, shown.config), time.perf_counter()
    for step in range(start, stop):
        losses = take_step(method, model, optimizer, shown.step(step), shown.config, step)
        if (step + 1) % 50 == 0:
            said = " ".join(f"{name} {float(value):.3f}" for name, value in losses.items())
            print(f"  step {step + 1}, {time.perf_counter() - since:.0f} s: {said}", flush=True)


@torch.no_grad()
def label_scores(net: LabelNet, setting: Setting, seed: int) -> dict[str, float]:
    """On tagged crops: the foreground's IoU on either kind of class, and the mIoU of labels made in each way."""
    shown, classes = setting.shown(seed), len(setting.names)
    ways = {name: _transfer_settings(setting, labels) for name, labels in LABELS.items()}
    counted = {name: np.zeros((classes, classes), np.int64) for name in ways}
    weak = np.zeros(2), np.isin(np.arange(classes), setting.weak)
    strong = np.zeros(2), ~weak[1] & (np.arange(classes) > 0)
    for step in LOOKED_AT:
        crops, truth = shown.step(step).unlabelled, shown.truth(step)
        assert crops is not None
        for name, settings in ways.items():
            labels = labelled_by(net, None, crops, settings).labels
            known = labels != IGNORE
            counted[name] += confusion(truth[known], labels[known], classes).numpy()
        planes = as_float(crops.images)
        found = (net.objects(planes).probability(mask_size(truth)) > 0.5).numpy()
        for total, kind in (weak, strong):
            here = np.isin(truth, kind.nonzero()[0])
            total += [(found & here).sum(), ((found | here) & (here | (truth.numpy() == 0))).sum()]
    chosen = [0, *setting.weak]
    scores = {name: float(np.nanmean(iou_points(matrix)[chosen])) for name, matrix in counted.items()}
    foreground = {kind: 100 * total[0] / total[1] for kind, (total, _) in (("weak", weak), ("strong", strong))}
    return {f"foreground, {kind} classes": float(value) for kind, value in foreground.items()} | scores


def _transfer_settings(setting: Setting, labels: dict[str, Any]) -> LabelTransferSettings:
    return experiment(setting, {"label_transfer": {"labels": labels}}).settings.label_transfer


@torch.inference_mode()
def model_scores(model: nn.Module, setting: Setting) -> dict[str, float | None]:
    """mIoU on the evaluation photos: all, strong and weak classes, harmonic mean."""
    model.eval()
    classes, config = len(setting.names), setting.config.evaluation
    total = np.zeros((classes, classes), np.int64)
    for image, mask in zip(setting.evaluation.images, setting.evaluation.masks, strict=True):
        planes = as_float(torch.from_numpy(image).permute(2, 0, 1))
        total += confusion(torch.from_numpy(mask), segment(model, planes, classes, config), classes).numpy()
    iou = by_name(setting.names, iou_points(total))
    apart = by_strength(iou, {setting.names[i] for i in setting.weak})
    assert apart is not None
    return {"all": mean_iou(total), "strong": apart.strong_miou, "weak": apart.weak_miou, "harmonic": apart.harmonic}


def with_unet(setting: Setting) -> Setting:
    """The same with a label net on pixels, which learns for longer; as many steps as before for the model."""
    config = setting.config
    steps = UNET_STEPS + config.train.steps - phase_border(setting)
    changes = {"first_phase": UNET_STEPS / steps, "label_transfer": {"net": UNET}}
    method = MethodConfig(name="transfer", settings=merged(config.method.settings, changes))
    train = config.train.model_copy(update={"steps": steps})
    return replace(setting, config=config.model_copy(update={"method": method, "train": train}))


def finished(path: Path, steps: int, net: str) -> list[dict[str, Any]]:
    """The lines of the runs of so many steps with that label net that are done."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [line for line in lines if (line["steps"], line["net"]) == (steps, net)]


def show(lines: Sequence[dict[str, Any]]) -> None:
    """Each figure of each run: the mean over seeds, and the standard deviation where there are several."""
    for title, names in (("labels", ["labels"]), ("models", list(VARIANTS))):
        of = [line for line in lines if line["run"] in names]
        if not of:
            continue
        columns = list(of[0]["scores"])
        print(f"\n| {title} | seeds | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 2)}")
        for name in names:
            runs = [line["scores"] for line in of if line["run"] == name]
            if runs:
                print(f"| {name} | {len(runs)} | {' | '.join(_spread([r[c] for r in runs]) for c in columns)} |")


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=list(SETTINGS), default="scenes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--net", choices=["dpt", "unet"], default="dpt", help="what finds objects")
    parser.add_argument("--table", action="store_true", help="only show what is finished")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    setting = SETTINGS[chosen.data]()
    if chosen.net == "unet":
        setting = with_unet(setting)
    path = RESULTS / f"transfer-{chosen.data}.jsonl"
    if not chosen.table:
        run(setting, path, chosen.net, chosen.seeds, chosen.variants)
    show(finished(path, setting.config.train.steps, chosen.net))


def run(setting: Setting, path: Path, kind: str, seeds: Sequence[int], variants: Sequence[str]) -> None:
    """Does what is not done yet, a seed after the other, and adds its lines."""
    steps = setting.config.train.steps
    vlm = load_vlm(setting.config.vlm, setting.config.classes, setting.config.train.crop)
    path.parent.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        done = {line["run"] for line in finished(path, steps, kind) if line["seed"] == seed}
        if done.issuperset(("labels", *variants)):
            continue
        net = first_phase(setting, seed, vlm, home() / "bench" / path.stem)
        for name in (n for n in ("labels", *variants) if n not in done):
            since = time.perf_counter()
            if name == "labels":
                scores: dict[str, Any] = label_scores(net, setting, seed)
            else:
                scores = model_scores(second_phase(setting, name, seed, vlm, net), setting)
            line = {"run": name, "seed": seed, "steps": steps, "net": kind}
            line["scores"] = {k: round(v, 2) for k, v in scores.items()}
            line["seconds"] = round(time.perf_counter() - since)
            print(json.dumps(line), flush=True)
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
