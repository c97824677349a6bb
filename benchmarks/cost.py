"""Time and memory of one SemiVL training step with the savings of spec 7 and without any (benchmarks.plain).

    python -m benchmarks.cost                            # VOC's and ADE20K's shapes, paper-sized
    python -m benchmarks.cost --shapes voc --crop 256 --repeats 3

Both compute the same on the same inputs with the same weights (random ones: cost does not depend on them). Saved
activations are the tensors that live between the losses and their gradients, weights left out. A GPU, where there is
one, is also measured in bf16 and with torch.compile.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import plain
from semivl.config import Classes, ComputeConfig, MethodConfig, TrainConfig, check
from semivl.data.stream import Batches, Labelled, Unlabelled
from semivl.language.text import ClassText
from semivl.methods import create
from semivl.methods.semivl import SemiVL
from semivl.nets.encoder import Architecture, DenseEncoder
from semivl.nets.segmenter import Segmenter
from semivl.nets.vlm import DenseVLM
from semivl.training.memory import MIB, LiveBytes
from semivl.training.step import build_optimizer
from semivl.training.trainer import apply_compute

SHAPES = {"voc": 21, "ade": 150}
PLAIN_GIB = {"voc": 11, "ade": 34}
"""what the plain step needs at 512 pixels for each image of the batch, from spec 7's bytes saved for the way back"""


class Cost(NamedTuple):
    """Of one training step."""

    seconds: float
    saved: float
    """MiB that are kept for the way back, between the losses and their gradients"""
    peak: float
    """MiB at the most beside weights and optimiser state"""
    loss: float


def paper_vlm(classes: int, crop: int) -> DenseVLM:
    """CLIP ViT-B/16's shapes with random weights."""
    architecture = Architecture(
        width=768, layers=12, heads=12, mlp=3072, patch=16, embedding=512, grid=(crop // 16, crop // 16),
        gelu="exact", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), skip_blocks=(0, 4),
    )  # fmt: skip
    torch.manual_seed(0)
    text = F.normalize(torch.randn(classes, 512), dim=1)
    return DenseVLM(DenseEncoder(architecture), ClassText(text, text, text, torch.arange(classes)))


def noise(batch: int, classes: int, crop: int, device: torch.device) -> Batches:
    torch.manual_seed(1)
    nothing = torch.zeros(batch, crop, crop, dtype=torch.bool)
    images = [torch.randint(0, 256, (batch, 3, crop, crop), dtype=torch.uint8) for _ in range(3)]
    labelled = Labelled(images[0], torch.randint(0, classes, (batch, crop, crop)))
    return Batches(labelled, Unlabelled(images[1], nothing), Unlabelled(images[2], nothing)).to(device)


def counted(step: Callable[[], Tensor], model: nn.Module) -> tuple[float, float, float]:
    """MiB kept for the way back and at the most, and the loss."""
    torch.manual_seed(0)
    with LiveBytes([*model.parameters(), *model.buffers()]) as live:
        loss = step()
        saved = live.now
        loss.backward()
    return saved / MIB, live.peak / MIB, float(loss.detach())


def timed(step: Callable[[], Tensor], optimizer: torch.optim.Optimizer, seed: int) -> float:
    """Seconds of one step: losses, gradients, update."""
    torch.manual_seed(seed)
    since = time.perf_counter()
    loss = step()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - since


def fits(name: str, crop: int, batch: int, device: torch.device) -> bool:
    """Whether the plain step's memory can be had; says so where not."""
    needed = PLAIN_GIB[name] * batch * (crop / 512) ** 2
    free = torch.cuda.mem_get_info()[0] if device.type == "cuda" else psutil.virtual_memory().available
    if needed > free / 2**30:
        print(
            f"{name} at {crop} px: the plain step needs about {needed:.0f} GiB, {free / 2**30:.0f} are free: left out"
        )
    return needed <= free / 2**30


def compare(name: str, crop: int, batch: int, repeats: int, chunk: int | None) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with_plain = fits(name, crop, batch, device)
    classes = SHAPES[name]
    method = cast(SemiVL, create(MethodConfig(name="semivl")))
    vlm = paper_vlm(classes, crop)
    described = check(Classes, {"classes": [{"name": f"class {i}"} for i in range(classes)]}, "classes")
    model = cast(Segmenter, method.build(described, vlm, True, vlm)).to(device).train()
    batches, config = noise(batch, classes, crop, device), TrainConfig()  # pyright: ignore[reportCallIssue]

    def step(precision: str = "fp32") -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            return method.training_step(model, batches, 0.0)["total"]

    variants: dict[str, tuple[Callable[[], Tensor], dict[str, Any]]] = {}
    if with_plain:
        variants["plain"] = (lambda: plain.training_step(method, model, batches, 0.0)["total"], {})
    variants["saving"] = (step, {"class_chunk": chunk})
    if device.type == "cuda":
        variants["saving, bf16"] = (lambda: step("bf16"), {"class_chunk": chunk})
        variants["saving, bf16, compiled"] = (lambda: step("bf16"), {"class_chunk": chunk, "compile": True})
    base: Cost | None = None
    for label, (one, compute) in variants.items():
        apply_compute(model, check(ComputeConfig, {"class_chunk": None} | compute, "compute"))
        build = plain.optimizer if label == "plain" else build_optimizer
        optimizer = build(model, config)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        saved, peak, loss = counted(one, model)
        times = [timed(one, optimizer, 1 + i) for i in range(repeats + 1)]
        cost = Cost(statistics.median(times[1:]), saved, peak, loss)
        base = base or cost
        ratios = f"{base.seconds / cost.seconds:.2f} | {cost.saved / base.saved:.2f}" if with_plain else "- | -"
        print(
            f"| {name}, N = {classes}, {crop} px, batch {batch} | {label} | {cost.seconds:.2f} | {cost.saved:.0f} "
            f"| {cost.peak:.0f} | {ratios} | {cost.loss:.5f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--class-chunk", type=int, default=10, help="0: no checkpointing")
    a = parser.parse_args()
    on = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    print(f"{on}, {platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("| shapes | step | seconds | saved activations, MiB | peak, MiB | times faster | share saved | loss |")
    print("|---|---|---|---|---|---|---|---|")
    for name in a.shapes:
        compare(name, a.crop, a.batch, a.repeats, a.class_chunk or None)


if __name__ == "__main__":
    main()
