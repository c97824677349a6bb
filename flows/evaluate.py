"""semivl-evaluate: the scores of one model version on the evaluation images of a snapshot, and its report."""

from prefect.artifacts import create_link_artifact, create_table_artifact

from flows.common import Overrides, artifact_key, log, semivl_flow, semivl_task
from semivl.config import Config, load
from semivl.data.cache import ShardCache
from semivl.data.snapshot import Snapshot, read
from semivl.data.store import Store, open_store
from semivl.evaluation.report import examples, write_report
from semivl.evaluation.scores import Evaluation, Scores, split_digest
from semivl.evaluation.scores import evaluate as score
from semivl.registry.package import CHALLENGER, load_predictor, model_version
from semivl.registry.scores import publish_scores, read_scores, save_scores
from semivl.registry.tracking import report_address
from semivl.settings import home
from semivl.training.trainer import chosen_device


@semivl_flow("semivl-evaluate", "Model version + snapshot -> scores in S3, shown in MLflow with a report.")
def evaluate(
    experiment: str = "demo",
    overrides: Overrides | None = None,
    version: int | None = None,
    snapshot: str | None = None,
) -> Scores:
    """The version's scores; those that were kept where it was scored on these images before.

    Args:
        experiment: name of a file in conf/experiment
        overrides: settings that differ from the experiment's
        version: model version; the challenger where empty
        snapshot: version of the snapshot; the current one where empty
    """
    config = load(experiment, overrides)
    found = model_version(config.registered_model, version or CHALLENGER)
    scores = score_once(config, int(found.version), snapshot)
    create_table_artifact(
        [{"class": name, "IoU": "absent" if value is None else round(value, 1)} for name, value in scores.iou.items()],
        key=artifact_key("scores", experiment),
        description=f"{scores.model} version {scores.model_version}: {scores.miou:.1f} mIoU on "
        f"{scores.images} images of {scores.dataset}@{scores.snapshot}, {scores.ms_per_image:.0f} ms each",
    )
    if found.run_id:
        create_link_artifact(report_address(found.run_id), link_text="report", key=artifact_key("report", experiment))
    return scores


@semivl_task("score", run_name="score-version-{version}")
def score_once(config: Config, version: int, snapshot_version: str | None) -> Scores:
    """Scores of the version on the snapshot's evaluation images, computed and published once."""
    store, model = open_store(), config.registered_model
    snapshot = read(store, config.data.dataset, snapshot_version)
    digest = split_digest(snapshot)
    kept = read_scores(store, model, version, digest)
    if kept and model_version(model, version).tags.get("semivl.scores_digest") == digest:
        log.info("%s version %d was scored on these images before", model, version)
        return kept.scores
    return publish(config, version, snapshot, store, kept)


def publish(config: Config, version: int, snapshot: Snapshot, store: Store, kept: Evaluation | None) -> Scores:
    """Scores the version unless that is kept, writes its report, and shows both in MLflow."""
    model = config.registered_model
    predictor = load_predictor(model, version, str(chosen_device(config.compute)))
    cache = ShardCache(store, config.data.dataset, home() / "cache" / "shards")
    evaluation = kept or score(predictor, snapshot, cache, progress=log_tenths).of(model, version)
    scores = save_scores(store, evaluation)
    path = home() / "reports" / model / str(version) / "index.html"
    pictures = examples(predictor, snapshot, cache, evaluation.per_image)
    write_report(path, scores, evaluation.per_image, evaluation.confusion, pictures)
    publish_scores(scores, path)
    log.info("%s version %d: %.2f mIoU on %d images", model, version, scores.miou, scores.images)
    return scores


def log_tenths(done: int, images: int) -> None:
    """A line in the log for each tenth of the images."""
    if done == images or done % max(1, images // 10) == 0:
        log.info("%d of %d images scored", done, images)
