"""How well a small CLIP names and finds what is in fresh scenes, without any mask to learn from.

    python -m benchmarks.tiny_clip                 # the shipped one, conf/vlm/tiny.yaml
    python -m benchmarks.tiny_clip --vlm local-dir:OUT --scenes 50

Prints the zero-shot top-1 of whole images of one object, and for dense maps (the last block's value path, spec
semivl.md 2.6: softmax of 100 * cosine, best definition a class) mIoU, and precision against coverage.
"""

import argparse
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from semivl.config import CONF, IGNORE, Classes, VlmConfig, check
from semivl.data.scenes_compose import Scene, scene
from semivl.language.text import definition_embeddings
from semivl.nets.open_clip_loading import load_open_clip
from semivl.nets.vlm import concept_cosines, load_vlm

SEED = 77
"""of the fresh scenes: neither the demo's nor the pretraining's"""
SIZE = 128
THRESHOLDS = (0.0, 0.5, 0.7, 0.9, 0.95, 0.99)


class Confident(NamedTuple):
    """What holds among the pixels whose confidence reaches a threshold, all in percent."""

    threshold: float
    coverage: float
    """share of all pixels"""
    accuracy: float
    precision: float
    """share of right ones among those called an object"""
    found: float
    """share of all object pixels that are rightly named"""


def fresh_scenes(count: int, objects: int | None = None) -> list[Scene]:
    return [scene(SEED, "evaluation", i, SIZE, objects) for i in range(count)]


def as_batch(scenes: list[Scene]) -> Tensor:
    """(B, 3, S, S) float32 in [0, 1]."""
    return torch.from_numpy(np.stack([s.image for s in scenes])).permute(0, 3, 1, 2).float() / 255


@torch.inference_mode()
def top_1(vlm: VlmConfig, classes: Classes, scenes: list[Scene]) -> float:
    """Percent of one-object scenes whose object is named right, by the whole image's embedding, among objects."""
    loaded, tokenizer = load_open_clip(vlm)
    model: Any = loaded
    phrases, owner = definition_embeddings(model, tokenizer, classes)
    preprocess: Any = model.visual.preprocess_cfg
    mean, std = (torch.tensor(preprocess[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    right = 0
    for chunk in _chunks(scenes):
        cosines = model.encode_image((as_batch(chunk) - mean) / std, normalize=True) @ phrases.T
        cosines[:, owner == 0] = -1
        named = owner[cosines.argmax(1)].tolist()
        right += sum(classes.names[n] == s.objects[0] for n, s in zip(named, chunk, strict=True))
    return 100 * right / len(scenes)


@torch.inference_mode()
def dense_probabilities(vlm: VlmConfig, classes: Classes, scenes: list[Scene]) -> Tensor:
    """(B, N, S, S) float32 as dense guidance has it."""
    loaded = load_vlm(vlm, classes, SIZE)
    encoder, text = loaded.encoder.eval(), loaded.required_text("this benchmark")
    found = []
    for chunk in _chunks(scenes):
        cosines = concept_cosines(encoder(as_batch(chunk)), text.phrases, text.phrase_class, len(classes))
        cosines = F.interpolate(cosines, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        found.append((100 * cosines).softmax(1))
    return torch.cat(found)


def iou(probabilities: Tensor, masks: Tensor) -> Tensor:
    """(N,) IoU in percent of the most probable classes; ignored pixels do not count."""
    count, valid = probabilities.shape[1], masks != IGNORE
    pairs = masks[valid].long() * count + probabilities.argmax(1)[valid]
    table = torch.bincount(pairs, minlength=count**2).view(count, count).double()
    return 100 * table.diagonal() / (table.sum(0) + table.sum(1) - table.diagonal())


def confident(probabilities: Tensor, masks: Tensor, threshold: float) -> Confident:
    """What holds where the largest probability is at least `threshold`."""
    confidence, named = probabilities.max(1)
    valid = masks != IGNORE
    sure = (confidence >= threshold) & valid
    right = sure & (named == masks)
    objects = sure & (named > 0)
    true_objects = valid & (masks > 0)

    def percent(part: Tensor, whole: Tensor) -> float:
        return 100 * (part.sum() / whole.sum().clamp(min=1)).item()

    return Confident(
        threshold,
        percent(sure, valid),
        percent(right, sure),
        percent(right & objects, objects),
        percent(right & true_objects, true_objects),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--vlm", default=None, help="local-dir:PATH; conf/vlm/tiny.yaml where empty")
    parser.add_argument("--scenes", type=int, default=200)
    options = parser.parse_args()
    from omegaconf import OmegaConf

    classes = check(Classes, OmegaConf.to_container(OmegaConf.load(CONF / "classes" / "scenes.yaml")), "scenes")
    described = OmegaConf.to_container(OmegaConf.load(CONF / "vlm" / "tiny.yaml"))
    assert isinstance(described, dict)
    vlm = check(VlmConfig, described | ({"model": options.vlm} if options.vlm else {}), "vlm")
    single = fresh_scenes(options.scenes, objects=1)
    print(f"zero-shot top-1, {options.scenes} scenes of one object: {top_1(vlm, classes, single):.1f} %")
    scenes = fresh_scenes(options.scenes)
    masks = torch.from_numpy(np.stack([s.mask for s in scenes]))
    probabilities = dense_probabilities(vlm, classes, scenes)
    scores = iou(probabilities, masks)
    print(f"dense zero-shot mIoU, {options.scenes} scenes: {scores.nanmean():.1f}")
    print("  " + "  ".join(f"{n} {v:.0f}" for n, v in zip(classes.names, scores.tolist(), strict=True)))
    print("confidence  coverage  accuracy  precision of objects  objects found")
    for threshold in THRESHOLDS:
        c = confident(probabilities, masks, threshold)
        row = f">= {c.threshold:4.2f}     {c.coverage:7.1f}  {c.accuracy:8.1f}  {c.precision:20.1f}  {c.found:13.1f}"
        print(row)


def _chunks(scenes: list[Scene], size: int = 50) -> list[list[Scene]]:
    return [scenes[i : i + size] for i in range(0, len(scenes), size)]


if __name__ == "__main__":
    main()
