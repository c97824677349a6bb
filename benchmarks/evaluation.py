"""Evaluation as it is done here against the reference way, on the same photos with the same weights, in one run.

    python -m benchmarks.evaluation --source FOLDER      # the photos that FOLDER/splits/val.txt names, with their masks
    python -m benchmarks.evaluation                      # noise of 320 x 240, where there are none
    python -m benchmarks.evaluation --model BUNDLE --source FOLDER

The reference way is the published one, written plainly: a photo at a time, a window at a time, the logits of all
classes at the photo's size, numpy's histogram in two dimensions. It runs the very modules that were trained, all
classes at once. Ours is what `semivl-evaluate` runs; it counts boundaries, calibration and confidence too, which the
reference does not.

Both read and decode their photos; they take turns of a few photos, so that a busy machine slows both alike. Without
--model the weights are drawn from a seed: the scores mean nothing, and equal they must be all the same. `tiny` is the
model of conf/experiment/voc-subset.yaml; `vit-b16` has CLIP ViT-B/16's shapes and the paper's decoder. mIoU is a share.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.cost import paper_vlm
from semivl.config import IGNORE, EvaluationConfig, MethodConfig, load
from semivl.data.decode import decode_image, decode_mask
from semivl.data.headers import read_header
from semivl.evaluation.counting import mean_iou
from semivl.evaluation.evaluate import counted_groups
from semivl.evaluation.split import Pair
from semivl.evaluation.window import windows
from semivl.methods import create
from semivl.nets.decoder import decode_in_chunks
from semivl.nets.vlm import load_vlm
from semivl.training.bundle import Predictor, load_bundle, save_bundle

TURN = 16
"""photos that one way takes before the other has its turn with them"""


class Photo(NamedTuple):
    """Where a photo and its mask are, or their pixels where they are made."""

    height: int
    width: int
    read: Callable[[], Pair]


class Cost(NamedTuple):
    """Of one way, so far."""

    seconds: float
    cpu_seconds: float
    confusion: np.ndarray

    def plus(self, other: "Cost") -> "Cost":
        return Cost(
            self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds, self.confusion + other.confusion
        )


def photos_of(source: Path, count: int | None) -> list[Photo]:
    """The photos that splits/val.txt names, evenly chosen where they are to be fewer."""
    lines = [line.split() for line in (source / "splits" / "val.txt").read_text().splitlines() if line.strip()]
    chosen = lines[:: max(1, len(lines) // count)][:count] if count else lines

    def photo(image: Path, mask: Path) -> Photo:
        header = read_header(image.read_bytes())
        return Photo(
            header.height, header.width, lambda: (decode_image(image.read_bytes()), decode_mask(mask.read_bytes()))
        )

    return [photo(source / image, source / mask) for image, mask in chosen]


def made_photos(count: int) -> list[Photo]:
    """Noise, with masks of large areas."""

    def photo(number: int) -> Photo:
        random = np.random.default_rng(number)
        height, width = (240, 320) if number % 4 else (320, 240)
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        mask = np.kron(random.integers(0, 21, (4, 4)), np.ones((80, 80), int))[:height, :width].astype(np.uint8)
        return Photo(height, width, lambda: (pixels, mask))

    return [photo(number) for number in range(count)]


def drawn_model(shape: str, folder: Path) -> Path:
    """The bundle of a model of 21 classes whose decoder was drawn from a seed; of `vit-b16` the encoder too."""
    config = load("voc-subset").model_copy(update={"evaluation": EvaluationConfig()})  # pyright: ignore[reportCallIssue]
    if shape == "vit-b16":
        config = config.model_copy(update={"method": MethodConfig(name="semivl")})
    vlm = paper_vlm(len(config.classes), 320) if shape == "vit-b16" else load_vlm(config.vlm, config.classes, 320)
    torch.manual_seed(0)
    model = create(config.method).build(config.classes, vlm, training=False)
    save_bundle(folder, config, model, model.encoder.architecture)  # pyright: ignore
    return folder


@torch.inference_mode()
def reference(predictor: Predictor, photos: Sequence[Photo]) -> np.ndarray:
    """(N, N) pixels by truth and prediction, the plain way."""
    model, classes = predictor.model, len(predictor.classes)
    decode_in_chunks(model, None)
    total = np.zeros((classes, classes), dtype=np.int64)
    for photo in photos:
        pixels, truth = photo.read()
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
        logits, visits = torch.zeros(classes, *truth.shape), torch.zeros(truth.shape)
        for window in windows(truth.shape, predictor.evaluation):
            logits[:, window.rows, window.columns] += predictor.method.predict(model, window.cut(image)[None])[0]
            visits[window.rows, window.columns] += 1
        mask = (logits / visits).argmax(0).numpy()
        kept = truth != IGNORE
        edges = np.arange(classes + 1)
        total += np.histogram2d(truth[kept], mask[kept], bins=(edges, edges))[0].astype(np.int64)
    return total


def ours(predictor: Predictor, photos: Sequence[Photo]) -> np.ndarray:
    """The same as `semivl-evaluate` counts it."""
    found = counted_groups(predictor, photos, lambda photo: photo.read())
    return np.sum([counted.confusion.sum(0) for _, counted, _ in found], 0)


def timed(way: Callable[[Predictor, Sequence[Photo]], np.ndarray], predictor: Predictor, photos: list[Photo]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    matrix = way(predictor, photos)
    return Cost(time.perf_counter() - wall, time.process_time() - cpu, matrix)


def compare(name: str, predictor: Predictor, photos: list[Photo]) -> None:
    by_size = sorted(photos, key=lambda photo: (photo.height, photo.width))
    for way in (reference, ours):
        way(predictor, by_size[:1])
    plain = quick = Cost(0.0, 0.0, np.zeros((len(predictor.classes),) * 2, dtype=np.int64))
    for turn, first in enumerate(range(0, len(by_size), TURN)):
        some = by_size[first : first + TURN]
        if turn % 2:
            quick = quick.plus(timed(ours, predictor, some))
        plain = plain.plus(timed(reference, predictor, some))
        if not turn % 2:
            quick = quick.plus(timed(ours, predictor, some))
    mious = [(mean_iou(cost.confusion) or 0.0) / 100 for cost in (plain, quick)]
    moved = np.abs(plain.confusion - quick.confusion).sum() // 2
    print(
        f"| {name} | {len(photos)} | {plain.seconds:.1f} | {quick.seconds:.1f} | {plain.seconds / quick.seconds:.2f} "
        f"| {plain.cpu_seconds / quick.cpu_seconds:.2f} | {mious[0]:.8f} | {mious[1]:.8f} "
        f"| {abs(mious[0] - mious[1]):.1e} | {moved} of {plain.confusion.sum():,} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="folder with splits/val.txt; noise where left out")
    parser.add_argument("--photos", type=int, help="how many; all, or 48 of noise")
    parser.add_argument("--model", type=Path, help="folder of a trained model")
    parser.add_argument("--shapes", nargs="+", default=["tiny"], choices=["tiny", "vit-b16"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    photos = photos_of(given.source, given.photos) if given.source else made_photos(given.photos or 48)
    print(f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}, {given.threads} threads")
    print(
        "| model | photos | reference, s | ours, s | times faster | by CPU seconds | mIoU, reference | mIoU, ours "
        "| difference | pixels called otherwise |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as place:
        bundles = {given.model.name: given.model} if given.model else {}
        for shape in [] if given.model else given.shapes:
            bundles[f"{shape}, drawn weights"] = drawn_model(shape, Path(place) / shape)
        for name, folder in bundles.items():
            compare(name, load_bundle(folder), photos)


if __name__ == "__main__":
    main()
