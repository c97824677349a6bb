"""semivl-evaluate: the scores of any model version on a split of any snapshot, and its report."""

from prefect.artifacts import create_link_artifact, create_table_artifact

from flows.common import Overrides, artifact_key, log, semivl_flow, semivl_task
from semivl.config import Config, load
from semivl.data.cache import ShardCache
from semivl.data.sample import Split
from semivl.data.snapshot import Snapshot, read
from semivl.data.store import Store, open_store
from semivl.evaluation.evaluate import evaluate as score
from semivl.evaluation.scores import Evaluation, Scores, split_digest
from semivl.registry.package import CHALLENGER, load_predictor, model_version
from semivl.registry.report import publish_report
from semivl.registry.scores import is_published, publish_scores, read_scores, save_scores
from semivl.registry.tracking import report_address
from semivl.settings import home
from semivl.training.trainer import chosen_device


@semivl_flow("semivl-evaluate", "Model version + snapshot split -> scores in S3, shown in MLflow with a report.")
def evaluate(
    experiment: str = "demo",
    overrides: Overrides | None = None,
    version: int | str | None = None,
    snapshot: str | None = None,
    split: Split = "val",
) -> Scores:
    """The version's scores; those that were kept where it was scored on these images before.

    Args:
        experiment: name of a file in conf/experiment
        overrides: settings that differ from the experiment's
        version: model version by number or alias; the challenger where empty
        snapshot: version of the snapshot; the current one where empty
        split: train or val; the masks of that split are what the model is scored on
    """
    config = load(experiment, overrides)
    found = model_version(config.registered_model, numbered(version))
    scores = score_once(config, int(found.version), snapshot, split)
    show(experiment, scores)
    if found.run_id and split == "val":
        create_link_artifact(report_address(found.run_id), link_text="report", key=artifact_key("report", experiment))
    return scores


def numbered(version: int | str | None) -> int | str:
    """The version as a number where it is one, though a form gave it as text; the challenger's alias where empty."""
    if version is None or version == "":
        return CHALLENGER
    return int(version) if isinstance(version, str) and version.isdecimal() else version


@semivl_task("score", run_name="score-version-{version}")
def score_once(config: Config, version: int, snapshot_version: str | None, split: Split = "val") -> Scores:
    """Scores of the version on the masks of the snapshot's split, computed and published once."""
    store, model = open_store(), config.registered_model
    snapshot = read(store, config.data.dataset, snapshot_version)
    digest = split_digest(snapshot, split)
    kept = read_scores(store, model, version, digest)
    if kept and is_published(model_version(model, version), split, digest):
        log.info("%s version %d was scored on these images before", model, version)
        return kept.scores
    return publish(config, version, snapshot, split, store, kept)


def publish(
    config: Config, version: int, snapshot: Snapshot, split: Split, store: Store, kept: Evaluation | None
) -> Scores:
    """Scores the version unless that is kept, writes its report, and shows both in MLflow.

    The report is about the evaluation split: what a model makes of its own training masks is told by the scores alone.
    """
    model = config.registered_model
    predictor = load_predictor(model, version, str(chosen_device(config.compute)))
    cache = ShardCache(store, config.data.dataset, home() / "cache" / "shards")
    sizes = config.evaluation.latency_sizes
    evaluation = kept or score(predictor, snapshot, cache, split, log_tenths, sizes).of(model, version)
    evaluation = evaluation._replace(scores=save_scores(store, evaluation))
    if split == "val":
        publish_report(config, version, snapshot)
    publish_scores(evaluation)
    scores = evaluation.scores
    log.info("%s version %d: %.2f mIoU on %d images of %s", model, version, scores.miou, scores.images, split)
    return scores


def show(experiment: str, scores: Scores) -> None:
    """The run's artifacts: a line a class and a line a slice."""

    def shown(value: float | None) -> float | str:
        return "absent" if value is None else round(value, 1)

    create_table_artifact(
        [
            {
                "class": name,
                "IoU": shown(value),
                "accuracy": shown(scores.class_accuracy[name]),
                "boundary IoU": shown(scores.boundary_iou[name]),
            }
            for name, value in scores.iou.items()
        ],
        key=artifact_key("scores", experiment),
        description=f"{scores.model} version {scores.model_version}: {scores.miou:.1f} mIoU, "
        f"{scores.boundary_miou:.1f} boundary mIoU, {scores.ece:.1f} calibration error on {scores.images} images of "
        f"{scores.dataset}@{scores.snapshot} {scores.split}, {scores.ms_per_image:.0f} ms each",
    )
    if scores.slices:
        create_table_artifact(
            [{"slice": s.kind, "of": s.name, "images": s.images, "mIoU": shown(s.miou)} for s in scores.slices],
            key=artifact_key("slices", experiment),
            description=f"{scores.model} version {scores.model_version} by slice",
        )


def log_tenths(done: int, images: int) -> None:
    """A line in the log for each tenth of the images."""
    if done == images or done % max(1, images // 10) == 0:
        log.info("%d of %d images scored", done, images)
