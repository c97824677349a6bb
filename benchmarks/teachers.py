"""SemiVL with each teacher against its static guidance, where half of the classes have no masks: docs/results.md.

    semivl up                                   # its S3 keeps the snapshot
    python -m benchmarks.teachers               # 3 seeds; --table shows what is finished

64 scenes have masks of cat, duck, car and mushroom; 600 have captions that leave out a third of the objects, and
complete tags of all eight classes. The teachers are learned once, on the same snapshot. The students differ in who
guides them and in whether tags bound what they believe, and in nothing else. A finished training is a line of
docs/results/teachers.jsonl and is not run again.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from semivl.config import Config, load
from semivl.data.cache import ShardCache
from semivl.data.ingest import ingest
from semivl.data.scenes import Told, write_scenes
from semivl.data.snapshot import Snapshot, read
from semivl.data.store import Store, open_store
from semivl.evaluation.evaluate import evaluate
from semivl.settings import ROOT, home
from semivl.training.bundle import load_bundle, train_key
from semivl.training.observe import Unobserved
from semivl.training.trainer import train

RESULTS = ROOT / "docs" / "results" / "teachers.jsonl"
MASKED = ("cat", "duck", "car", "mushroom")
TEACHERS = {"CoDe": "scenes-code", "SCG": "scenes-scg", "transfer": "scenes-transfer"}
THRESHOLDS = {"CoDe": 0.6, "SCG": 0.6, "transfer": 0.9}
"""probability from which a teacher is believed: CoDe's scores sum to little more than one class's, SCG's are flat"""
STUDENTS: dict[str, tuple[str | None, bool]] = {
    "no guidance": (None, False),
    "static guidance": ("static", False),
    "static guidance, tags": ("static", True),
    "SCG": ("SCG", True),
    "CoDe": ("CoDe", True),
    "transfer": ("transfer", True),
}
"""who guides, and whether tags bound what is believed"""


def source() -> dict[str, Any]:
    """The data of all of them."""
    folder = home() / "bench" / "teachers-scenes"
    write_scenes(folder, 0, 64, 600, 120, 128, Told(mentioned=0.65, tags="all", masked=MASKED))
    return {"dataset": "bench-teachers", "source": str(folder)}


def finished(config: Config, snapshot: Snapshot, store: Store, guide: Path | None = None) -> tuple[Path, dict]:
    """The bundle of a training, and its scores by strength of the classes."""
    key = train_key(config, snapshot.manifest.version)
    bundle = train(config, snapshot, store, home() / "bench" / key, Unobserved(), guide=guide)
    cache = ShardCache(store, snapshot.manifest.dataset, home() / "cache" / "shards")
    scores = evaluate(load_bundle(bundle), snapshot, cache).scores
    by_strength = scores.by_strength
    assert by_strength is not None
    return bundle, {"all": scores.miou, "strong": by_strength.strong_miou, "weak": by_strength.weak_miou}


def student(name: str, seed: int, data: dict[str, Any], steps: int, teachers: dict[str, Path]) -> Config:
    """The experiment of one student."""
    who, tags = STUDENTS[name]
    guidance: dict[str, Any] = {"weight": 0.0 if who is None else 0.1}
    changes: dict[str, Any] = {"data": data, "train": {"steps": steps, "seed": seed, "checkpoint_every": steps}}
    if who in teachers:
        guidance["threshold"] = THRESHOLDS[who]
        changes["guidance"] = {"model": str(teachers[who])}
    changes["method"] = {"settings": {"guidance": guidance, "tags": tags}}
    changes["compute"] = {"threads": 1}
    return load("demo", changes)


def kept() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


def keep(row: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def show(rows: list[dict[str, Any]]) -> None:
    """Teachers and students, means and standard deviations over the seeds."""
    print("| model | mIoU of each seed | mean | standard deviation | strong | weak |\n|---|---|---|---|---|---|")
    for name in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == name]
        every = [row["all"] for row in own]
        spread = f"{statistics.stdev(every):.1f}" if len(every) > 1 else "-"
        strong, weak = (statistics.mean(row[kind] for row in own) for kind in ("strong", "weak"))
        each = " ".join(f"{value:.1f}" for value in every)
        print(f"| {name} | {each} | {statistics.mean(every):.1f} | {spread} | {strong:.1f} | {weak:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200, help="of a student")
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=STUDENTS)
    parser.add_argument("--table", action="store_true", help="show what is finished")
    chosen = parser.parse_args()
    if chosen.table:
        show(kept())
        return
    store, data = open_store(), source()
    config = load("demo", {"data": data})
    snapshot = read(store, data["dataset"], ingest(config.data, config.classes).version)
    done = {(row["model"], row["seed"]) for row in kept()}
    teachers = {}
    for name, experiment in TEACHERS.items():
        taught = load(experiment, {"data": data, "compute": {"threads": 1}})
        teachers[name], scores = finished(taught, snapshot, store)
        if (f"teacher {name}", 0) not in done:
            keep({"model": f"teacher {name}", "seed": 0} | scores)
    for seed in chosen.seeds:
        for name in chosen.students:
            if (name, seed) not in done:
                one = student(name, seed, data, chosen.steps, teachers)
                who = STUDENTS[name][0]
                keep({"model": name, "seed": seed} | finished(one, snapshot, store, teachers.get(who or ""))[1])
    show(kept())


if __name__ == "__main__":
    main()
