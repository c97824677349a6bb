"""One MLflow run a training, however often the training is killed and goes on.

The run is found by its train key. It holds the parameters, curves, system metrics, the snapshot as MLflow's
dataset input, overlays of fixed validation images, and the experiment as YAML.
"""

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from semivl import __version__
from semivl.config import Config
from semivl.data.quality import Validation, validation_of
from semivl.data.snapshot import Manifest
from semivl.data.store import open_store
from semivl.errors import RegistryError, SemivlError, TrainingError
from semivl.registry.device_time import MODEL, DeviceClock
from semivl.registry.metrics import MetricBuffer
from semivl.registry.provenance import COMMIT, ENVIRONMENT, commit, environment
from semivl.registry.tracking import client, experiment_id
from semivl.settings import ROOT, home, settings
from semivl.training.stopping import PREEMPTED

if TYPE_CHECKING:
    from mlflow.entities import Run

_log = logging.getLogger(__name__)
TRAIN_KEY = "semivl.train_key"
CONFIG = "config.yaml"
"""the run's artifact with the whole experiment"""
PARENT_VERSION = "semivl.parent_version"
TEACHER = "semivl.teacher"
"""NAME/VERSION of the finished model that guided, or the whole path of its folder"""
_PAUSED = "TRAIN011"
GOES_ON_LATER = {_PAUSED, PREEMPTED}
"""codes of trainings that ended with all their steps kept: no hours left, or SIGTERM"""
_SYSTEM_SECONDS = 5
_PARAM_LENGTH = 6000
"""characters that MLflow takes in a parameter"""
_NOTE_LENGTH, _SENTENCE_LENGTH = 8000, 300
"""characters that MLflow takes in a description, and that a sentence of the validation gets in it"""


class RunLogger:
    """The open run of a training. An observer of the trainer; as a context it ends the run with its fate."""

    def __init__(self, run_id: str, key: str, allowance: float | None = None) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self.run_id, self.train_key = run_id, key
        self._client = client()
        self._buffer = MetricBuffer(self._client, run_id, home() / "runs" / key / f"metrics-{run_id}.jsonl")
        self._shown = _shown(run_id)
        self._clock, self._allowance = DeviceClock(self._client, run_id), allowance
        self._monitor: Any = SystemMetricsMonitor(
            run_id, sampling_interval=_SYSTEM_SECONDS, resume_logging=True, tracking_uri=settings().mlflow_uri
        )
        self._monitor.start()

    def samples(self, told: Sequence[str]) -> None:
        """What the training learns from, in sentences: the run's artifact samples.txt."""
        self._client.log_text(self.run_id, "\n".join(told) + "\n", "samples.txt")

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Points of the run's curves; a step that the run already has is passed over."""
        self._clock.tick()
        self._buffer.add(step, values)

    def previews(self, step: int, images: dict[str, np.ndarray]) -> None:
        """Overlays (H, W, 3) uint8 by name, each once a step. One that MLflow refuses is dropped with a log line."""
        for name, image in images.items():
            key = re.sub(r"[^\w\-. ]", "_", name, flags=re.ASCII)
            if (key, step) in self._shown:
                continue
            try:
                self._client.log_image(self.run_id, image, key=key, step=step, synchronous=True)
                self._shown.add((key, step))
            except Exception as error:  # a picture is not worth a training
                _log.warning("MLflow took no preview of %s at step %d: %s", name, step, error)

    def checkpoint(self, step: int, path: Path) -> None:
        """Sends the metrics that wait, so that the curves are at least as long as the checkpoint.

        Raises:
            TrainingError: TRAIN011, the training has used up its allowance of device time.
        """
        self._buffer.flush()
        self._clock.tick()
        if self._allowance is not None and self._clock.seconds > self._allowance:
            raise TrainingError(
                _PAUSED,
                f"the week's device hours of the model are used up; {step} steps are kept.",
                "It goes on when there is room again; or raise retrain.device_hours_a_week.",
            )

    def artifact(self, path: Path) -> None:
        """A file of the training's, such as a profiler's trace. One that MLflow refuses stays on the disk alone."""
        try:
            self._client.log_artifact(self.run_id, str(path))
        except Exception as error:  # a trace is not worth a training
            _log.warning("MLflow took no copy of %s: %s", path, error)

    def close(self, status: str = "FINISHED") -> None:
        """Ends the run as FINISHED, FAILED, KILLED, or SCHEDULED to go on.

        Raises:
            RegistryError: REG001 MLflow is away; the metrics wait on disk for the next `open_run`.
        """
        self._monitor.finish()
        self._clock.tick(every=0)
        if not self._buffer.flush():
            raise RegistryError(
                "REG001",
                "MLflow does not take the run's last metrics.",
                "Start it, then run the training again.",
            )
        self._client.set_terminated(self.run_id, status)

    def __enter__(self) -> "RunLogger":
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, *_: object) -> None:
        if kind is None:
            return self.close()
        paused = isinstance(fault, SemivlError) and fault.code in GOES_ON_LATER
        try:
            self.close("SCHEDULED" if paused else "FAILED" if issubclass(kind, Exception) else "KILLED")
        except Exception as error:  # the fault on its way up says more
            _log.warning("the run could not be ended: %s", error)


def open_run(config: Config, manifest: Manifest, links: dict[str, str], allowance: float | None = None) -> RunLogger:
    """The run of this training: a new one, or the one that an earlier attempt began.

    Args:
        allowance: seconds after which the training is ended at its next checkpoint, to go on later.
        links: addresses by name (the Prefect run's, the Data Docs'); kept as tags and in the description.

    Raises:
        RegistryError: REG001 MLflow cannot be reached.
    """
    from semivl.training.bundle import train_key

    key = train_key(config, manifest.version)
    run = _find(key) or _create(config, manifest, key)
    mlflow = client()
    if run.info.status != "RUNNING":
        mlflow.update_run(run.info.run_id, status="RUNNING")
    _describe(run, config, manifest, links)
    return RunLogger(run.info.run_id, key, allowance)


