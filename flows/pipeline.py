"""semivl-pipeline: one turn of the loop, each stage a run of its own beneath this one."""

from typing import Any

from prefect.artifacts import create_table_artifact

from flows.common import Overrides, artifact_key, semivl_flow
from flows.evaluate import evaluate
from flows.ingest import ingest
from flows.promote import promote
from flows.train import train
from flows.validate import validate
from semivl.config import Config, load
from semivl.data.snapshot import read
from semivl.data.store import open_store
from semivl.evaluation.scores import Scores
from semivl.methods import create
from semivl.registry.package import alias_version, model_version
from semivl.registry.promotion import CHAMPION, Decision
from semivl.registry.tracking import report_address, version_address


@semivl_flow(
    "semivl-pipeline",
    "ingest -> validate -> train -> evaluate -> promote. What is done already is found done.",
)
def pipeline(experiment: str = "demo", overrides: Overrides | None = None) -> Decision:
    """The gate's decision about the model that the experiment gives on what its source holds now.

    Args:
        experiment: name of a file in conf/experiment
        overrides: settings that differ from the experiment's
    """
    create(load(experiment, overrides).method)  # an unknown method is told before the work begins
    return after_ingest(experiment, overrides, ingest(experiment, overrides))


def after_ingest(experiment: str, overrides: Any, snapshot: str) -> Decision:
    """The stages that follow an ingest, on its snapshot, each a run beneath the present one."""
    validate(experiment, overrides, snapshot=snapshot)
    version = train(experiment, overrides, snapshot=snapshot)
    scores = evaluate(experiment, overrides, version=version, snapshot=snapshot)
    decision = promote(experiment, overrides, version=version)
    summarise(load(experiment, overrides), scores, decision)
    return decision


def summarise(config: Config, scores: Scores, decision: Decision) -> None:
    """The run's artifact that `semivl run` prints: one row with the outcome, and the pages of the champion."""
    champion = alias_version(decision.model, CHAMPION)
    shown = model_version(decision.model, champion or decision.challenger)
    counts = read(open_store(), scores.dataset, scores.snapshot).manifest.counts
    row = {
        "experiment": config.name,
        "method": config.method.name,
        "labelled masks": counts.get("train/mask", 0),
        "mIoU": round(scores.miou, 2),
        "gate": "promoted" if decision.promoted else "kept out",
        "reason": decision.reason,
        "model": f"{decision.model} version {decision.challenger}",
        "snapshot": f"{scores.dataset}@{scores.snapshot}",
        "model page": version_address(decision.model, int(shown.version)),
        "report": report_address(shown.run_id) if shown.run_id else "",
    }
    create_table_artifact([row], key=artifact_key("outcome", config.name), description=f"Outcome of {config.name}")
