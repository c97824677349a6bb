"""semivl-promote: the gate. Challenger and champion meet on the frozen evaluation images; the better one stays."""

from functools import partial

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.approval import ask_person, one_at_a_time
from flows.common import Overrides, artifact_key, log, semivl_flow, semivl_task
from flows.evaluate import score_once
from semivl.config import Config, load
from semivl.data.cache import ShardCache
from semivl.data.snapshot import Snapshot
from semivl.data.store import open_store
from semivl.evaluation.paired import counts_of
from semivl.evaluation.scores import evaluation_rows, read_pair, split_digest
from semivl.evaluation.speed import PHOTOS, Speeds, side_by_side
from semivl.registry import gate, promotion
from semivl.registry.decision import Decision
from semivl.registry.frozen import evaluation_set
from semivl.registry.gate_exposure import Exposure, exposure
from semivl.registry.gate_rules import Case, Side
from semivl.registry.package import CHALLENGER, load_predictor, model_version
from semivl.registry.reigns import Reign, reigns
from semivl.registry.report import publish_report
from semivl.registry.rollback import withdrawn
from semivl.registry.scores import read_scores
from semivl.registry.tracking import version_address
from semivl.settings import home
from semivl.training.trainer import chosen_device


@semivl_flow(
    "semivl-promote",
    "Challenger against champion on the frozen evaluation images; the alias moves if every rule of the gate is met.",
)
def promote(
    experiment: str = "demo",
    overrides: Overrides | None = None,
    version: int | None = None,
    snapshot: str | None = None,
) -> Decision:
    """The decision, carried out; the earlier one where the challenger met this champion on these images before.

    Args:
        experiment: name of a file in conf/experiment
        overrides: settings that differ from the experiment's
        version: the challenger's model version; the one with the alias challenger where empty
        snapshot: version of a snapshot to compare on instead; the gate refuses all but the model's frozen set
    """
    config = load(experiment, overrides)
    model, store = config.registered_model, open_store()
    challenger = int(model_version(model, version or CHALLENGER).version)
    chosen, digest = evaluation_set(store, config, snapshot)
    decision = promotion.settle(
        store,
        model,
        challenger,
        split_digest(chosen),
        config.gate,
        partial(judge, config, challenger, chosen, digest),
        partial(carry_out, config),
    )
    report(experiment, decision)
    write_report(config, challenger, chosen)
    return decision


@semivl_task("report", run_name="report-version-{version}")
def write_report(config: Config, version: int, snapshot: Snapshot) -> None:
    """The version's report once more, with the decision and the champion beside it."""
    data = config.data.model_copy(update={"dataset": snapshot.manifest.dataset})
    publish_report(config.model_copy(update={"data": data}), version, snapshot)


def judge(config: Config, challenger: int, snapshot: Snapshot, digest: str, reign: Reign | None) -> Decision:
    """What the gate, and a person where one is asked, says of the challenger while this champion reigns."""
    sides = [side(config, challenger, snapshot), side(config, reign.version, snapshot) if reign else None]
    timed = reign and config.gate.latency_ratio is not None
    line = reigns(open_store(), config.registered_model)
    case = Case(
        gate=config.gate,
        digest=digest,
        challenger=sides[0],
        champion=sides[1],
        speeds=time_both(config, challenger, reign.version, snapshot) if reign and timed else None,
        withdrawn=withdrawn(line, challenger),
    )
    decision = gate.decide(case, reign)
    if decision.promoted and config.gate.approval == "person":
        return ask_person(decision, config.gate.approval_hours)
    return decision


def side(config: Config, version: int, snapshot: Snapshot) -> Side:
    """The version's scores on the snapshot, and whether it has seen its evaluation images."""
    data = config.data.model_copy(update={"dataset": snapshot.manifest.dataset})
    scores = score_once(config.model_copy(update={"data": data}), version, snapshot.manifest.version)
    kept = read_scores(open_store(), config.registered_model, version, scores.digest)
    assert kept
    return Side(scores, counts_of(kept.per_image), look_for_overlap(config, version, snapshot, scores.digest))


@semivl_task("look-for-overlap", run_name="look-for-overlap-{version}")
def look_for_overlap(config: Config, version: int, snapshot: Snapshot, digest: str) -> Exposure:
    """What of the evaluation images the version was trained on."""
    rows = evaluation_rows(snapshot, "val")
    return exposure(open_store(), config.registered_model, version, rows, digest, config.gate.near_bits)


@semivl_task("time-both")
def time_both(config: Config, challenger: int, champion: int, snapshot: Snapshot) -> Speeds:
    """Both models' times on a few of the evaluation images, in turns."""
    device, rows = str(chosen_device(config.compute)), evaluation_rows(snapshot, "val")
    cache = ShardCache(open_store(), snapshot.manifest.dataset, home() / "cache" / "shards")
    photos = [read_pair(cache, row)[0] for row in rows[:: -(-len(rows) // PHOTOS)]]
    one, other = (load_predictor(config.registered_model, version, device) for version in (challenger, champion))
    return side_by_side(one, other, photos)


@semivl_task("carry-out")
def carry_out(config: Config, decision: Decision) -> Decision:
    """Records the decision and moves the line of champions if it says so."""
    with one_at_a_time(config.registered_model):
        return promotion.apply(open_store(), decision)


def report(experiment: str, decision: Decision) -> None:
    """The run's artifacts: every rule with what it found, the verdict and its reason."""
    verdict = "promoted" if decision.promoted else "kept out"
    log.info("%s version %d is %s: %s", decision.model, decision.challenger, verdict, decision.reason)
    create_table_artifact(
        [
            {
                "rule": rule.code,
                "demand": rule.demand,
                "": "met" if rule.met else "NOT MET",
                "found": rule.found,
            }
            for rule in decision.rules
        ],
        key=artifact_key("gate", experiment),
        description=f"{decision.model}: challenger {verdict}",
    )
    address = version_address(decision.model, decision.challenger)
    create_markdown_artifact(
        f"**[{decision.model} version {decision.challenger}]({address}) {verdict}**: {decision.reason}\n\n"
        f"On {decision.images} images of {decision.dataset}@{decision.snapshot}, digest {decision.digest}.",
        key=artifact_key("decision", experiment),
    )
