"""CoDe against the dense map of the very same vision-language model, on scenes whose captions leave much out.

    python -m benchmarks.co_decomposition                  # three seeds, ablations: some 30 minutes on one thread
    python -m benchmarks.co_decomposition --seeds 1 --variants full

Images and captions alone are learned from: 600 scenes, whose captions leave out 35 % of what can be seen. Both kinds of
map are scored on 120 other scenes by two rules for the background: a constant, for each map the best of 40 on 32 masked
scenes of which nothing else is learned; and the class map's phrases for it. The dense map is the last block's value
path against the best definition of each class (MaskCLIP), as cosines and as the softmax that guidance takes; PAMR
refines either at twice the patch grid, which is CoDe's resolution here.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.tiny_clip import as_batch, iou
from semivl.config import Config, MethodConfig, load
from semivl.data.scenes_compose import Scene, scene
from semivl.data.stream import Batches, Captioned
from semivl.methods import Method, create
from semivl.methods.co_decomposition import Weights
from semivl.methods.parts.code_model import CoDeModel
from semivl.nets.pamr import pamr
from semivl.nets.vlm import DenseVLM, concept_cosines, load_vlm
from semivl.training.step import build_optimizer, take_step

SEED, SIDE, MENTIONED = 0, 128, 0.65
COUNTS = {"unlabelled": 600, "labelled": 32, "evaluation": 120}
CHUNK = 12
VARIANTS: dict[str, dict[str, float]] = {
    "full": {},
    "without words": {"word": 0.0, "tokens": 0.0},
    "image contrast alone": {"feature": 0.0, "word": 0.0, "tokens": 0.0},
    "released weights": Weights().model_dump(),  # pyright: ignore[reportCallIssue]
}
"""weights that differ from the experiment's"""
Scenes = list[Scene]
Scorer = Callable[[Tensor], Tensor]
"""images (B, 3, S, S) in [0, 1] to scores (B, N, S, S) of the classes, background the first"""


class Scored(NamedTuple):
    """mIoU in percent by the two rules for the background."""

    constant: float
    phrases: float


def drawn(split: str, count: int) -> Scenes:
    """The first scenes of a split."""
    return [scene(SEED, split, i, SIDE, mentioned=MENTIONED) for i in range(count)]


def batch_of(scenes: Sequence[Scene], side: int, random: np.random.Generator | None = None) -> Batches:
    """The scenes at `side` pixels with their captions; half of them mirrored where there is a generator."""
    images = F.interpolate(as_batch(list(scenes)), size=(side, side), mode="bilinear", antialias=True)
    if random is not None:
        mirrored = torch.from_numpy(random.random(len(scenes)) < 0.5)
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    pixels = (255 * images).round().clamp(0, 255).byte()
    nothing = torch.zeros(len(scenes), side, side, dtype=torch.bool)
    return Batches(captioned=Captioned(pixels, nothing, tuple(s.caption for s in scenes)))


