"""One MLflow run a training, with all that tells what was trained on what."""

import os
import signal
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import yaml

from semivl.config import Config, GuidanceConfig, MethodConfig, Parent
from semivl.data.quality import Validation
from semivl.data.snapshot import Manifest
from semivl.data.store import open_store
from semivl.errors import RegistryError, TrainingError
from semivl.registry import runs, tracking
from semivl.registry.runs import finished_run, learned_from, open_run, parameters
from semivl.registry.tracking import client, experiment_id
from semivl.settings import settings
from semivl.training.bundle import train_key

PICTURE = np.zeros((8, 8, 3), np.uint8)
KILLED = """
import os, signal, sys
import numpy as np
from semivl.config import Config
from semivl.data.quality import Validation
from semivl.data.snapshot import Manifest
from semivl.data.store import open_store
from semivl.registry.runs import open_run
run = open_run(Config.model_validate_json(sys.argv[1]), Manifest.model_validate_json(sys.argv[2]), {})
for step in (2, 4, 6):
    run.metrics(step, {"train/total": float(step)})
    run.previews(step, {"one photo": np.zeros((8, 8, 3), np.uint8)})
    if step == 4:
        run.checkpoint(step, None)
print(run.run_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def steps(run_id: str, name: str = "train/total") -> list[int]:
    return sorted(m.step for m in client().get_metric_history(run_id, name))


def pictures(run_id: str) -> list[str]:
    return sorted(f.path.split("+timestamp")[0] for f in client().list_artifacts(run_id, "images") if "png" in f.path)


def all_runs(config: Config, manifest: Manifest) -> list[str]:
    key = train_key(config, manifest.version)
    found = client().search_runs([experiment_id()], f"tags.`semivl.train_key` = '{key}'")
    return [run.info.run_id for run in found]


def test_a_killed_training_goes_on_in_the_same_run(config: Config, manifest: Manifest) -> None:
    texts = [config.model_dump_json(), manifest.model_dump_json()]
    killed = subprocess.run([sys.executable, "-c", KILLED, *texts], capture_output=True, text=True, cwd=Path.cwd())
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    key = train_key(config, manifest.version)
    assert finished_run(key) is None
    with open_run(config, manifest, {}) as run:
        assert run.run_id == killed.stdout.split()[-1]
        for step in (6, 8):
            run.metrics(step, {"train/total": float(step)})
            run.previews(step, {"one photo": PICTURE})
    assert all_runs(config, manifest) == [run.run_id]
    assert steps(run.run_id) == [2, 4, 6, 8]
    assert pictures(run.run_id) == [f"images/one photo+step+{n}" for n in (2, 4, 6, 8)]
    assert finished_run(key) == run.run_id


def test_the_run_tells_what_was_trained_on_what(config: Config, manifest: Manifest) -> None:
    links = {"prefect_run": "http://localhost/runs/7", "data_docs": "s3://semivl/docs"}
    for _ in range(2):
        with open_run(config, manifest, links) as logger:
            pass
    run = client().get_run(logger.run_id)
    assert run.data.params == parameters(config)
    assert run.data.params["train.steps"] == "1000" and run.data.params["classes"] == "class 0, class 1, class 2"
    assert run.data.tags["semivl.snapshot"] == manifest.version and run.data.tags["semivl.method"] == "supervised"
    assert run.data.tags["semivl.link.prefect_run"] == links["prefect_run"]
    assert "[data docs](s3://semivl/docs)" in run.data.tags["mlflow.note.content"]
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == (manifest.dataset, manifest.version)
    text = yaml.safe_load(client_text(run.info.run_id, "config.yaml"))
    assert Config.model_validate(text) == config


@pytest.mark.parametrize(("method", "told"), [("semivl", "taught/4"), ("supervised", None)])
def test_the_run_names_the_model_that_guides(config: Config, manifest: Manifest, method: str, told: str | None) -> None:
    guidance = GuidanceConfig(model="taught/4")  # pyright: ignore[reportCallIssue]
    guided = config.model_copy(update={"guidance": guidance, "method": MethodConfig(name=method)})
    with open_run(guided, manifest, {}) as logger:
        pass
    assert client().get_run(logger.run_id).data.tags.get("semivl.teacher") == told


def test_a_parent_and_a_teacher_are_named_and_a_folder_by_its_whole_path(config: Config, tmp_path: Path) -> None:
    assert learned_from(config) == {}
    guidance = GuidanceConfig(model=str(tmp_path))  # pyright: ignore[reportCallIssue]
    train = config.train.model_copy(update={"parent": Parent(version=3, train_key="")})
    changed = config.model_copy(update={"guidance": guidance, "method": MethodConfig(name="semivl"), "train": train})
    assert learned_from(changed) == {"semivl.parent_version": "3", "semivl.teacher": str(tmp_path)}


def test_the_description_tells_what_the_validation_found(config: Config, manifest: Manifest) -> None:
    found = Validation(
        dataset=manifest.dataset, version=manifest.version, success=True, failed=(), checked=22, docs="docs/index.html",
        warnings=("DATA332 classes are in some mask: not so for 1 of 3: class 2", "DATA324 " + "long " * 2000),
        pages={}, summary=("13 samples: 9 to train on.",),
    )  # fmt: skip
    store = open_store()
    store.put(f"datasets/{found.dataset}/validations/{found.version}.json", found.model_dump_json().encode())
    with open_run(config, manifest, {"data_docs_quarantine": "http://localhost/quarantine"}) as logger:
        pass
    told = client().get_run(logger.run_id).data.tags["mlflow.note.content"]
    assert "22 expectations, 2 warnings" in told and "- 13 samples: 9 to train on." in told and "DATA332" in told
    assert "[data docs quarantine](http://localhost/quarantine)" in told


def client_text(run_id: str, path: str) -> str:
    return Path(client().download_artifacts(run_id, path)).read_text()


def test_no_secret_reaches_the_run(config: Config, manifest: Manifest) -> None:
    with open_run(config, manifest, {}) as logger:
        pass
    run = client().get_run(logger.run_id)
    told = f"{run.data.params}{run.data.tags}{client_text(logger.run_id, 'config.yaml')}"
    for secret in (settings().s3_access_key, settings().s3_secret_key):
        assert secret and secret.get_secret_value() not in told


def test_settings_that_decide_no_weights_may_change_between_attempts(config: Config, manifest: Manifest) -> None:
    with open_run(config, manifest, {}) as first:
        pass
    changed = config.model_copy(update={"compute": config.compute.model_copy(update={"workers": 2})})
    with open_run(changed, manifest, {}) as second:
        pass
    assert second.run_id == first.run_id


@pytest.mark.parametrize("code", ["TRAIN011", "TRAIN050"])
def test_a_training_whose_steps_are_kept_shows_as_scheduled(config: Config, manifest: Manifest, code: str) -> None:
    with pytest.raises(TrainingError), open_run(config, manifest, {}) as run:
        raise TrainingError(code, "ended.", "Goes on later.")
    assert client().get_run(run.run_id).info.status == "SCHEDULED"


def test_a_profilers_trace_is_an_artifact_of_the_run(config: Config, manifest: Manifest, tmp_path: Path) -> None:
    trace = tmp_path / "trace-1-3.json.gz"
    trace.write_bytes(b"trace")
    with open_run(config, manifest, {}) as run:
        run.artifact(trace)
        run.artifact(tmp_path / "not there")
    assert [file.path for file in client().list_artifacts(run.run_id) if "trace" in file.path] == [trace.name]


def test_a_failed_training_shows_as_failed_until_it_goes_on(config: Config, manifest: Manifest) -> None:
    with pytest.raises(ZeroDivisionError), open_run(config, manifest, {}) as run:
        run.metrics(1, {"train/total": 1 / 0})
    assert client().get_run(run.run_id).info.status == "FAILED"
    with pytest.raises(KeyboardInterrupt), open_run(config, manifest, {}):
        assert client().get_run(run.run_id).info.status == "RUNNING"
        raise KeyboardInterrupt
    assert client().get_run(run.run_id).info.status == "KILLED"
    assert finished_run(train_key(config, manifest.version)) is None


def test_of_two_runs_begun_at_once_one_stays(config: Config, manifest: Manifest) -> None:
    key = train_key(config, manifest.version)
    one, two = (runs._create(config, manifest, key) for _ in range(2))
    assert one.info.run_id == two.info.run_id
    assert all_runs(config, manifest) == [one.info.run_id]


def test_runs_that_begin_at_once_on_a_new_snapshot_all_name_it(config: Config, manifest: Manifest) -> None:
    count, version = 8, uuid.uuid4().hex[:16]
    new = runs._dataset_input(manifest.model_copy(update={"version": version}))
    begun = [client().create_run(experiment_id()).info.run_id for _ in range(count)]
    together = Barrier(count)

    def name(run_id: str) -> None:
        together.wait()
        runs._log_input(run_id, new)

    with ThreadPoolExecutor(count) as threads:
        list(threads.map(name, begun))
    named = [client().get_run(run_id).inputs.dataset_inputs for run_id in begun]
    assert [[one.dataset.digest for one in inputs] for inputs in named] == [[version]] * count


def test_system_metrics_are_recorded(config: Config, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_SYSTEM_SECONDS", 0.2)
    deadline = time.monotonic() + 30
    with open_run(config, manifest, {}) as run:
        while "system/cpu_utilization_percentage" not in client().get_run(run.run_id).data.metrics:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_no_mlflow_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_PATIENCE", 0.0)
    monkeypatch.setenv("SEMIVL_MLFLOW_URI", "http://127.0.0.1:9")
    settings.cache_clear()
    try:
        with pytest.raises(RegistryError, match=r"REG001.*127\.0\.0\.1:9.*semivl up"):
            client()
    finally:
        monkeypatch.undo()
        settings.cache_clear()
        assert os.environ.get("SEMIVL_MLFLOW_URI") != "http://127.0.0.1:9"