def finished_run(train_key: str) -> str | None:
    """The id of the run that finished this training; None while there is none."""
    run = _find(train_key)
    return run.info.run_id if run and run.info.status == "FINISHED" else None


def learned_from(config: Config) -> dict[str, str]:
    """Tags that name the models which a training learns from: the one that it goes on from, and the one that guides."""
    from semivl.methods import create

    tags = {PARENT_VERSION: str(config.train.parent.version)} if config.train.parent else {}
    teacher = config.guidance.model
    if teacher and create(config.method).takes_guide:
        tags[TEACHER] = str(ROOT / teacher) if (ROOT / teacher).is_dir() else teacher
    return tags


def _find(key: str) -> "Run | None":
    found = client().search_runs(
        [experiment_id()],
        f"tags.`{TRAIN_KEY}` = '{key}'",
        max_results=10,
        order_by=["attributes.start_time ASC"],
    )
    return min(found, key=lambda run: (run.info.start_time, run.info.run_id), default=None)


def _create(config: Config, manifest: Manifest, key: str) -> "Run":
    """A new run; of two that were begun at once the elder stays."""
    mlflow = client()
    tags = {
        TRAIN_KEY: key,
        MODEL: config.registered_model,
        "semivl.experiment": config.name,
        "semivl.method": config.method.name,
        "semivl.dataset": manifest.dataset,
        "semivl.snapshot": manifest.version,
        "semivl.version": __version__,
        COMMIT: commit(),
    }
    name = f"{config.name}-{config.method.name}-{key[:6]}"
    tags |= learned_from(config)
    if config.train.parent:
        name += f"-from-{config.train.parent.version}"
    made = mlflow.create_run(experiment_id(), tags=tags, run_name=name)
    elder = _find(key)
    if elder is None or elder.info.run_id == made.info.run_id:
        return made
    mlflow.delete_run(made.info.run_id)
    return elder


def _describe(run: "Run", config: Config, manifest: Manifest, links: dict[str, str]) -> None:
    """Everything about the run that is known before its first step; writing it again changes nothing."""
    from mlflow.entities import Param, RunTag

    mlflow, run_id = client(), run.info.run_id
    missing = {k: v for k, v in parameters(config).items() if k not in run.data.params}
    params = [Param(k, v) for k, v in missing.items()]
    tags = [RunTag(f"semivl.link.{name}", address) for name, address in links.items()]
    validation = validation_of(open_store(), manifest.dataset, manifest.version)
    tags.append(RunTag("mlflow.note.content", _note(config, manifest, links, validation)))
    for first in range(0, max(len(params), 1), 100):
        mlflow.log_batch(run_id, params=params[first : first + 100], tags=tags)
    _log_input(run_id, _dataset_input(manifest))
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    mlflow.log_text(run_id, text, CONFIG)
    mlflow.log_dict(run_id, environment(config.compute.threads), ENVIRONMENT)


def _log_input(run_id: str, given: Any) -> None:
    """Names what the run learns from. Of two that name a new snapshot at once MLflow refuses one: tried again."""
    from mlflow.exceptions import MlflowException

    try:
        client().log_inputs(run_id, datasets=[given])
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":
            raise
        client().log_inputs(run_id, datasets=[given])


def _dataset_input(manifest: Manifest) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    bucket = settings().s3_bucket
    address = f"s3://{bucket}/datasets/{manifest.dataset}/snapshots/{manifest.version}/manifest.json"
    profile = {"version": manifest.version, "samples": manifest.samples, "classes": len(manifest.classes)}
    dataset = Dataset(
        name=manifest.dataset,
        digest=manifest.version[:36],  # MLflow takes no longer one
        source_type="s3",
        source=json.dumps({"uri": address}),
        profile=json.dumps(profile | manifest.counts),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "training")])


def _note(config: Config, manifest: Manifest, links: dict[str, str], validation: Validation | None) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in sorted(manifest.counts.items()) if "/" in name)
    lines = [f"`{config.method.name}` on **{manifest.dataset}** snapshot `{manifest.version}` ({counts})", ""]
    lines += [f"- [{name.replace('_', ' ')}]({address})" for name, address in links.items()]
    if validation:
        lines += ["", f"Validation: {validation.checked} expectations, {len(validation.warnings)} warnings", ""]
        lines += [f"- {words[:_SENTENCE_LENGTH]}" for words in (*validation.summary, *validation.warnings)]
    return "\n".join(lines)[:_NOTE_LENGTH]


def parameters(config: Config) -> dict[str, str]:
    """The experiment as flat parameters; class map and suite in short, since config.yaml holds them whole."""
    values = config.model_dump(mode="json", exclude={"classes", "suite"})
    flat = _flat(values) | {"classes": ", ".join(config.classes.names), "prompt": config.classes.prompt}
    flat["suite"] = config.suite.digest
    return {name: value[:_PARAM_LENGTH] for name, value in flat.items()}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = "" if value is None else str(value)
    return flat


def _shown(run_id: str) -> set[tuple[str, int]]:
    """The previews that the run has, from the names that MLflow gives their files."""
    named = re.compile(r"images/(.+)[+%]step[+%](\d+)[+%]timestamp")
    found = (named.match(file.path) for file in client().list_artifacts(run_id, "images"))
    return {(match[1], int(match[2])) for match in found if match}
