"""How fast an experiment trains: fed by its loader, by one batch kept in memory, and plain, with every switch off.

    python -m benchmarks.throughput demo --set compute.threads=1        # the scenes, on a CPU
    python -m benchmarks.throughput voc-92 --set compute.precision=bf16 compute.compile=true

The snapshot is to be ingested before. Nothing is kept: neither checkpoints nor a run. The first quarter of the steps
warms up; told is the median of the other three.
"""

import argparse
import platform
import statistics
import tempfile
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from semivl.config import ComputeConfig, Config, load
from semivl.data.cache import ShardCache
from semivl.data.snapshot import Snapshot, read
from semivl.data.store import Store, open_store
from semivl.data.stream import Batches, batches
from semivl.methods import create
from semivl.nets.vlm import load_vlm
from semivl.settings import home
from semivl.training.compute import apply_compute, chosen_device
from semivl.training.guide import chosen_guide
from semivl.training.observe import Unobserved
from semivl.training.pools import training_pools
from semivl.training.step import build_optimizer
from semivl.training.trainer import Run, prepared_steps

POINTS = 4
PLAIN = {"precision": "fp32", "compile": False, "channels_last": False, "class_chunk": None}


class Points(Unobserved):
    """Keeps the points of the curves."""

    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self.values.append(values)


def points(config: Config, snapshot: Snapshot, store: Store, one_batch: bool) -> list[dict[str, float]]:
    """What a training of `config.train.steps` steps says of its speed, after its first point."""
    device, method = chosen_device(config.compute), create(config.method)
    vlm = load_vlm(config.vlm, config.classes, config.train.crop, method.reads_text)
    model = method.build(config.classes, vlm, True, chosen_guide(config, vlm)).to(device).train()
    apply_compute(model, config.compute)
    cache = ShardCache(store, snapshot.manifest.dataset, home() / "cache" / "shards")
    steps = prepared_steps(config, method, model, training_pools(snapshot, method), cache)
    on_gpu = device.type == "cuda"
    incoming = batches(steps, 0, config.train.steps, config.compute.workers, on_gpu)
    told = Points()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, method, model, build_optimizer(model, config.train), device, told, Path(folder), store, "")
        run.steps(0, repeated(incoming, config.train.steps) if one_batch else incoming, {})
    return told.values[1:]


def repeated(incoming: Iterator[Batches], times: int) -> Iterator[Batches]:
    """The first batch, again and again."""
    first = next(incoming)
    yield from chain([first], repeat(first, times - 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--set", nargs="*", default=[], help="settings, as compute.precision=bf16")
    chosen = parser.parse_args()
    quiet = {
        "steps": chosen.steps,
        "warmup": 0,
        "log_every": chosen.steps // POINTS,
        "preview_every": chosen.steps + 1,
        "checkpoint_every": chosen.steps,
    }
    settings: Any = OmegaConf.to_container(OmegaConf.from_dotlist(chosen.set))
    config = load(chosen.experiment, settings | {"train": settings.get("train", {}) | quiet})
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    store = open_store()
    snapshot = read(store, config.data.dataset)
    plain = ComputeConfig.model_validate(config.compute.model_dump() | PLAIN)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    print(f"{device}, torch {torch.__version__}, {torch.get_num_threads()} threads, {snapshot.manifest.version[:12]}")
    print("| training | images/s | data wait | device MiB | share of the peak |\n|---|---|---|---|---|")
    for name, compute, one_batch in (
        ("as set", config.compute, False),
        ("as set, one batch in memory", config.compute, True),
        ("plain, one batch in memory", plain, True),
    ):
        found = points(config.model_copy(update={"compute": compute}), snapshot, store, one_batch)
        keys = ("images_per_second", "data_wait_share", "device_mib", "flops_utilisation")
        middle = (statistics.median(v.get(f"train/{key}", float("nan")) for v in found) for key in keys)
        print(f"| {name} | {' | '.join(f'{value:.3g}' for value in middle)} |", flush=True)


if __name__ == "__main__":
    main()
