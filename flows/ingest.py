"""semivl-ingest: a source becomes the dataset's next snapshot. A task a shard, never one an image."""

import os
from collections import Counter
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.events import emit_event
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.common import Overrides, artifact_key, log, retraining, semivl_flow, semivl_task
from semivl.config import ComputeConfig, Config, load
from semivl.data import ingest as rooms
from semivl.data.checks import Quarantined
from semivl.data.manifest import Manifest, read_quarantine
from semivl.data.snapshot import head
from semivl.data.store import open_store
from semivl.errors import ConfigError

COMMITTED = "semivl.snapshot.committed"
NAMED = 5
"""quarantined files that the artifact names for each code"""

plan = semivl_task("plan")(rooms.plan)
build_shard = semivl_task("build-shard")(rooms.build_shard)
commit = semivl_task("commit")(rooms.commit)


@semivl_flow("semivl-ingest", "Source -> checked samples in shards -> snapshot. Run again, it adds what is new.")
def ingest(experiment: str = "demo", overrides: Overrides | None = None) -> str:
    """The version of the snapshot that holds all that the source has.

    Args:
        experiment: name of a file in conf/experiment
        overrides: settings that differ from the experiment's
    """
    config = load(experiment, overrides)
    before = head(open_store(), config.data.dataset)
    planned = plan(config.data, config.classes)
    log.info("%d files to look at, %d known", sum(map(len, planned.groups)), len(planned.known))
    built = []
    if planned.groups:
        with runner_for(config.compute, len(planned.groups)) as runner:
            futures = [
                runner.submit(build_shard, {"config": config.data, "classes": config.classes, "group": group})
                for group in planned.groups
            ]
            built = [future.result() for future in futures]
    manifest = commit(config.data, config.classes, planned, built)
    told = [*read_quarantine(open_store(), manifest), *rooms.left_out(planned, built)]
    report(config, manifest, list({q.source: q for q in told}.values()))
    if manifest.version != before:
        announce(manifest)
    return manifest.version


def runner_for(compute: ComputeConfig, shards: int) -> TaskRunner[Any]:
    """A Ray cluster where the settings name one; else threads, each of which has processes to decode in.

    Raises:
        ConfigError: CONF028, a cluster is named and prefect-ray is not installed.
    """
    if not compute.ray:
        return ThreadPoolTaskRunner(max(1, min(shards, os.cpu_count() or 1)))
    try:
        from prefect_ray import RayTaskRunner
    except ImportError:
        what = f"`compute.ray` is {compute.ray}, but prefect-ray is not installed."
        raise ConfigError("CONF028", what, "pip install 'semivl[ray]', or leave compute.ray empty.") from None
    return RayTaskRunner(address=compute.ray, init_kwargs={"log_to_driver": False})


def announce(manifest: Manifest) -> None:
    """Prefect's event that the dataset has a new snapshot. It says whose retraining made it, which need not hear it."""
    resource = {
        "prefect.resource.id": f"semivl.dataset.{manifest.dataset}",
        "prefect.resource.name": manifest.dataset,
        "semivl.snapshot": manifest.version,
        "semivl.retraining": retraining() or "none",
    }
    emit_event(COMMITTED, resource, payload={"samples": manifest.samples, "parent": manifest.parent or ""})


def report(config: Config, manifest: Manifest, quarantined: list[Quarantined]) -> None:
    """The run's artifacts: what the snapshot holds, and what was left out and why."""
    named = f"{manifest.dataset}@{manifest.version}"
    log.info(
        "%s holds %d samples in %d shards; left out now: %d",
        named, manifest.samples, len(manifest.shards), len(quarantined),
    )  # fmt: skip
    create_table_artifact(
        [{"kind": kind, "samples": count} for kind, count in manifest.counts.items()],
        key=artifact_key("counts", manifest.dataset),
        description=f"{named}: {manifest.samples} samples from {config.data.source}",
    )
    by_code = Counter(q.code for q in quarantined)
    lines = [f"**{len(quarantined)} files left out of {named}**"]
    for code, count in sorted(by_code.items()):
        examples = [f"`{q.source}` {q.reason}" for q in quarantined if q.code == code][:NAMED]
        lines.append(f"- {code}, {count} files: {'; '.join(examples)}")
    create_markdown_artifact("\n".join(lines), key=artifact_key("quarantine", manifest.dataset))
