"""SemiVL against the supervised baseline on the demo's scenes: the same labels, model and steps, several seeds.

    python -m benchmarks.demo                       # 3 seeds, as the README's table
    python -m benchmarks.demo --seeds 1 --set train.steps=100

Each trained model stays under `.semivl/bench`, so that a bench that was stopped goes on where it was.
"""

import argparse
import os
import platform
import resource
import statistics
import time
from typing import Any

import torch
from omegaconf import OmegaConf

from semivl.config import Config, load
from semivl.data.cache import ShardCache
from semivl.data.ingest import ingest
from semivl.data.snapshot import Snapshot, read
from semivl.data.store import Store, open_store
from semivl.evaluation.evaluate import evaluate
from semivl.evaluation.scores import Scores
from semivl.settings import home
from semivl.training.bundle import load_bundle, train_key
from semivl.training.observe import Unobserved
from semivl.training.trainer import train


def score(config: Config, snapshot: Snapshot, store: Store) -> tuple[Scores, float]:
    """Scores of the experiment trained on the snapshot, and the seconds that the training took now."""
    folder = home() / "bench" / train_key(config, snapshot.manifest.version)
    since = time.perf_counter()
    bundle = train(config, snapshot, store, folder, Unobserved())
    seconds = time.perf_counter() - since
    cache = ShardCache(store, snapshot.manifest.dataset, home() / "cache" / "shards")
    return evaluate(load_bundle(bundle), snapshot, cache).scores, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", nargs="+", default=["demo-supervised", "demo"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], help="settings, as train.steps=100")
    chosen = parser.parse_args()
    overrides: Any = OmegaConf.to_container(OmegaConf.from_dotlist(chosen.set))
    store = open_store()
    print(f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("| experiment | mIoU of each seed | mean | spread (standard deviation) | seconds a training |")
    print("|---|---|---|---|---|")
    for name in chosen.experiments:
        config = load(name, overrides)
        manifest = ingest(config.data, config.classes)
        snapshot = read(store, manifest.dataset, manifest.version)
        seeded = [
            config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})
            for seed in range(chosen.seeds)
        ]
        results = [score(one, snapshot, store) for one in seeded]
        mious = [scores.miou for scores, _ in results]
        spread = statistics.stdev(mious) if len(mious) > 1 else float("nan")
        each = " ".join(f"{m:.1f}" for m in mious)
        seconds = " ".join(f"{s:.0f}" for _, s in results)
        print(f"| {name} | {each} | {statistics.mean(mious):.1f} | {spread:.1f} | {seconds} |", flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
