"""Two made models on made images, for tests of the gate: pixels that stand for how good each is at every class."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from semivl.config import GateConfig
from semivl.evaluation.overlap import Overlap
from semivl.evaluation.paired import Counts
from semivl.evaluation.scores import Scores
from semivl.registry.decision import Decision
from semivl.registry.gate import decide
from semivl.registry.gate_exposure import Exposure
from semivl.registry.gate_rules import Case, Side
from semivl.registry.reigns import Reign

EVEN = (0.6, 0.6, 0.6)
"""the share of each of three classes that a middling model gets right"""


def counts(shares: Sequence[float] = EVEN, own: int = 0, images: int = 60, seed: int = 1) -> Counts:
    """Pixels of a model. What is hard in the images goes by `seed`, what the model itself adds by `own`."""
    hard, chance = np.random.default_rng(seed), np.random.default_rng(1000 + own)
    shape = images, len(shares)
    unions = hard.integers(500, 3000, shape)
    share = np.array(shares) + hard.normal(0, 0.15, shape) + chance.normal(0, 0.03, shape)
    return Counts(np.rint(unions * share.clip(0, 1)), unions.astype(float))


def seen(exact: int = 0, near: int = 0) -> Exposure:
    """A training on one snapshot that holds so many of the evaluation images."""
    one = Overlap(dataset="photos", snapshot="0" * 16, images=100, exact=exact, near=near, examples=("val is train",))
    return Exposure(overlaps=(one,))


def scores(version: int, made: Counts, model: str = "m", digest: str = "d1", **changes: Any) -> Scores:
    iou = 100 * made.intersections.sum(0) / made.unions.sum(0).clip(1)
    known: dict[str, Any] = {
        "model": model, "model_version": version, "dataset": "photos", "snapshot": "0" * 16, "split": "val",
        "digest": digest, "images": len(made.unions), "pixels": 1000, "miou": float(iou.mean()),
        "iou": {f"class {i}": float(value) for i, value in enumerate(iou)}, "accuracy": 70.0, "ms_per_image": 20.0,
        "peak_memory_mib": 100.0, "ece": 4.0, "model_bytes": 30 << 20, "confidence": 70.0, "class_accuracy": {},
        "boundary_iou": {}, "boundary_miou": 0.0, "reliability": (), "slices": (), "latency": (),
    }  # fmt: skip
    return Scores(**known | changes)


def side(version: int, made: Counts, exposure: Exposure | None = None, **changes: Any) -> Side:
    return Side(scores(version, made, **changes), made, exposure or seen())


def case(challenger: Side, champion: Side | None, gate: GateConfig | None = None, **changes: Any) -> Case:
    known: dict[str, Any] = {"gate": gate or GateConfig(), "digest": "d1", "challenger": challenger}
    return Case(**known | {"champion": champion} | changes)


def decision(
    model: str, challenger: int, reign: Reign | None, lead: float = 0.1, gate: GateConfig | None = None, **changes: Any
) -> Decision:
    """A decision about a version that gets so much more of each class right than the champion."""
    above = side(challenger, counts([share + lead for share in EVEN], own=challenger), model=model, **changes)
    below = side(reign.version, counts(own=reign.version), model=model, **changes) if reign else None
    return decide(case(above, below, gate, digest=above.scores.digest), reign)
