"""semivl-validate: the expectations that a snapshot must meet before anything learns from it."""

from prefect.artifacts import create_markdown_artifact

from flows.common import Overrides, artifact_key, log, semivl_flow, semivl_task
from semivl.config import Suite, load
from semivl.data import quality
from semivl.data.quality import Validation
from semivl.data.rules import require_usable
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
    config = load(experiment, overrides)
    require_usable(config.suite)  # a rule that cannot be run is told before the work begins
    found = examine(config.data.dataset, snapshot, config.suite)
    report(found)
    store = open_store()
    return quality.require_valid(store, read(store, found.dataset, found.version), config.suite)


@semivl_task("examine")
def examine(dataset: str, version: str | None, suite: Suite) -> Validation:
    """The snapshot's validation by the suite, made now or earlier: a snapshot does not change."""
    store = open_store()
    snapshot = read(store, dataset, version)
    kept = quality.validation_of(store, dataset, snapshot.manifest.version)
    return kept if kept and kept.suite == suite.digest else quality.validate(store, snapshot, suite)


def report(found: Validation) -> None:
    """The run's artifact: what was met, what was not and what to do, what changed, and where the pages lie."""
    verdict = "passed" if found.success else "failed"
    named = f"{found.dataset}@{found.version}"
    log.info("%s %s, %d expectations looked at", named, verdict, found.checked)
    lines = [f"**{named} {verdict}** ({found.checked} expectations)", ""]
    for kind, unmet in (("failed", found.failed), ("warning", found.warnings)):
        for words in unmet:
            lines.append(f"- {kind}: {words}")
            lines += [f"  - do: {found.remedies[code]}"] if (code := words.split()[0]) in found.remedies else []
    lines += ["", *(f"- {sentence}" for sentence in found.summary)]
    if found.not_compared:
        codes = ", ".join(words.split()[0] for words in found.not_compared)
        lines.append(f"- Met because there was nothing to look at or to compare with: {codes}.")
    store = open_store()
    pages = [f"[{name.replace('_', ' ')}]({store.link(page)})" for name, page in found.pages.items()]
    lines += ["", f"Data Docs: {', '.join(pages)} (links good for a week), kept in `{store.address(found.docs)}`"]
    create_markdown_artifact("\n".join(lines), key=artifact_key("validation", found.dataset))
