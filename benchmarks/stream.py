"""Unlabelled samples of SemiVL per CPU second against the published recipe (benchmarks/recipe.py), in one run.

    python -m benchmarks.stream                     # made JPEGs of 500 x 375
    python -m benchmarks.stream --photos FOLDER     # real ones

One thread each, taking turns on the same JPEGs; CPU time counts, not the clock. A photo's two crops (spec 1.3: CutMix
is filled from another crop of the same photo) are two samples of the recipe, which decodes the photo twice. Ours is
everything that is done on the CPU, from the shard in the cache to the batch of uint8 crops. What the recipe does to
colours, we do on the device in batches; what that would cost on this CPU is the row below.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision

from benchmarks import jpegs, recipe
from semivl.config import TrainConfig
from semivl.data.stream import Steps, Unlabelled
from semivl.methods import as_float
from semivl.methods.parts.views import cutmix_boxes, mixed, strong_view

BATCH, BAR = 8, 6.0
MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def settings(**other: object) -> TrainConfig:
    return TrainConfig(batch=BATCH, crop=512, short_side=512).model_copy(update=other)  # pyright: ignore[reportCallIssue]


def colours(views: list[Unlabelled]) -> None:
    """Strong views, CutMix and normalisation, as a training step makes them on the device."""
    weak, *others = (as_float(view.images) for view in views)
    partner = others[0] if others else weak.flip(0)
    for _ in range(2):
        boxes = cutmix_boxes(len(weak), weak.shape[-1])
        strong = strong_view(weak)
        with_boxes = mixed(strong, strong_view(partner) if others else strong.flip(0), boxes)
        (with_boxes - MEAN[:, None, None]).div_(DEVIATION[:, None, None])
    (weak - MEAN[:, None, None]).div_(DEVIATION[:, None, None])


def in_turns(ways: dict[str, Callable[[int], object]], rounds: int) -> dict[str, float]:
    """CPU seconds of each for a batch: the median of the rounds, after one to warm up."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            since = time.process_time()
            way(number)
            spent[name].append(time.process_time() - since)
    return {name: float(np.median(seconds[1:])) for name, seconds in spent.items()}


def compare(title: str, images: list[bytes], steps: Steps, rounds: int) -> float:
    """Prints the table; how many times as fast as the recipe."""
    published, each = recipe.Recipe(), 2 if steps.partner else 1
    made = [steps.views(0)]

    def theirs(step: int) -> None:
        for place in range(step * BATCH, (step + 1) * BATCH):
            for _ in range(each):
                published.sample(images[place % len(images)])

    def ours(step: int) -> None:
        made[0] = steps.views(step)

    recipe.seed(0)
    spent = in_turns({"theirs": theirs, "ours": ours, "colours": lambda _: colours(made[0])}, rounds)
    samples = BATCH * each
    base = samples / spent["theirs"]
    print(f"\n{title}\n\n| | samples per CPU second | ms a sample | times the recipe's |\n|---|---|---|---|")
    for name, seconds in (
        ("the recipe: decode, crop, two strong views, three normalised float tensors", spent["theirs"]),
        ("ours on the CPU: read, decode, crop, batch of uint8", spent["ours"]),
        ("left to the device, were it this CPU: colour, grey, blur, CutMix, normalisation", spent["colours"]),
        ("ours with that, all on this CPU", spent["ours"] + spent["colours"]),
    ):
        speed = samples / seconds
        print(f"| {name} | {speed:.1f} | {1000 / speed:.2f} | {speed / base:.2f} |")
    return spent["theirs"] / spent["ours"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of real JPEGs")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=8, help="batches of 8 that each way makes, after the first")
    a = parser.parse_args()
    torch.set_num_threads(1)
    images = jpegs.jpegs(a.images, a.photos)
    print(
        f"{os.cpu_count()} CPU cores, {platform.machine()}, one thread; torch {torch.__version__}, torchvision "
        f"{torchvision.__version__}, Pillow {PIL.__version__}; {jpegs.described(images)}"
    )
    paper = settings(long_side=2048, antialias=False)
    with tempfile.TemporaryDirectory() as folder:
        cache, rows = jpegs.cached(images, Path(folder) / "shards")
        ratios = [
            compare(title, images, Steps(cache, [], rows, config, partner), a.rounds)
            for title, config, partner in (
                ("One crop of a photo (cutmix_partner: reversed)", settings(), False),
                ("Two crops of a photo, as SemiVL uses them", settings(), True),
                ("Two crops of a photo, resized as VOC's experiment has it (paper-voc: no low-pass)", paper, True),
            )
        ]
    print(f"\nbar: at least {BAR:.0f} times the recipe's; the least of these is {min(ratios):.1f}")


if __name__ == "__main__":
    main()
