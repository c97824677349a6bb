"""semivl-promote: the gate. Challenger and champion are scored on the same images, and the better stays."""

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.common import Overrides, artifact_key, log, semivl_flow, semivl_task
from flows.evaluate import score_once
from semivl.config import Config, load
from semivl.data.snapshot import read
from semivl.data.store import open_store
from semivl.evaluation.scores import split_digest
from semivl.registry import promotion
from semivl.registry.package import CHALLENGER, alias_version, model_version
from semivl.registry.promotion import CHAMPION, Decision
from semivl.registry.tracking import version_address


@semivl_flow(
    "semivl-promote",
    "Challenger against champion on the same images; the alias moves if the challenger is better.",
)
def promote(
    experiment: str = "demo",
    overrides: Overrides | None = None,
    version: int | None = None,
    snapshot: str | None = None,
) -> Decision:
    """The decision, carried out; the earlier one where this challenger was decided on these images before.

    Args:
        experiment: name of a file in conf/experiment
        overrides: settings that differ from the experiment's
        version: the challenger's model version; the one with the alias challenger where empty
        snapshot: version of the snapshot; the current one where empty
    """
    config = load(experiment, overrides)
    challenger = int(model_version(config.registered_model, version or CHALLENGER).version)
    decision = earlier(config, challenger, snapshot)
    if decision is None:
        champion = alias_version(config.registered_model, CHAMPION)
        decision = promotion.decide(
            config.gate,
            score_once(config, challenger, snapshot),
            None if champion is None else score_once(config, champion, snapshot),
        )
    decision = carry_out(decision)
    report(experiment, decision)
    return decision


@semivl_task("look-for-decision")
def earlier(config: Config, challenger: int, snapshot: str | None) -> Decision | None:
    """What was decided about the challenger on these images, where that still stands."""
    store = open_store()
    digest = split_digest(read(store, config.data.dataset, snapshot))
    return promotion.recorded(store, config.registered_model, challenger, digest)


@semivl_task("carry-out")
def carry_out(decision: Decision) -> Decision:
    """Records the decision and moves the alias if it says so."""
    return promotion.apply(open_store(), decision)


def report(experiment: str, decision: Decision) -> None:
    """The run's artifacts: both scores, the verdict and its reason."""
    verdict = "promoted" if decision.promoted else "kept out"
    log.info("%s version %d is %s: %s", decision.model, decision.challenger, verdict, decision.reason)
    sides = [("challenger", decision.challenger, decision.challenger_miou)]
    if decision.champion is not None and decision.champion_miou is not None:
        sides.append(("champion before", decision.champion, decision.champion_miou))
    create_table_artifact(
        [{"side": side, "version": number, "mIoU": round(miou, 2)} for side, number, miou in sides],
        key=artifact_key("gate", experiment),
        description=f"{decision.model}: challenger {verdict}",
    )
    address = version_address(decision.model, decision.challenger)
    create_markdown_artifact(
        f"**[{decision.model} version {decision.challenger}]({address}) {verdict}**: {decision.reason}",
        key=artifact_key("decision", experiment),
    )
