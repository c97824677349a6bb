"""semivl-ingest: a source folder becomes the dataset's next snapshot. A task a shard, never one an image."""

import os
from collections import Counter

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from flows.common import Overrides, artifact_key, log, semivl_flow, semivl_task
from semivl.config import Config, load
from semivl.data import ingest as rooms
from semivl.data.ingest import ShardResult
from semivl.data.snapshot import Manifest

PROCESSES_FROM = 8
"""shards; below it, starting processes costs more than they save"""
NAMED = 5
"""quarantined files that the artifact names for each code"""

plan = semivl_task("plan")(rooms.plan)
build_shard = semivl_task("build-shard")(rooms.build_shard)
commit = semivl_task("commit")(rooms.commit)


@semivl_flow("semivl-ingest", "Source folder -> checked samples in shards -> snapshot. Run again, it adds what is new.")
def ingest(experiment: str = "demo", overrides: Overrides | None = None) -> str:
    """The version of the snapshot that holds all that the source has.

    Args:
        experiment: name of a file in conf/experiment
        overrides: settings that differ from the experiment's
    """
    config = load(experiment, overrides)
    groups = plan(config.data)
    with runner_for(len(groups)) as runner:
        futures = [
            runner.submit(build_shard, {"config": config.data, "classes": config.classes, "sources": group})
            for group in groups
        ]
        results = [future.result() for future in futures]
    manifest = commit(config.data, config.classes, results)
    report(config, manifest, results)
    return manifest.version


def runner_for(shards: int) -> TaskRunner:
    """Processes for many shards, since decoding keeps a core busy; threads for a few."""
    workers = max(1, min(shards, os.cpu_count() or 1))
    return ThreadPoolTaskRunner(workers) if shards < PROCESSES_FROM else ProcessPoolTaskRunner(workers)


def report(config: Config, manifest: Manifest, results: list[ShardResult]) -> None:
    """The run's artifacts: what the snapshot holds, and what was left out and why."""
    quarantined = [q for result in results for q in result.quarantined]
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