def trained(config: Config, method: Method, vlm: DenseVLM, scenes: Scenes) -> CoDeModel:
    """A model after the experiment's steps; it keeps what is for training alone."""
    t = config.train
    torch.manual_seed(t.seed)
    model = method.build(config.classes, vlm, True).train()
    optimizer, random = build_optimizer(model, t), np.random.default_rng(t.seed)
    order = np.concatenate([random.permutation(len(scenes)) for _ in range(t.steps * t.batch // len(scenes) + 1)])
    for step in range(t.steps):
        chosen = [scenes[i] for i in order[step * t.batch : (step + 1) * t.batch]]
        take_step(method, model, optimizer, batch_of(chosen, t.crop, random), t, step)
    method.finish(model)
    assert isinstance(model, CoDeModel)
    return model.eval()


@torch.no_grad()
def held_out(method: Method, model: nn.Module, scenes: Scenes, side: int) -> dict[str, float]:
    """Percent of rightly sorted noun tokens, and the mean area of nouns' masks, on captioned scenes never seen."""
    torch.manual_seed(0)
    found = [method.training_step(model, batch_of(scenes[i : i + 24], side), 1.0) for i in range(0, len(scenes), 24)]
    return {name: 100 * statistics.mean(float(f[name]) for f in found) for name in ("words_right", "area")}


def by_classes(model: CoDeModel, kept: float, iterations: int) -> Scorer:
    """The model's scores with that much of the frozen encoder's masks and of PAMR, the background by its phrases."""
    model.inference = model.inference.model_copy(update={"kept": kept, "pamr": iterations})
    return model.scores


def dense(vlm: DenseVLM, scale: float, refined: bool) -> Scorer:
    """The dense map: cosines where `scale` is 0, else their softmax at that scale; refined by PAMR or not."""
    text = vlm.required_text("this benchmark")

    def scores(images: Tensor) -> Tensor:
        maps = concept_cosines(vlm.encoder(images), text.phrases, text.phrase_class, len(text.names))
        maps = (scale * maps).softmax(1) if scale else maps
        if refined:
            maps = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
            maps = pamr(images, maps, dilations=(1, 2, 4))
        return F.interpolate(maps, size=images.shape[-2:], mode="bilinear", align_corners=False)

    return scores


@torch.no_grad()
def scored(scorer: Scorer, masked: Scenes, evaluation: Scenes) -> Scored:
    """mIoU on the evaluation scenes; the constant is chosen on the masked ones."""
    (known, known_masks), (asked, asked_masks) = (_scores(scorer, scenes) for scenes in (masked, evaluation))
    highest = known[:, 1:].amax(1).flatten()[::50]
    constants = torch.quantile(highest, torch.linspace(0.3, 0.99, 40)).tolist()
    best = max(constants, key=lambda c: _miou(_with_constant(known, c), known_masks))
    return Scored(_miou(_with_constant(asked, best), asked_masks), _miou(asked, asked_masks))


def _scores(scorer: Scorer, scenes: Scenes) -> tuple[Tensor, Tensor]:
    images, masks = as_batch(scenes), torch.from_numpy(np.stack([s.mask for s in scenes]))
    return torch.cat([scorer(chunk) for chunk in images.split(CHUNK)]), masks


def _with_constant(scores: Tensor, constant: float) -> Tensor:
    return torch.cat([torch.full_like(scores[:, :1], constant), scores[:, 1:]], dim=1)


def _miou(scores: Tensor, masks: Tensor) -> float:
    return iou(scores, masks).nanmean().item()


def experiment(variant: str, seed: int) -> tuple[Config, Method]:
    """conf/experiment/scenes-code.yaml with the variant's weights and the seed."""
    config = load("scenes-code", {"train": {"seed": seed}})
    settings: dict[str, Any] = config.model_dump(mode="json")["method"]["settings"]
    settings["weights"] |= VARIANTS[variant]
    return config, create(MethodConfig(name=config.method.name, settings=settings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    captioned, masked, evaluation = (drawn(*of_split) for of_split in COUNTS.items())
    config, _ = experiment("full", 0)
    vlm = load_vlm(config.vlm, config.classes, SIDE, language=True)
    print("| map | background by a constant | by phrases |\n|---|---|---|")
    for name, scale, refined in (
        ("dense map, cosines", 0.0, False),
        ("dense map, cosines, PAMR", 0.0, True),
        ("dense map, softmax, PAMR", 100.0, True),
    ):
        row(name, [scored(dense(vlm, scale, refined), masked, evaluation)])
    for variant in chosen.variants:
        run(variant, chosen.seeds, captioned, masked, evaluation)


def run(variant: str, seeds: int, captioned: Scenes, masked: Scenes, evaluation: Scenes) -> None:
    """Trains and scores a variant, and prints its rows."""
    plain, refined, mixed, told = [], [], [], []
    for seed in range(seeds):
        config, method = experiment(variant, seed)
        since = time.process_time()
        vlm = load_vlm(config.vlm, config.classes, config.train.crop, language=True)
        model = trained(config, method, vlm, captioned)
        told.append(held_out(method, model, evaluation, config.train.crop) | {"seconds": time.process_time() - since})
        del model.learner, model.teacher
        plain.append(scored(by_classes(model, 0.0, 0), masked, evaluation))
        refined.append(scored(by_classes(model, 0.0, 10), masked, evaluation))
        mixed.append(scored(by_classes(model, 0.3, 10), masked, evaluation))
    row(f"CoDe, {variant}: masks", plain)
    row(f"CoDe, {variant}: masks, PAMR", refined)
    row(f"CoDe, {variant}: masks, PAMR, 0.3 frozen", mixed)
    each = {name: " ".join(f"{t[name]:.1f}" for t in told) for name in told[0]}
    print(
        f"{variant}: noun tokens right {each['words_right']} %, mean area of a noun's mask {each['area']} %, "
        f"CPU seconds a training {each['seconds']}",
        flush=True,
    )


def row(name: str, scores: Sequence[Scored]) -> None:
    """A row of the table: each seed, and the mean of several."""
    cells = []
    for values in zip(*scores, strict=True):
        mean = f" (mean {statistics.mean(values):.1f})" if len(values) > 1 else ""
        cells.append(" ".join(f"{v:.1f}" for v in values) + mean)
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
