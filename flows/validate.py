"""semivl-validate: the expectations that a snapshot must meet before anything learns from it."""

from prefect.artifacts import create_markdown_artifact

from flows.common import Overrides, artifact_key, log, semivl_flow, semivl_task
from semivl.config import load
from semivl.data import quality
from semivl.data.quality import Validation
from semivl.data.snapshot import read
from semivl.data.store import open_store


@semivl_flow("semivl-validate", "Great Expectations over a snapshot. Training refuses a snapshot that fails.")
def validate(experiment: str = "demo", overrides: Overrides | None = None, snapshot: str | None = None) -> Validation:
    """What the suite found; the run fails where the snapshot does.

    Args:
        experiment: name of a file in conf/experiment
        overrides: settings that differ from the experiment's
        snapshot: version to validate; the current one where empty
    """
    found = examine(load(experiment, overrides).data.dataset, snapshot)
    report(found)
    store = open_store()
    return quality.require_valid(store, read(store, found.dataset, found.version))


@semivl_task("examine")
def examine(dataset: str, version: str | None) -> Validation:
    """The snapshot's validation, made now or earlier: a snapshot does not change."""
    store = open_store()
    snapshot = read(store, dataset, version)
    kept = quality.validation_of(store, dataset, snapshot.manifest.version)
    return kept or quality.validate(store, snapshot)


def report(found: Validation) -> None:
    """The run's artifact: what was met, what was not, and where the pages lie."""
    verdict = "passed" if found.success else "failed"
    named = f"{found.dataset}@{found.version}"
    log.info("%s %s, %d expectations looked at", named, verdict, found.checked)
    lines = [f"**{named} {verdict}** ({found.checked} expectations)", ""]
    lines += [f"- failed: {words}" for words in found.failed] + [f"- warning: {words}" for words in found.warnings]
    store = open_store()
    pages = [f"[{suite}]({store.link(page)})" for suite, page in found.pages.items()]
    lines += ["", f"Data Docs: {', '.join(pages)} (links good for a week), kept in `{store.address(found.docs)}`"]
    create_markdown_artifact("\n".join(lines), key=artifact_key("validation", found.dataset))
