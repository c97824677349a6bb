"""The report of a model version, put together from what is kept of it in S3 and MLflow."""

from pathlib import Path

from semivl.config import Config
from semivl.data import snapshot as snapshots
from semivl.data.cache import ShardCache
from semivl.data.snapshot import Snapshot
from semivl.data.store import Store, open_store
from semivl.errors import RegistryError
from semivl.evaluation.drift import Drift, read_drift
from semivl.evaluation.report import Tab, write_report
from semivl.evaluation.report_compare import compare_tab, differing, pairs
from semivl.evaluation.report_figures import calibration_tab, drift_tab, slices_tab
from semivl.evaluation.report_scores import examples, scores_tab
from semivl.evaluation.scores import Evaluation, split_digest
from semivl.registry.decision import Decision, of_version
from semivl.registry.lineage import lineage
from semivl.registry.package import load_predictor, model_version
from semivl.registry.reigns import champion
from semivl.registry.report_tabs import decision_tab, lineage_tab
from semivl.registry.scores import read_scores
from semivl.registry.tracking import client
from semivl.settings import home
from semivl.training.bundle import Predictor
from semivl.training.trainer import chosen_device

_NONE_YET = "There is no other champion to lay it beside."


def publish_report(config: Config, version: int, snapshot: Snapshot) -> Path:
    """Writes the page of the version, scored on the snapshot's evaluation images, and keeps it with the version's run.

    Raises:
        RegistryError: REG004 there is no such version, REG027 it was not scored on these images.
    """
    store, model = open_store(), config.registered_model
    evaluation = read_scores(store, model, version, split_digest(snapshot))
    if evaluation is None:
        what = (
            f"version {version} of {model} was not scored on {snapshot.manifest.dataset}@{snapshot.manifest.version}."
        )
        raise RegistryError("REG027", what, "Score it first: semivl-evaluate.")
    cache = ShardCache(store, snapshot.manifest.dataset, home() / "cache" / "shards", config.compute.cache_bytes)
    device = str(chosen_device(config.compute))
    predictor = load_predictor(model, version, device)
    decided = of_version(store, model, version)
    found = model_version(model, version)
    tabs = [
        scores_tab(evaluation, examples(predictor, snapshot, cache, evaluation.per_image)),
        decision_tab(decided),
        _compared(store, evaluation, predictor, _other(store, model, version, decided), snapshot, cache, device),
        slices_tab(evaluation.scores),
        calibration_tab(evaluation.scores),
        drift_tab(_drift(store, found.tags)),
        lineage_tab(lineage(model, version)),
    ]
    path = home() / "reports" / model / str(version) / "index.html"
    write_report(path, evaluation.scores, tabs)
    if found.run_id:
        client().log_artifact(found.run_id, str(path), "report")
    return path


def _other(store: Store, model: str, version: int, decided: list[Decision]) -> int | None:
    """The version to lay beside it: the champion that it met at the gate, else the one that reigns."""
    if decided and decided[0].champion is not None:
        return decided[0].champion
    reign = champion(store, model)
    return reign.version if reign and reign.version != version else None


def _compared(
    store: Store,
    evaluation: Evaluation,
    predictor: Predictor,
    other: int | None,
    snapshot: Snapshot,
    cache: ShardCache,
    device: str,
) -> Tab:
    scores = evaluation.scores
    if other is None:
        return Tab("compare", "Side by side", absent=_NONE_YET)
    kept = read_scores(store, scores.model, other, scores.digest)
    if kept is None:
        why = f"Version {other}, the champion, was not scored on these images yet."
        return Tab("compare", "Side by side", absent=why)
    found = differing(kept.per_image, evaluation.per_image)
    left = load_predictor(scores.model, other, device)
    shown = pairs(found, left, predictor, snapshot, cache)
    return compare_tab(f"version {other} (champion)", f"version {scores.model_version}", shown)


def _drift(store: Store, tags: dict[str, str]) -> Drift | None:
    """What was found of the dataset's newest images against those that the version learned from."""
    dataset, trained = tags.get("semivl.dataset"), tags.get("semivl.snapshot")
    current = snapshots.head(store, dataset) if dataset else None
    return read_drift(store, dataset, trained, current) if dataset and trained and current else None
