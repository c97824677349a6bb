"""SemiVL and its baselines on real photos with few labels, on one encoder, several seeds: docs/results.md.

    export SEMIVL_REAL_DATA=FOLDER                 # holds voc2012-subset/
    python -m benchmarks.small_vlm ...             # makes the two models, see docs/small-vlm.md
    for text in names definitions; do for split in 92 366; do
      semivl vlm label photos-spoken .semivl/photos-guide/$text --data photos \
        -s data.dataset=photos-$split -s data.labelled_list=splits/$split/labeled.txt \
        -s method.settings.guidance.text=$text
    done; done                                     # after an ingest of both, which the first runs make
    python -m benchmarks.real_photos --workers 2
    python -m benchmarks.real_photos --table       # what is finished so far, as tables

Each finished run is a line of docs/results/real-photos.jsonl; a run that has its line is not run again. The variants
differ from conf/experiment/photos.yaml by what VARIANTS says and by nothing else; the learning rates are those at which
each kind of decoder learned best in short trials. `oracle-P` is SemiVL guided by label
maps made of the true masks, right for a share P of their objects' regions (benchmarks/corrupted.py).
"""

import argparse
import json
import multiprocessing
import os
import statistics
import time
from pathlib import Path
from typing import Any

from semivl.config import Config, load
from semivl.settings import ROOT

RESULTS = ROOT / "docs" / "results" / "real-photos.jsonl"
SPLITS = (92, 366)
GUIDES, ORACLE = ".semivl/photos-guide", ".semivl/photos-oracle"
MASKED_CLASSES = 18
"""of VOC's 21 are in the subset's 445 evaluation masks"""
HEAD = {"features": 32, "channels": [24, 48, 96, 192]}
VARIANTS: dict[str, dict[str, Any]] = {
    "supervised": {"method": {"name": "supervised"}},
    "unimatch": {
        "method": {"name": "unimatch", "settings": {"features": "normed", "trains": "none"}},
        "train": {"learning_rate": 0.0001},
    },
    "unimatch_v2": {
        "method": {"name": "unimatch_v2", "settings": {"head": HEAD, "trains": "none"}},
        "train": {"learning_rate": 0.0001},
    },
    "semivl, no guidance": {"method": {"settings": {"guidance": {"weight": 0.0}}}},
    "semivl, names": {"guidance": {"labels": f"{GUIDES}/names"}},
    "semivl, definitions": {"guidance": {"labels": f"{GUIDES}/definitions"}},
}
GUIDES_RIGHT = {"semivl, names": 0.705, "semivl, definitions": 0.786}
"""share of right object labels, as benchmarks/corrupted.py prints it"""
ORACLES = (0.25, 0.5, 0.75, 1.0)
OWN_SETTINGS = {"supervised": ("decoder", "trains"), "unimatch": (), "unimatch_v2": ()}
"""which of photos.yaml's method settings another method takes over"""


def variants() -> dict[str, dict[str, Any]]:
    """Overrides by name, those of the label maps of known precision included."""
    oracles = {f"oracle-{p}": {"guidance": {"labels": f"{ORACLE}/{p}"}} for p in ORACLES}
    return VARIANTS | oracles


def experiment(variant: str, split: int, seed: int) -> Config:
    """The checked experiment of one run."""
    data = {"dataset": f"photos-{split}", "labelled_list": f"splits/{split}/labeled.txt"}
    config = load("photos", {"data": data, "train": {"seed": seed}})
    chosen = variants()[variant]
    dumped = config.model_dump(mode="json")
    method = chosen.get("method", {})
    if "name" in method:
        kept = {k: v for k, v in dumped["method"]["settings"].items() if k in OWN_SETTINGS[method["name"]]}
        dumped["method"] = {"name": method["name"], "settings": kept | method.get("settings", {})}
    else:
        settings = dumped["method"]["settings"]
        for name, value in method.get("settings", {}).items():
            settings[name] = settings[name] | value
    for group in ("guidance", "train"):
        dumped[group] |= chosen.get(group, {})
    return Config.model_validate(dumped)


