"""Drift of a dataset against what its champion was trained on, computed once for the same inputs and kept in S3."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from semivl.config import Classes, Config
from semivl.data.cache import ShardCache
from semivl.data.samples import Samples
from semivl.data.snapshot import read
from semivl.data.store import Store
from semivl.errors import DriftError, RegistryError
from semivl.evaluation import drift as rooms
from semivl.evaluation import features
from semivl.evaluation.drift import Drift, Measured
from semivl.registry.package import alias_version, load_predictor, model_version
from semivl.registry.promotion import CHAMPION
from semivl.settings import home
from semivl.training.trainer import chosen_device

if TYPE_CHECKING:
    import pyarrow as pa
    from mlflow.entities.model_registry import ModelVersion

    from semivl.training.bundle import Predictor


def find_drift(store: Store, config: Config, reference: str | None = None, current: str | None = None) -> Drift:
    """What the new images of a snapshot are against the reference; what was kept, where its inputs are the same.

    Args:
        reference: version of a snapshot; the one that the champion was trained on where None.
        current: version of a snapshot; the current one where None.

    Raises:
        DataError: DATA201 to DATA203, a snapshot is not there or damaged.
        DriftError: DRIFT001 there is no reference, DRIFT002 the champion was trained on another dataset.
        RegistryError: REG001 MLflow is away, REG002 the champion knows other classes.
    """
    champion = _champion(config.registered_model)
    before = read(store, config.data.dataset, reference or _trained_on(config, champion))
    now = read(store, config.data.dataset, current)
    digest = _digest(config, champion)
    kept = rooms.read_drift(store, config.data.dataset, before.manifest.version, now.manifest.version)
    if kept and kept.digest == digest:
        return kept
    new = rooms.new_samples(before, now)
    old_side, new_side = _measured(store, config, champion, now.manifest.classes, [before.index, new])
    found = rooms.compare(old_side, new_side, now.manifest.classes.names, config.drift)
    drift = Drift(
        dataset=config.data.dataset,
        reference=before.manifest.version,
        current=now.manifest.version,
        reference_images=len(before.index),
        current_images=len(new),
        compared=(len(old_side.embedding), len(new_side.embedding)),
        false_alarms=config.drift.false_alarms,
        tests=found.tests,
        drifted=any(test.drifted for test in found.tests),
        left_out=found.left_out,
        class_shares=found.class_shares,
        points=rooms.plane(old_side.embedding, new_side.embedding) if found.tests else (),
        digest=digest,
    )
    rooms.save_drift(store, drift)
    return drift


def _measured(
    store: Store, config: Config, champion: "ModelVersion | None", classes: Classes, sides: Sequence["pa.Table"]
) -> list[Measured]:
    """What is compared of each side; nothing is computed where one is too small for a verdict."""
    most = config.drift.images if min(map(len, sides)) >= config.drift.min_new else 0
    cache = ShardCache(store, config.data.dataset, home() / "cache" / "shards", config.compute.cache_bytes)
    predictor = _predictor(champion, classes, config) if champion and most else None
    measured = []
    for index in sides:
        chosen = rooms.drawn(index, most)
        compute = features.embedding(config, cache)
        embedding = features.kept(store, features.embedding_digest(config), Samples(chosen), compute)
        shares = None
        if predictor and champion:
            unfitted = Samples(rooms.drawn(rooms.not_fitted(index), most))
            shares = features.kept(store, _shares_digest(champion), unfitted, features.shares(predictor, cache))
        measured.append(Measured(len(index), embedding, rooms.figures(chosen), shares))
    return measured


def _champion(model: str) -> "ModelVersion | None":
    number = alias_version(model, CHAMPION)
    return None if number is None else model_version(model, number)


def _predictor(champion: "ModelVersion", classes: Classes, config: Config) -> "Predictor":
    predictor = load_predictor(champion.name, int(champion.version), str(chosen_device(config.compute)))
    if predictor.classes.names == classes.names:
        return predictor
    raise RegistryError(
        "REG002",
        f"the champion of {champion.name} knows {', '.join(predictor.classes.names)}; the snapshot has "
        f"{', '.join(classes.names)}.",
        "Give the new class map a model of its own (model: ...).",
    )


def _trained_on(config: Config, champion: "ModelVersion | None") -> str:
    """The version of the snapshot that the champion was trained on."""
    model, dataset = config.registered_model, config.data.dataset
    remedy = "Give a snapshot's version as the reference; `semivl data log` lists them."
    if champion is None:
        raise DriftError("DRIFT001", f"{model} has no champion whose snapshot could be the reference.", remedy)
    trained = champion.tags.get("semivl.dataset", "another dataset")
    if trained != dataset:
        raise DriftError("DRIFT002", f"the champion of {model} was trained on {trained}, not on {dataset}.", remedy)
    return champion.tags["semivl.snapshot"]


def _shares_digest(champion: "ModelVersion") -> str:
    """What the champion's predictions are kept under."""
    said = f"{champion.name} {champion.version} {champion.run_id}"
    return f"shares-{hashlib.sha256(said.encode()).hexdigest()[:16]}"


def _digest(config: Config, champion: "ModelVersion | None") -> str:
    """Sixteen hex digits of the settings and models that decide what is found of two snapshots."""
    models = f"{features.embedding_digest(config)} {_shares_digest(champion) if champion else ''}"
    return hashlib.sha256(f"{config.drift.model_dump_json()} {models}".encode()).hexdigest()[:16]
