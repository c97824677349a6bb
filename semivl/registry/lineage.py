"""Lineage: from a model version back to all that it was made of."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import yaml

from semivl.config import Config, Record
from semivl.data.sample import Split
from semivl.data.snapshot import read
from semivl.data.store import Store, open_store
from semivl.data.tables import compute
from semivl.errors import RegistryError
from semivl.registry.decision import Decision, of_version
from semivl.registry.package import fetch_bundle, model_version
from semivl.registry.provenance import COMMIT, ENVIRONMENT, MACHINE, packages_of
from semivl.registry.runs import CONFIG, PARENT_VERSION, TEACHER, TRAIN_KEY
from semivl.registry.tracking import client
from semivl.registry.trained_on import TrainedOn, trained_on
from semivl.training.bundle import weights_of

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = ("key", "sha256", "mask_sha256", "split", "supervision", "source")


class Scored(Record):
    """The newest scores of a version on one split, as its page in MLflow shows them."""

    split: Split
    miou: float
    """points"""
    snapshot: str
    digest: str
    """hash of the evaluated samples, their masks and the class map"""


class Lineage(Record):
    """What one version was made of. A field that an older training did not keep is empty."""

    model: str
    version: int
    run_id: str
    registered: str
    """when, ISO, UTC"""
    experiment: str
    method: str
    train_key: str
    commit: str
    environment: dict[str, str]
    """python, system, device and threads, and every package's version"""
    weights: str
    """SHA-256 of the weights' file"""
    parent: int | None
    teacher: str = ""
    """NAME/VERSION of the finished model that guided its training, or that one's folder; empty where none did"""
    seen: tuple[TrainedOn, ...]
    """the snapshots behind it: its own, then those of the versions that it learned from, and of theirs"""
    config: Config
    scores: tuple[Scored, ...] = ()
    decisions: tuple[Decision, ...] = ()
    """the gate's about the version as a challenger, newest first"""


def lineage(model: str, version: int | str) -> Lineage:
    """The lineage of a version, given by number or alias.

    Raises:
        RegistryError: REG004 there is no such version, REG026 its run or the run's config.yaml is gone.
    """
    found = model_version(model, version)
    number, tags = int(found.version), found.tags
    run = _run(model, number, found.run_id)
    parent = tags.get(PARENT_VERSION, "")
    return Lineage(
        model=model,
        version=number,
        run_id=run.info.run_id,
        registered=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        experiment=tags.get("semivl.experiment", ""),
        method=tags.get("semivl.method", ""),
        train_key=tags.get(TRAIN_KEY, ""),
        commit=run.data.tags.get(COMMIT, ""),
        environment=json.loads(_artifact(run.info.run_id, ENVIRONMENT) or "{}"),
        weights=weights_of(fetch_bundle(found)),
        parent=int(parent) if parent.isdigit() else None,
        teacher=tags.get(TEACHER, ""),
        seen=trained_on(model, number),
        config=_config(model, number, run.info.run_id),
        scores=_scores(tags),
        decisions=tuple(of_version(open_store(), model, number)),
    )


def training_samples(store: Store, made: Lineage) -> "pa.Table":
    """Every sample of the training splits behind the version, with the hashes of image and mask.

    One row a sample and snapshot: its key, sha256, mask_sha256, split, supervision and source, and the snapshot's
    dataset and version with the model and its version that learned from it. Which of them a training used, its method
    says (`needs`).
    """
    import pyarrow as pa

    pc = compute()
    tables = []
    for seen in made.seen:
        index = read(store, seen.dataset, seen.snapshot).index
        rows = index.filter(pc.equal(index["split"], "train")).select(list(_COLUMNS))
        for name, value in seen.model_dump().items():
            rows = rows.append_column(name, pa.array([value] * len(rows)))
        tables.append(rows)
    return pa.concat_tables(tables)


def facts(made: Lineage) -> dict[str, list[tuple[str, str]]]:
    """The lineage in groups of names and values, as a page or a terminal shows it; without classes and settings."""
    environment = made.environment
    teacher = [("guided by", made.teacher)] if made.teacher else []
    known = (*MACHINE, "torch", "open_clip_torch", "timm", "numpy")
    return {
        "Training": [
            ("registered (UTC)", made.registered[:19].replace("T", " ")),
            ("experiment", made.experiment),
            ("method", made.method),
            ("train key", made.train_key),
            ("MLflow run", made.run_id),
            ("weights, SHA-256", made.weights),
            ("trained on from", f"version {made.parent}" if made.parent else "the encoder's own weights"),
            *teacher,
        ],
        "Data": [(_learner(made, s), f"{s.dataset}@{s.snapshot}") for s in made.seen],
        "Code and surroundings": [
            ("commit", made.commit or "not kept"),
            *((name, environment[name]) for name in known if name in environment),
            ("packages", f"{len(packages_of(environment))} named in the run's {ENVIRONMENT}"),
        ],
    }


def _learner(made: Lineage, seen: TrainedOn) -> str:
    version = f"version {seen.model_version}"
    return f"{version} learned from" if seen.model == made.model else f"{version} of {seen.model} learned from"


def judged(made: Lineage) -> dict[str, list[tuple[str, str]]]:
    """What was found of the version since, grouped like `facts`; the report has tabs of their own for it."""
    scores = [(s.split, f"{s.miou:.2f} mIoU on {s.snapshot}, images {s.digest}") for s in made.scores]
    decisions = [
        (d.decided_at[:19].replace("T", " "), f"{'promoted' if d.promoted else 'refused'}: {d.reason}")
        for d in made.decisions
    ]
    return {
        "Scores": scores or [("", "none: semivl-evaluate gives them")],
        "Decisions (UTC)": decisions or [("", "none: semivl-promote decides")],
    }


def _scores(tags: dict[str, str]) -> tuple[Scored, ...]:
    found = []
    prefixes: dict[Split, str] = {"val": "semivl.", "train": "semivl.train_"}
    for split, prefix in prefixes.items():
        miou, snapshot, digest = (tags.get(prefix + name) for name in ("miou", "scores_snapshot", "scores_digest"))
        if miou and snapshot and digest:
            found.append(Scored(split=split, miou=float(miou), snapshot=snapshot, digest=digest))
    return tuple(found)


def _run(model: str, number: int, run_id: str | None):
    from mlflow.exceptions import MlflowException

    try:
        if run_id:
            return client().get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    raise _gone(model, number, "its run is no longer in MLflow")


def _config(model: str, number: int, run_id: str) -> Config:
    text = _artifact(run_id, CONFIG)
    if text is None:
        raise _gone(model, number, f"its run has no {CONFIG}")
    return Config.model_validate(yaml.safe_load(text))


def _artifact(run_id: str, name: str) -> str | None:
    """The text of one of the run's artifacts; None where it has none of that name."""
    import mlflow.artifacts

    if name not in [file.path for file in client().list_artifacts(run_id)]:
        return None
    return mlflow.artifacts.load_text(f"runs:/{run_id}/{name}")


def _gone(model: str, number: int, what: str) -> RegistryError:
    return RegistryError(
        "REG026", f"version {number} of {model} cannot be traced: {what}.", "Restore it from MLflow's backup."
    )
