"""Does `semivl label-next` choose better than chance? mIoU against the number of labels, over rounds and seeds.

    python -m benchmarks.small_vlm ...      # makes .semivl/vlm/vit-s14, see docs/small-vlm.md
    python -m benchmarks.label_next --source FOLDER/voc2012-subset
    python -m benchmarks.label_next --table # of what is kept in docs/results/label-next.csv, and the plot

The student is a linear head on frozen dense features of ViT-S/14, learned anew in every round: 31 labels of VOC's split
1/16 as it lies in the subset, then 31 more a round, of a pool of photos whose masks are hidden until they are chosen.
What is compared is the choice alone: head, steps, features and the first labels are the same for all. `semivl` is what
the command does (label_choice.choose, label_scoring.uncertainty); `uncertain` takes the most uncertain, `diverse` draws
with distance alone. A finished run is a line of the CSV, and is not run again.
"""

import argparse
import csv
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.label_features import TARGET, features, listed, small_masks
from benchmarks.label_plot import write_plot
from semivl.config import IGNORE
from semivl.data.decode import decode_grey
from semivl.data.headers import read_header
from semivl.data.near_duplicates import from_hex
from semivl.data.phash import phash
from semivl.evaluation.scores import confusion, iou_points
from semivl.serving.label_choice import Images, choose
from semivl.serving.label_scoring import uncertainty
from semivl.settings import ROOT

RESULTS, PLOT = ROOT / "docs" / "results" / "label-next.csv", ROOT / "docs" / "images" / "label-next.svg"
CLASSES, STEP, ROUNDS = 21, 31, 4
STEPS, BATCH, RATE = 200, 8, 1e-2
CHOICES = ("random", "semivl", "uncertain", "diverse")
FIELDS: tuple[str, ...] = ("choice", "seed", "labels", "miou", "classes_labelled")


class Photos(NamedTuple):
    """Some photos: tokens (n, D, h, w), masks (n, TARGET, TARGET), embeddings (n, D), hashes (n,)."""

    names: list[str]
    tokens: np.ndarray
    masks: np.ndarray
    images: Images


class Data(NamedTuple):
    """The first labels and the pool as one, and what is scored."""

    train: Photos
    first: int
    """photos of `train` that are labelled from the start"""
    val: np.ndarray
    """(n, D, h, w)"""
    truths: np.ndarray
    """(n, TARGET, TARGET)"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--source", type=Path, help="folder voc2012-subset")
    parser.add_argument("--encoder", type=Path, default=Path(".semivl/vlm/vit-s14"))
    parser.add_argument("--cache", type=Path, default=Path(".semivl/cache/label-next"))
    parser.add_argument("--pool", type=int, default=1024, help="photos to choose from, drawn once")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--choices", nargs="+", choices=CHOICES, default=CHOICES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="tell what is kept, run nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.table:
        run(load(options.source, options.encoder, options.cache, options.pool), options.choices, options.seeds)
    with RESULTS.open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (CHOICES.index(row["choice"]), row["seed"]))
    tell(rows)
    write_plot(PLOT, curves(rows))


def load(source: Path, encoder: Path, cache: Path, pool: int) -> Data:
    """Features are computed once: on two cores, minutes for each few hundred photos. They are standardised, channel by
    channel, by the photos that may be learned from."""
    first = listed(source / "splits/92/labeled.txt")
    others = sorted(listed(source / "splits/92/unlabeled.txt"))
    drawn = [others[i] for i in np.random.default_rng(0).permutation(len(others))[:pool]]
    val = listed(source / "splits/val.txt")
    names = [*first, *drawn]
    tokens = np.concatenate(
        [features(source, encoder, *part) for part in ((first, cache / "start"), (drawn, cache / "pool"))]
    )
    pooled = torch.from_numpy(tokens.mean((2, 3), dtype=np.float32))
    images = Images(F.normalize(pooled, dim=1).numpy(), np.concatenate([_hash(source, name) for name in names]))
    means, spread = (getattr(tokens, of)((0, 2, 3), dtype=np.float32)[:, None, None] for of in ("mean", "std"))
    tokens, of_val = (
        ((t - means) / spread).astype(np.float16) for t in (tokens, features(source, encoder, val, cache / "val"))
    )
    train = Photos(names, tokens, small_masks(source, names), images)
    return Data(train, len(first), of_val, small_masks(source, val))


def run(data: Data, choices: Sequence[str], seeds: int) -> None:
    """Every choice and seed that has no lines yet."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    if not RESULTS.exists():
        RESULTS.write_text(",".join(FIELDS) + "\n")
    with RESULTS.open(newline="") as file:
        done = {(row["choice"], int(row["seed"])) for row in csv.DictReader(file)}
    for seed in range(seeds):
        for choice in choices:
            if (choice, seed) not in done:
                begun = time.perf_counter()
                lines = rounds(data, choice, seed)
                with RESULTS.open("a", newline="") as file:
                    csv.DictWriter(file, FIELDS, lineterminator="\n").writerows(lines)
                told = " ".join(f"{line['miou']:.1f}" for line in lines)
                print(f"{choice} seed {seed}: {told} ({time.perf_counter() - begun:.0f} s)", flush=True)


