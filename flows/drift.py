"""semivl-drift: whether the images that came since the champion's training are still such as it learned from."""

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.events import emit_event

from flows.common import Overrides, artifact_key, log, semivl_flow, semivl_task
from semivl.config import Config, load
from semivl.data.store import open_store
from semivl.evaluation.drift import Drift, table, verdict
from semivl.registry.drift import find_drift

FOUND = "semivl.drift.found"
"""the event; its resource is `semivl.dataset.NAME`"""


@semivl_flow("semivl-drift", "New images against the champion's training snapshot. A drift is told as an event.")
def drift(
    experiment: str = "demo",
    overrides: Overrides | None = None,
    reference: str | None = None,
    current: str | None = None,
) -> Drift:
    """What was found; kept in S3, and not computed again for the same snapshots, settings and models.

    Args:
        experiment: name of a file in conf/experiment
        overrides: settings that differ from the experiment's
        reference: version of the snapshot to compare with; the one that the champion was trained on where empty
        current: version of the snapshot whose new images are looked at; the current one where empty
    """
    found = examine(load(experiment, overrides), reference, current)
    report(found)
    if found.drifted:
        announce(experiment, found)
    return found


@semivl_task("compare")
def examine(config: Config, reference: str | None, current: str | None) -> Drift:
    """The comparison, made now or earlier."""
    return find_drift(open_store(), config, reference, current)


def report(found: Drift) -> None:
    """The run's artifacts: the outcome in words, and the tests."""
    log.info(verdict(found))
    lines = [f"**{verdict(found)}**", ""]
    lines += [f"- {test.name}: {test.words}" for test in found.tests if test.drifted]
    lines += [f"- not tested: {reason}" for reason in found.left_out]
    if found.tests:
        lines.append(f"- Sets that do not differ give an alarm in at most {found.false_alarms:.1%} of comparisons.")
    create_markdown_artifact("\n".join(lines), key=artifact_key("drift", found.dataset))
    if found.tests:
        create_table_artifact(table(found), key=artifact_key("drift-tests", found.dataset), description=verdict(found))


def announce(experiment: str, found: Drift) -> None:
    """Tells Prefect, each time that a run finds the drift: who listens may have been away the first time."""
    emit_event(
        event=FOUND,
        resource={"prefect.resource.id": f"semivl.dataset.{found.dataset}", "prefect.resource.name": found.dataset},
        payload={
            "experiment": experiment,
            "reference": found.reference,
            "current": found.current,
            "new_images": found.current_images,
            "drifted": [test.name for test in found.tests if test.drifted],
        },
    )