def run(task: tuple[str, int, int]) -> dict[str, Any]:
    """Trains and scores one variant; its line."""
    import torch

    from benchmarks.demo import score
    from semivl.data.ingest import ingest
    from semivl.data.snapshot import read
    from semivl.data.store import open_store

    torch.set_num_threads(1)
    config = experiment(*task)
    store = open_store()
    manifest = ingest(config.data, config.classes)
    since = time.perf_counter()
    scores, seconds = score(config, read(store, manifest.dataset, manifest.version), store)
    present = [v for v in scores.iou.values() if v is not None]
    line = {
        "variant": task[0],
        "split": task[1],
        "seed": task[2],
        "miou": round(scores.miou, 2),
        "classes": len(present),
        "train_seconds": round(seconds),
        "seconds": round(time.perf_counter() - since),
        "settings": config.digest("classes", "vlm", "method", "train", "evaluation", "guidance"),
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    return line


def finished() -> list[dict[str, Any]]:
    """The lines of the runs that are done with the present settings."""
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []
    return [line for line in lines if line["variant"] in variants() and _current(line)]


def _current(line: dict[str, Any]) -> bool:
    config = experiment(line["variant"], line["split"], line["seed"])
    return line["settings"] == config.digest("classes", "vlm", "method", "train", "evaluation", "guidance")


def in_masks(line: dict[str, Any]) -> float:
    """mIoU over the classes of the evaluation masks alone.

    A line's own counts classes too that only predictions hold, each with an IoU of 0: another number of classes for
    each run.
    """
    return line["miou"] * line["classes"] / MASKED_CLASSES


def show(lines: list[dict[str, Any]]) -> None:
    """mIoU of every variant on every split, each seed, mean and spread."""
    for split in sorted({line["split"] for line in lines}):
        rows = [line for line in lines if line["split"] == split]
        print(f"\nsplit {split}, mIoU over the {MASKED_CLASSES} classes that the evaluation masks hold, in points")
        print("| variant | mIoU of each seed | mean | standard deviation | seconds a training |")
        print("|---|---|---|---|---|")
        for name in variants():
            of = sorted((r for r in rows if r["variant"] == name), key=lambda r: r["seed"])
            if not of:
                continue
            values = [in_masks(r) for r in of]
            spread = f"{statistics.stdev(values):.1f}" if len(values) > 1 else "-"
            each = " ".join(f"{v:.1f}" for v in values)
            seconds = statistics.median(r["train_seconds"] for r in of)
            print(f"| {name} | {each} | {statistics.mean(values):.1f} | {spread} | {seconds:.0f} |")


def plot(lines: list[dict[str, Any]], path: Path) -> None:
    """The gain of guidance over none, seed by seed, against the share of the guide's labels that are right."""
    from matplotlib.figure import Figure

    found = {(r["variant"], r["split"], r["seed"]): in_masks(r) for r in lines}
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for label, precisions, marker in (
        ("true masks, some regions renamed", {f"oracle-{p}": p for p in ORACLES}, "o-"),
        ("the small model's label maps", GUIDES_RIGHT, "s"),
    ):
        pairs = [
            (precision, value - found["semivl, no guidance", split, seed])
            for (variant, split, seed), value in sorted(found.items())
            if split == SPLITS[0] and (precision := precisions.get(variant)) is not None
        ]
        axes.plot(*zip(*pairs, strict=True), marker[0], alpha=0.4)
        means = {p: statistics.mean(gain for q, gain in pairs if q == p) for p, _ in pairs}
        colour = axes.lines[-1].get_color()
        axes.plot(sorted(means), [means[p] for p in sorted(means)], marker, color=colour, label=label)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("share of the guide's object labels that are right")
    axes.set_ylabel("mIoU over SemiVL without guidance, points")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(variants()))
    parser.add_argument("--splits", nargs="+", type=int, default=list(SPLITS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="runs at once, each with one thread")
    parser.add_argument("--table", action="store_true", help="only show what is finished")
    parser.add_argument("--plot", type=Path, help="draw gain against precision into this file")
    chosen = parser.parse_args()
    done = {(line["variant"], line["split"], line["seed"]) for line in finished()}
    tasks = [(v, s, seed) for s in chosen.splits for seed in range(chosen.seeds) for v in chosen.variants]
    tasks = [task for task in tasks if task not in done]
    if not chosen.table and tasks:
        print(f"{os.cpu_count()} cores, {chosen.workers} runs at once, {len(tasks)} to go", flush=True)
        with multiprocessing.get_context("spawn").Pool(chosen.workers) as pool:
            for line in pool.imap_unordered(run, tasks):
                print(json.dumps(line), flush=True)
    show(finished())
    if chosen.plot:
        plot(finished(), chosen.plot)


if __name__ == "__main__":
    main()