def rounds(data: Data, choice: str, seed: int) -> list[dict[str, str | int | float]]:
    """The scores of one choice and seed, a line a round."""
    labelled = list(range(data.first))
    lines: list[dict[str, str | int | float]] = []
    for number in range(ROUNDS):
        head = trained(data.train, labelled, seed)
        seen = len(set(np.unique(data.train.masks[labelled]).tolist()) - {IGNORE})
        lines.append(
            {
                "choice": choice, "seed": seed, "labels": len(labelled), "miou": round(miou(head, data), 3),
                "classes_labelled": seen,
            }
        )  # fmt: skip
        if number < ROUNDS - 1:
            labelled += chosen(data.train, labelled, head, choice, 1000 * seed + number)
    return lines


def chosen(photos: Photos, labelled: Sequence[int], head: nn.Module, choice: str, seed: int) -> list[int]:
    """STEP photos that are not labelled yet."""
    free = np.setdiff1d(np.arange(len(photos.names)), labelled)
    if choice == "random":
        return np.random.default_rng(seed).choice(free, STEP, replace=False).tolist()
    unsure = np.ones(len(free)) if choice == "diverse" else unsure_of(head, photos.tokens[free])
    if choice == "uncertain":
        return free[np.argsort(-unsure, kind="stable")[:STEP]].tolist()
    pool, known = (Images(*(part[places] for part in photos.images)) for places in (free, np.array(labelled)))
    return [int(free[one.place]) for one in choose(STEP, pool, unsure, known, seed).chosen]


@torch.inference_mode()
def unsure_of(head: nn.Module, tokens: np.ndarray) -> np.ndarray:
    """(n,) uncertainties of (n, D, h, w)."""
    parts = [grown(head(torch.from_numpy(some).float()), TARGET).softmax(1) for some in _parts(tokens)]
    return np.array([uncertainty(one) for part in parts for one in part])


def trained(photos: Photos, labelled: Sequence[int], seed: int) -> nn.Module:
    """A linear head, learned from the labelled photos and from their mirror images."""
    torch.manual_seed(seed)
    head = nn.Conv2d(photos.tokens.shape[1], CLASSES, 1)
    optimiser = torch.optim.AdamW(head.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, STEPS, pct_start=0.1)
    tokens = torch.from_numpy(photos.tokens[list(labelled)]).float()
    masks = torch.from_numpy(photos.masks[list(labelled)]).long()
    for _ in range(STEPS):
        some = torch.randint(len(tokens), (BATCH,))
        x, y = tokens[some], masks[some]
        if torch.rand(()) < 0.5:
            x, y = x.flip(3), y.flip(2)
        loss = F.cross_entropy(grown(head(x), TARGET), y, ignore_index=IGNORE)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return head.eval()


@torch.inference_mode()
def miou(head: nn.Module, data: Data) -> float:
    """Mean IoU in points over the classes that the evaluation masks hold, at TARGET x TARGET."""
    total = np.zeros((CLASSES, CLASSES), np.int64)
    for tokens, truth in zip(_parts(data.val), _parts(data.truths), strict=True):
        ids = grown(head(torch.from_numpy(tokens).float()), TARGET).argmax(1)
        total += confusion(torch.from_numpy(truth), ids, CLASSES).numpy()
    return float(np.mean(iou_points(total)[total.sum(1) > 0]))


def _parts(values: np.ndarray) -> list[np.ndarray]:
    return [values[first : first + 32] for first in range(0, len(values), 32)]


def grown(logits: Tensor, side: int) -> Tensor:
    return F.interpolate(logits, (side, side), mode="bilinear", align_corners=False)


def _hash(source: Path, name: str) -> np.ndarray:
    image = (source / "JPEGImages" / f"{name}.jpg").read_bytes()
    return from_hex(np.array([phash(decode_grey(image, read_header(image))).encode()]))


def curves(rows: Sequence[dict[str, str]]) -> dict[str, list[tuple[int, list[float]]]]:
    """By choice: labels, and the mIoU of every seed."""
    found: dict[str, list[tuple[int, list[float]]]] = {}
    for choice in CHOICES:
        own = [row for row in rows if row["choice"] == choice]
        labels = sorted({int(row["labels"]) for row in own})
        found[choice] = [(n, [float(row["miou"]) for row in own if int(row["labels"]) == n]) for n in labels]
    return {choice: curve for choice, curve in found.items() if curve}


def tell(rows: Sequence[dict[str, str]], say: Callable[[str], None] = print) -> None:
    """Two tables: mIoU by labels, and the differences to random, seed by seed."""
    kept = curves(rows)
    labels = [n for n, _ in kept["random"]]
    say("| choice | " + " | ".join(f"{n} labels" for n in labels) + " |\n|---|" + "---|" * len(labels))
    for choice, curve in kept.items():
        say(f"| {choice} | " + " | ".join(f"{np.mean(v):.1f} ({min(v):.1f} to {max(v):.1f})" for _, v in curve) + " |")
    say("\nDifference to random with the same seed, mean (each seed):")
    for choice in [c for c in kept if c != "random"]:
        parts = []
        for (n, ours), (_, chance) in zip(kept[choice], kept["random"], strict=True):
            gaps = [a - b for a, b in zip(ours, chance, strict=False)]
            parts.append(f"{n}: {np.mean(gaps):+.1f} ({', '.join(f'{g:+.1f}' for g in gaps)})")
        say(f"- {choice}: {'; '.join(parts[1:])}")


if __name__ == "__main__":
    main()
