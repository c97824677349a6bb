"""Reproduce: train a version again, from its own record, and compare.

The second training has a folder and a key of its own, so that it finds nothing done and touches no run, version or
alias. On a CPU with the same number of threads, packages and code the weights are equal, bit for bit.

A killed one goes on in its folder while record, code and surroundings are those it was begun with. One that was
compared, or begun with others, is trained anew: weights of before say nothing of the present code.
"""

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from semivl.config import Record
from semivl.data.cache import ShardCache
from semivl.data.snapshot import Snapshot, read
from semivl.data.store import Store
from semivl.errors import RegistryError
from semivl.evaluation.evaluate import evaluate
from semivl.evaluation.scores import split_digest
from semivl.registry.guide import guide_bundle
from semivl.registry.lineage import Lineage
from semivl.registry.package import bundle_of
from semivl.registry.provenance import commit, environment
from semivl.registry.scores import read_scores
from semivl.registry.tracking import client
from semivl.settings import home
from semivl.training.bundle import WEIGHTS, load_bundle, weights_of
from semivl.training.trainer import chosen_device, train

_log = logging.getLogger(__name__)
_LOSS = "train/total"
_BEGUN, _CURVE = "begun.json", "loss.jsonl"
_COMPARED = "compared"


class Reproduction(Record):
    """What came out of the second training, against the first."""

    model: str
    version: int
    equal: bool
    """the weights' files have the same bytes"""
    weights: str
    """SHA-256 of the second training's weights, hex"""
    largest_difference: float
    """over all weights, absolute"""
    loss_difference: float | None
    """largest, absolute, over the logged steps that both have; None where there is none"""
    steps_compared: int
    miou_difference: float | None
    """second less first, points, on the evaluation images of the version's snapshot; None where there is no first"""
    unscored: str
    """why there is none; empty where there is one"""
    differs: tuple[str, ...]
    """what is not as it was then: code, packages, machine"""
    folder: str
    """bundle of the second training"""


class Curve:
    """An observer that keeps the loss of every logged step, on disk too, so that a kill loses none.

    Steps that are taken again, those after the checkpoint that a killed training goes on from, replace the earlier.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self.loss = _read_curve(journal)

    def samples(self, told: Sequence[str]) -> None:
        """Nothing: they are told in the first training's run."""

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Keeps the loss."""
        self.loss[step] = values[_LOSS]
        with self._journal.open("a") as file:
            file.write(f"\n{json.dumps([step, values[_LOSS]])}")  # the line break first: a line that a kill cut ends
        _log.info("step %d: loss %.4f", step, values[_LOSS])

    def previews(self, step: int, images: dict[str, np.ndarray]) -> None:
        """Nothing: pictures prove nothing here."""

    def checkpoint(self, step: int, path: Path) -> None:
        """Nothing: the trainer keeps them."""

    def artifact(self, path: Path) -> None:
        """Nothing: it lies in the folder."""


def reproduce(store: Store, made: Lineage, folder: Path) -> Reproduction:
    """Trains the version again in `folder` and compares; a killed one goes on there.

    Raises:
        RegistryError: REG028 the folder holds something else.
        what a training raises; DataError DATA202 its snapshot is gone.
    """
    config, own = made.config, made.seen[0]
    snapshot = read(store, own.dataset, own.snapshot)
    parent = bundle_of(made.model, made.parent) if made.parent else None
    key = f"reproduce-{made.train_key}"
    _make_ready(store, made, folder, key)
    curve = Curve(folder / _CURVE)
    bundle = train(config, snapshot, store, folder, curve, parent, key, guide_bundle(config))
    miou, unscored = _miou_difference(store, made, snapshot, bundle)
    first = _loss_of(made.run_id)
    shared = [abs(first[step] - loss) for step, loss in curve.loss.items() if step in first]
    again = weights_of(bundle)
    found = Reproduction(
        model=made.model,
        version=made.version,
        equal=again == made.weights,
        weights=again,
        largest_difference=_largest_difference(bundle_of(made.model, made.version) / WEIGHTS, bundle / WEIGHTS),
        loss_difference=max(shared, default=None),
        steps_compared=len(shared),
        miou_difference=miou,
        unscored=unscored,
        differs=_differences(made),
        folder=str(bundle),
    )
    (folder / _BEGUN).write_text(_COMPARED)
    _drop_checkpoints(store, key)
    return found


def _make_ready(store: Store, made: Lineage, folder: Path, key: str) -> None:
    """Leaves in the folder what a killed reproduction of the same with the same can go on from, else nothing of one."""
    begun = folder / _BEGUN
    surroundings = environment(made.config.compute.threads)
    now = json.dumps([key, commit(), surroundings, made.config.model_dump(mode="json")])
    if begun.is_file() and begun.read_text() == now:
        return
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not begun.is_file())):
        raise RegistryError("REG028", f"{folder} holds something else than a reproduction.", "Name an empty folder.")
    if folder.is_dir():
        shutil.rmtree(folder / "model", ignore_errors=True)
        for left in (*folder.glob("step-*"), *folder.glob(".step-*")):
            shutil.rmtree(left)
        (folder / _CURVE).unlink(missing_ok=True)
    _drop_checkpoints(store, key)
    folder.mkdir(parents=True, exist_ok=True)
    begun.write_text(now)


def _drop_checkpoints(store: Store, key: str) -> None:
    for left in list(store.list(f"checkpoints/{key}/")):
        store.delete(left)


def _read_curve(journal: Path) -> dict[int, float]:
    points = {}
    for line in journal.read_text().splitlines() if journal.is_file() else []:
        try:
            step, loss = json.loads(line)
        except ValueError:  # the first, which is empty, or what a kill cut; that step is taken again
            continue
        points[step] = loss
    return points


def _miou_difference(store: Store, made: Lineage, snapshot: Snapshot, bundle: Path) -> tuple[float | None, str]:
    """The second training's mIoU less the first's on the snapshot's evaluation images; or why there is none."""
    try:
        digest = split_digest(snapshot)
    except RegistryError as error:  # REG003
        return None, error.what
    kept = read_scores(store, made.model, made.version, digest)
    if kept is None:
        return None, "the version has no scores on its snapshot's evaluation images"
    cache = ShardCache(store, snapshot.manifest.dataset, home() / "cache" / "shards")
    predictor = load_bundle(bundle, str(chosen_device(made.config.compute)))
    return evaluate(predictor, snapshot, cache).scores.miou - kept.scores.miou, ""


def _loss_of(run_id: str) -> dict[int, float]:
    return {point.step: point.value for point in client().get_metric_history(run_id, _LOSS)}


def _largest_difference(first: Path, second: Path) -> float:
    one, other = load_file(first), load_file(second)
    if {name: t.shape for name, t in one.items()} != {name: t.shape for name, t in other.items()}:
        return float("inf")
    return max((_difference(tensor, other[name]) for name, tensor in one.items()), default=0.0)


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.double() - other.double()).abs().max()) if one.numel() else 0.0


def _differences(made: Lineage) -> tuple[str, ...]:
    """In words, what is not as it was when the version was trained."""
    now, code = environment(made.config.compute.threads), commit()
    told = [] if code == made.commit else [f"code: {made.commit or 'not kept'} then, {code} now"]
    if not made.environment:
        return (*told, "surroundings: not kept")
    names = sorted({*now, *made.environment}, key=str.lower)
    return (
        *told,
        *(
            f"{name}: {made.environment.get(name, 'none')} then, {now.get(name, 'none')} now"
            for name in names
            if made.environment.get(name) != now.get(name)
        ),
    )
