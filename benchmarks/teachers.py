"""SemiVL with each teacher against its static guidance, where half of the classes have no masks: docs/results.md.

    semivl up                                   # its S3 keeps the snapshots
    python -m benchmarks.teachers               # scenes, 3 seeds; --table shows what is finished
    python -m benchmarks.teachers --data photos # SEMIVL_REAL_DATA holds the photos, docs/small-vlm.md makes the models

Few images have masks, of half of the classes; many have complete tags of all classes. CoDe learns from captions. The
teachers are learned once. Each is believed from the probability on that `semivl vlm eval` would advise where it may
look: on the training masks. The students differ in who guides them and in whether tags bound what they believe, and in
nothing else. A finished training is a line of docs/results/teachers-DATA.jsonl and is not run again.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.photo_folders import captioned, halves
from benchmarks.transfer_photos import VOC_METHOD, well_filled
from semivl.config import Config, load
from semivl.data.cache import ShardCache
from semivl.data.ingest import ingest
from semivl.data.scenes import Told, write_scenes
from semivl.data.snapshot import Snapshot, read
from semivl.data.store import Store, open_store
from semivl.evaluation.evaluate import evaluate
from semivl.evaluation.language import measure_model
from semivl.evaluation.scores import read_pair
from semivl.settings import ROOT, home
from semivl.training.bundle import Predictor, load_bundle, train_key
from semivl.training.observe import Unobserved
from semivl.training.trainer import train

MASKED = ("cat", "duck", "car", "mushroom")
STUDENTS: dict[str, tuple[str | None, bool]] = {
    "no guidance": (None, False),
    "static guidance": ("static", False),
    "static guidance, tags": ("static", True),
    "SCG": ("SCG", True),
    "CoDe": ("CoDe", True),
    "transfer": ("transfer", True),
}
"""who guides, and whether tags bound what is believed"""
SCALED = {"method": {"settings": {"decoder": {"scale": 10}}}}
"""of the students, whose trainings are short: on photos it leaves the background's plateau (decoder_scale.py)"""


class Setting(NamedTuple):
    """What one kind of data is learned by."""

    student: Config
    """with its static guidance"""
    teachers: dict[str, Config]


def scenes() -> Setting:
    """64 scenes with masks; 600 with captions that leave out a third of the objects, and with tags."""
    folder = home() / "bench" / "teachers-scenes"
    write_scenes(folder, 0, 64, 600, 120, 128, Told(mentioned=0.65, tags="all", masked=MASKED))
    data = {"dataset": "bench-teachers", "source": str(folder)}
    taught = {"CoDe": "scenes-code", "SCG": "scenes-scg", "transfer": "scenes-transfer"}
    one = {"data": data, "compute": {"threads": 1}}
    return Setting(load("demo", one | SCALED), {name: load(experiment, one) for name, experiment in taught.items()})


def photos() -> Setting:
    """64 photos with masks and 1,000 with tags of ten of VOC's classes; CoDe learns from 3,000 photos of Flickr8k."""
    classes, table = well_filled()
    folders = {name: home() / "bench" / f"teachers-{name}" for name in ("photos", "captioned")}
    halves(folders["photos"], table, 64, 1000)
    captioned(folders["captioned"], table)

    def of(experiment: str, data: str, changes: dict[str, Any]) -> Config:
        own = {"dataset": f"bench-teachers-{data}", "layout": "folder", "source": str(folders[data])}
        own |= {"evaluation_list": "val.txt", "labelled_list": None}
        return load(experiment, changes | {"data": own, "classes": classes.model_dump(mode="json")})

    sides = {"crop": 112, "short_side": 126}
    small = {"train": sides, "evaluation": {"short_side": 126, "window": 126, "stride": 126}}
    guide = {"guidance": {"vlm": {"model": "spoken:.semivl/vlm/spoken"}}}
    # the rate that does better than the experiment's own in benchmarks/decoder_scale
    learns = {"train": sides | {"decoder_multiplier": 4}} | SCALED
    transferred = of("photos", "photos", small | {"vlm": {"model": "aligned:.semivl/vlm/vit-s14"}})
    longer = transferred.train.model_copy(update={"steps": 200, "scale": (0.75, 1.25), "decoder_multiplier": 2.0})
    method = transferred.method.model_copy(update={"name": "transfer", "settings": VOC_METHOD})
    return Setting(
        of("photos", "photos", small | guide | learns),
        {
            "CoDe": of("photos-code", "captioned", {}),
            "SCG": of("photos-scg", "photos", {}),
            "transfer": transferred.model_copy(update={"method": method, "train": longer}),
        },
    )


SETTINGS: dict[str, Callable[[], Setting]] = {"scenes": scenes, "photos": photos}


def snapshot_of(config: Config, store: Store) -> Snapshot:
    """The experiment's data, ingested."""
    return read(store, config.data.dataset, ingest(config.data, config.classes).version)


