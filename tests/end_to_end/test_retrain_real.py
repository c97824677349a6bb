"""Unlabelled photos arrive in three batches under a schedule of seconds, and everything is killed within a run."""

import os
import shutil
import time
import uuid
from pathlib import Path

import pytest

from semivl.config import Config, load
from semivl.data.ingest import ingest
from semivl.data.manifest import read_manifest
from semivl.data.snapshot import head
from semivl.data.store import Store, open_store
from semivl.registry.package import model_version
from semivl.registry.tracking import client
from semivl.services import processes, schedules, supervisor
from semivl.services.web import call
from semivl.settings import home, settings
from semivl.training.bundle import train_key
from tests.conftest import forget_settings
from tests.kills import end, environment, kill, unbroken_weights, wait_for_checkpoint
from tests.loop import overrides

EXPERIMENT, EVERY = "voc-subset", "5s"
LABELLED, EVALUATION, BATCH, STEPS = 12, 8, 16, 150
pytestmark = [pytest.mark.slow, pytest.mark.real_data, pytest.mark.timeout(1500)]


def photos() -> Path:
    return Path(os.environ["SEMIVL_REAL_DATA"]) / "voc2012-subset"


def begin(source: Path) -> None:
    """The labelled and evaluation photos, in VOC's layout."""
    for name, count in (("92/labeled.txt", LABELLED), ("val.txt", EVALUATION)):
        lines = (photos() / "splits" / name).read_text().splitlines()[:count]
        listed = source / "splits" / name
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(lines) + "\n")
        for part in (part for line in lines for part in line.split()):
            (source / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(photos() / part, source / part)


def arrive(source: Path, number: int) -> None:
    """A batch of unlabelled photos, all of it at once."""
    drafted = source.parent / f"batch-{number}"
    drafted.mkdir()
    for photo in sorted((photos() / "extra_unlabelled").iterdir())[number * BATCH : (number + 1) * BATCH]:
        shutil.copy(photo, drafted / photo.name)
    drafted.rename(source / "JPEGImages" / drafted.name)


def given(source: Path) -> dict:
    made = overrides(f"t-{uuid.uuid4().hex[:8]}", steps=STEPS, source=source)
    return made | {"retrain": {"schedule": EVERY, "overlap": "cancel", "min_new": BATCH // 2, "restarts": 5}}


def runs() -> list[dict]:
    """The scheduled runs that were taken up, oldest first."""
    api = settings().prefect_api_url
    found = call("GET", f"{api}/deployments/name/{schedules.deployment_of(EXPERIMENT)}")
    asked = {"deployments": {"id": {"any_": [found["id"]]}}, "flow_runs": {"start_time": {"is_null_": False}}}
    return call("POST", f"{api}/flow_runs/filter", asked | {"sort": "START_TIME_ASC"})


def said() -> list[str]:
    """The last words of the completed runs, oldest first."""
    api = settings().prefect_api_url
    ended = [run for run in runs() if run["state_type"] == "COMPLETED"]
    return [call("GET", f"{api}/flow_runs/{run['id']}")["state"]["message"] or "" for run in ended]


def wait_for(what, seconds: float = 300):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.5)
    raise AssertionError("it did not come about")


def new_snapshot(dataset: str, before: str | None) -> str:
    def moved() -> str | None:
        now = head(open_store(), dataset)
        return now if now != before else None

    return wait_for(moved)


def decided(config: Config, version: str) -> bool:
    """Whether the model that was trained on the snapshot went through the gate."""
    found = client().search_model_versions(f"name = '{config.registered_model}'")
    return any(v.tags.get("semivl.snapshot") == version and "gate.decision" in v.tags for v in found)


def kill_trainer() -> None:
    """SIGKILL for the process of the retraining that is at work."""
    working = {run["id"] for run in runs() if run["state_type"] == "RUNNING"}
    end(p for p in processes.marked("worker") if environment(p).get("PREFECT__FLOW_RUN_ID") in working)


def kill_everything_in_turn(config: Config, version: str) -> None:
    for service in ("mlflow", "s3"):
        wait_for_checkpoint(config, version=version)
        kill(service)
        supervisor.up()
    kill_trainer()
    time.sleep(3)
    kill("worker")
    supervisor.up()


def reference(config: Config, folder: Path, store: Store, monkeypatch) -> list[tuple[str, bytes]]:
    """Snapshot and weights of each batch where every step is called once, in a bucket of its own."""
    monkeypatch.setenv("SEMIVL_S3_BUCKET", store.bucket)
    forget_settings()
    source = folder / "source"
    begin(source)
    config = config.model_copy(update={"data": config.data.model_copy(update={"source": str(source)})})
    made = []
    for number in range(3):
        arrive(source, number)
        version = ingest(config.data, config.classes).version
        made.append((version, unbroken_weights(config, folder / str(number), version)))
    monkeypatch.undo()
    forget_settings()
    return made


@pytest.mark.parametrize("killed", [False, True], ids=["left alone", "killed"])
def test_three_batches_make_three_snapshots_and_the_runs_between_do_nothing(
    services, new_store, tmp_path, monkeypatch, killed
):
    source = tmp_path / "source"
    changes = given(source)
    config = load(EXPERIMENT, changes)
    begin(source)
    arrive(source, 0)
    versions: list[str] = []
    schedules.schedule(config, changes)
    try:
        for number in range(3):
            if number:
                arrive(source, number)
            versions.append(new_snapshot(config.data.dataset, versions[-1] if versions else None))
            if killed and number == 1:
                kill_everything_in_turn(config, versions[-1])
            wait_for(lambda: decided(config, versions[-1]))
            if number == 0:  # nothing came
                wait_for(lambda: said() and said()[-1].startswith("nothing to do: 0 new images"))
                assert head(open_store(), config.data.dataset) == versions[0]
        wait_for(lambda: said()[-1].startswith("nothing to do: 0 new images"))
    finally:
        schedules.unschedule(EXPERIMENT)
        supervisor.up()

    store = open_store()
    kept = {key.split("/")[3] for key in store.list(f"datasets/{config.data.dataset}/snapshots/")}
    assert kept == set(versions) and len(versions) == 3
    samples = [read_manifest(store, config.data.dataset, version).samples for version in versions]
    assert samples[0] < samples[1] < samples[2]
    trained = [(home() / "runs" / train_key(config, v) / "model" / "model.safetensors").read_bytes() for v in versions]
    for version in versions:
        found = client().search_runs(["1"], f"tags.`semivl.train_key` = '{train_key(config, version)}'")
        assert [run.info.status for run in found] == ["FINISHED"]
    model = config.registered_model
    assert sorted(int(v.version) for v in client().search_model_versions(f"name = '{model}'")) == [1, 2, 3]
    assert [model_version(model, n).tags["semivl.snapshot"] for n in (1, 2, 3)] == versions
    assert list(zip(versions, trained, strict=True)) == reference(
        config, tmp_path / "reference", new_store(), monkeypatch
    )
