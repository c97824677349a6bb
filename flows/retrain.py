"""semivl-retrain: looks for new images, and trains again where there are enough of them and hours left."""

from typing import Any, cast

from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed

from flows.common import Overrides, artifact_key, as_retraining, log, semivl_flow, semivl_task
from flows.ingest import ingest
from flows.ingest import plan as plan_ingest
from flows.pipeline import after_ingest
from semivl.config import Config, Parent, load
from semivl.data.snapshot import read
from semivl.data.store import open_store
from semivl.errors import TrainingError
from semivl.methods import create
from semivl.registry import retraining
from semivl.registry.device_time import used
from semivl.registry.promotion import Decision
from semivl.registry.retraining import News


@semivl_flow(
    "semivl-retrain",
    "New images? Then ingest -> validate -> train -> evaluate -> promote, within the week's device hours.",
)
def retrain(experiment: str = "demo", overrides: Overrides | None = None) -> Decision:
    """The gate's decision about the retrained model; a completed run that says why where nothing was to be done.

    Args:
        experiment: name of a file in conf/experiment
        overrides: settings that differ from the experiment's
    """
    config = load(experiment, overrides)
    create(config.method)  # an unknown method is told before the work begins
    found = look(config)
    said = too_few(config, found, pending(config)) or all_used(config)
    if said:
        return nothing(experiment, said)
    with as_retraining(experiment):
        snapshot = found.goes_on or ingest(experiment, overrides)
        said = None if found.goes_on else too_few(config, look(config), 0)
        if said:
            return nothing(experiment, said)
        try:
            return after_ingest(experiment, with_parent(overrides, start(config, snapshot)), snapshot)
        except TrainingError as error:
            if error.code != "TRAIN011":
                raise
            return nothing(experiment, f"{error.what} {all_used(config) or ''}".strip())


@semivl_task("look")
def look(config: Config) -> News:
    """What the dataset's snapshot holds that the experiment's last training did not learn from."""
    return retraining.news(config, open_store())


def pending(config: Config) -> int:
    """Images under the source that are new or changed since the last ingest; none of them is opened."""
    planned = plan_ingest(config.data, config.classes)
    return sum(map(len, planned.groups)) - planned.tried_before


def too_few(config: Config, found: News, waiting: int) -> str | None:
    """Why there is nothing to train on; None where there is, or where a turn that was begun goes on."""
    if found.goes_on:
        log.info("goes on with the turn that was begun on %s@%s", config.data.dataset, found.goes_on)
        return None
    total, least = found.images + waiting, config.retrain.min_new
    since = f"since the training on {config.data.dataset}@{found.trained}" if found.trained else "so far"
    log.info("%d new images %s: %d in the source, %d ingested", total, since, waiting, found.images)
    if total >= least:
        return None
    return f"nothing to do: {total} new images {since}, and retrain.min_new is {least}."


def all_used(config: Config) -> str | None:
    """Why no hours are left, and until when; None where some are."""
    found = used(config)
    if found.room_at is None:
        return None
    return (
        f"no training now: {config.registered_model} took {found.hours:.2f} of {found.budget:g} device hours in seven "
        f"days. There is room again at {found.room_at:%Y-%m-%d %H:%M} UTC."
    )


@semivl_task("choose-start")
def start(config: Config, snapshot: str) -> Parent | None:
    """The model version to start from; None for the pretrained encoder."""
    parent = retraining.parent_for(config, snapshot)
    named = f"version {parent.version}" if parent else "the pretrained encoder"
    counts = read(open_store(), config.data.dataset, snapshot).manifest.counts
    log.info("starts from %s, with %d training images", named, counts.get("train", 0))
    return parent


def with_parent(overrides: Any, parent: Parent | None) -> Any:
    """The overrides with the version that the training starts from."""
    if parent is None:
        return overrides
    given = overrides.model_dump(mode="json", exclude_none=True) if overrides else {}
    return given | {"train": given.get("train", {}) | {"parent": parent.model_dump()}}


def nothing(experiment: str, said: str) -> Decision:
    """Ends the run as completed, with the reason in its state and as its artifact."""
    log.info(said)
    create_markdown_artifact(said, key=artifact_key("retrain", experiment))
    return cast(Decision, Completed(message=said))
