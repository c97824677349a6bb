"""Reproduce: train a version again, from its own record, and compare.

The second training has a folder and a key of its own, so that it finds nothing done and touches no run, version or
alias. On a CPU with the same number of threads, packages and code the weights are equal, bit for bit.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from semivl.config import Record
from semivl.data.snapshot import read
from semivl.data.store import Store
from semivl.registry.lineage import Lineage
from semivl.registry.package import bundle_of
from semivl.registry.provenance import commit, environment
from semivl.registry.tracking import client
from semivl.training.bundle import WEIGHTS, weights_of
from semivl.training.trainer import train

_log = logging.getLogger(__name__)
_LOSS = "train/total"


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
    differs: tuple[str, ...]
    """what is not as it was then: code, packages, machine"""
    folder: str
    """bundle of the second training"""


class Curve:
    """An observer that keeps the loss of every logged step."""

    def __init__(self) -> None:
        self.loss: dict[int, float] = {}

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Keeps the loss."""
        self.loss[step] = values[_LOSS]
        _log.info("step %d: loss %.4f", step, values[_LOSS])

    def previews(self, step: int, images: dict[str, np.ndarray]) -> None:
        """Nothing: pictures prove nothing here."""

    def checkpoint(self, step: int, path: Path) -> None:
        """Nothing: the trainer keeps them."""


def reproduce(store: Store, made: Lineage, folder: Path) -> Reproduction:
    """Trains the version again in `folder` and compares; a killed one goes on there.

    Raises:
        what a training raises; DataError DATA202 its snapshot is gone.
    """
    config, own = made.config, made.seen[0]
    parent = bundle_of(made.model, made.parent) if made.parent else None
    curve, key = Curve(), f"reproduce-{made.train_key}"
    bundle = train(config, read(store, own.dataset, own.snapshot), store, folder, curve, parent, key)
    for left in list(store.list(f"checkpoints/{key}/")):
        store.delete(left)
    first = _loss_of(made.run_id)
    shared = [abs(first[step] - loss) for step, loss in curve.loss.items() if step in first]
    again = weights_of(bundle)
    return Reproduction(
        model=made.model,
        version=made.version,
        equal=again == made.weights,
        weights=again,
        largest_difference=_largest_difference(bundle_of(made.model, made.version) / WEIGHTS, bundle / WEIGHTS),
        loss_difference=max(shared, default=None),
        steps_compared=len(shared),
        differs=_differences(made),
        folder=str(bundle),
    )


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
    now, code = environment(), commit()
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
