"""semivl-predict: masks for a folder of photos, an S3 prefix or a snapshot, by a model version."""

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.common import artifact_key, log, semivl_flow, semivl_task
from semivl.serving.predict import Progress
from semivl.serving.predict_job import Done, Job, prepare


@semivl_flow(
    "semivl-predict",
    "Photos -> palette masks and a manifest. Goes on where a killed run stopped; what is there stays.",
    run_name="{job.model}",
)
def predict(job: Job) -> Done:
    """What became of the photos.

    Args:
        job: what is predicted, by which model, where to, and what is written beside the masks
    """
    done = predict_once(job)
    create_table_artifact([done.row()], key=artifact_key("predicted", done.model), description=done.address)
    lines = [f"- {code}: {count} photos refused" for code, count in sorted(done.refused.items())]
    what = f"Masks and `predictions.jsonl` lie in `{done.address}`."
    create_markdown_artifact("\n".join([what, "", *lines]), key=artifact_key("predictions", done.model))
    return done


@semivl_task("predict")
def predict_once(job: Job) -> Done:
    """The prediction, which goes on where an earlier attempt ended."""
    return prepare(job)(tenths())


def tenths() -> Progress:
    """What writes a line into the log for each tenth of the photos."""
    before = 0

    def step(done: int, photos: int) -> None:
        nonlocal before
        if done * 10 // photos > before * 10 // photos:
            log.info("%d of %d photos", done, photos)
        before = done

    return step