def learned(config: Config, store: Store, guide: Path | None = None) -> Path:
    """The bundle of a training, which is done once."""
    snapshot = snapshot_of(config, store)
    folder = home() / "bench" / train_key(config, snapshot.manifest.version)
    return train(config, snapshot, store, folder, Unobserved(), guide=guide)


def scored(bundle: Path, config: Config, store: Store) -> dict[str, float | None]:
    """Its scores on the evaluation images, by strength of the classes."""
    snapshot = snapshot_of(config, store)
    scores = evaluate(load_bundle(bundle), snapshot, _cache(store, snapshot)).scores
    apart = scores.by_strength
    found: dict[str, float | None] = {"all": scores.miou}
    if apart is not None:
        found |= {"strong": apart.strong_miou, "weak": apart.weak_miou}
    return found


def believed_from(teacher: Predictor, snapshot: Snapshot, store: Store) -> float:
    """The probability from which the teacher is believed: chosen on the training masks, which show strong classes."""
    cache = _cache(store, snapshot)
    rows = [row for row in snapshot.rows(split="train") if row.supervision == "mask"]
    pairs = (read_pair(cache, row) for row in rows)
    known = measure_model(teacher.logits, teacher.classes, pairs, teacher.evaluation)
    return known.advice.threshold if known.advice else 0.0


def _cache(store: Store, snapshot: Snapshot) -> ShardCache:
    return ShardCache(store, snapshot.manifest.dataset, home() / "cache" / "shards")


def student(base: Config, name: str, seed: int, steps: int, teachers: dict[str, tuple[Path, float]]) -> Config:
    """The experiment of one student."""
    who, tags = STUDENTS[name]
    settings = dict(base.method.settings)
    changed = dict(settings.get("guidance", {}))
    guidance = base.guidance
    if who is None:
        changed["weight"] = 0.0
    elif who in teachers:
        bundle, threshold = teachers[who]
        changed["threshold"] = threshold
        guidance = base.guidance.model_copy(update={"vlm": None, "model": str(bundle)})
    train = base.train.model_copy(update={"steps": steps, "seed": seed, "checkpoint_every": steps})
    method = base.method.model_copy(update={"settings": settings | {"guidance": changed, "tags": tags}})
    return base.model_copy(update={"method": method, "guidance": guidance, "train": train})


def kept(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def keep(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def show(rows: list[dict[str, Any]]) -> None:
    """Teachers and students, means and standard deviations over the seeds."""
    print("| model | believed from | mIoU of each seed | mean | standard deviation | strong | weak |")
    print("|---|---|---|---|---|---|---|")
    for name in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == name]
        every = [row["all"] for row in own]
        spread = f"{statistics.stdev(every):.1f}" if len(every) > 1 else "-"
        apart = [
            f"{statistics.mean(row[kind] for row in own):.1f}" if kind in own[0] else "-" for kind in ("strong", "weak")
        ]
        each = " ".join(f"{value:.1f}" for value in every)
        mean, trusted = f"{statistics.mean(every):.1f}", own[0].get("believed from", "-")
        print(f"| {' | '.join([name, str(trusted), each, mean, spread, *apart])} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=list(SETTINGS), default="scenes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=250, help="of a student")
    parser.add_argument("--students", nargs="*", default=list(STUDENTS), choices=STUDENTS)
    parser.add_argument("--table", action="store_true", help="show what is finished")
    chosen = parser.parse_args()
    path = ROOT / "docs" / "results" / f"teachers-{chosen.data}.jsonl"
    if not chosen.table:
        run(SETTINGS[chosen.data](), path, chosen.seeds, chosen.steps, chosen.students)
    show([row for row in kept(path) if row["steps"] in (0, chosen.steps)])


def run(setting: Setting, path: Path, seeds: list[int], steps: int, students: list[str]) -> None:
    """Learns what has no line yet: the teachers, then the students, a seed after the other."""
    store = open_store()
    snapshot = snapshot_of(setting.student, store)
    done = {(row["model"], row["seed"], row["steps"]): row for row in kept(path)}
    teachers: dict[str, tuple[Path, float]] = {}
    for name, config in setting.teachers.items():
        bundle = learned(config, store)
        row = done.get((f"teacher {name}", 0, 0))
        if row is None:
            row = {"model": f"teacher {name}", "seed": 0, "steps": 0}
            row["believed from"] = believed_from(load_bundle(bundle), snapshot, store)
            row |= scored(bundle, config, store)
            keep(path, row)
        teachers[name] = bundle, row["believed from"]
    for seed in seeds:
        for name in students:
            if (name, seed, steps) not in done:
                one = student(setting.student, name, seed, steps, teachers)
                taught = teachers.get(STUDENTS[name][0] or "")
                bundle = learned(one, store, taught[0] if taught else None)
                keep(path, {"model": name, "seed": seed, "steps": steps} | scored(bundle, one, store))


if __name__ == "__main__":
    main()
