"""semivl-drift on real services: darker photos are found, told once as a record and as an event; others are not."""

import shutil
import time
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance
from prefect.client.orchestration import get_client

from flows.drift import FOUND, drift
from flows.ingest import ingest
from semivl.config import load
from semivl.data import snapshot
from semivl.evaluation.drift import read_drift
from semivl.methods import create
from semivl.nets.vlm import load_vlm
from semivl.registry.package import register
from semivl.registry.runs import open_run
from semivl.registry.tracking import client
from semivl.training.bundle import save_bundle
from tests.flows.test_flows import artifacts, ended
from tests.loop import parameters, scenes
from tests.test_cli import semivl

pytestmark = pytest.mark.usefixtures("services")
SETTINGS = {"false_alarms": 0.1, "permutations": 199, "min_new": 10}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(shutil.copytree(scenes(), tmp_path / "source"))


def given(dataset: str, source: Path) -> dict:
    asked = parameters(dataset, source=source)
    asked["overrides"]["drift"] = SETTINGS
    return asked


def crowned(asked: dict, version: str, folder: Path, store) -> int:
    """A champion that was never trained, as of the snapshot of that version."""
    config = load(asked["experiment"], asked["overrides"])
    vlm = load_vlm(config.vlm, config.classes, config.train.crop)
    save_bundle(folder, config, create(config.method).build(config.classes, vlm, True), vlm.student().architecture)
    manifest = snapshot.read(store, config.data.dataset, version).manifest
    with open_run(config, manifest, {}) as run:
        pass
    number = register(run.run_id, folder, config, manifest)
    client().set_registered_model_alias(config.registered_model, "champion", str(number))
    return number


def add(source: Path, brightness: float, count: int = 14) -> None:
    """Photos of the source at another brightness, as new ones."""
    for photo in sorted((source / "images").glob("*.jpg"))[:count]:
        darker = ImageEnhance.Brightness(Image.open(photo)).enhance(brightness)
        darker.save(photo.with_name(f"new-{photo.name}"), quality=95)


def events(dataset: str, wanted: int) -> list[dict]:
    """Events about the dataset, once there are that many; they arrive a moment later."""
    asked = {"filter": {"event": {"name": [FOUND]}, "resource": {"id": [f"semivl.dataset.{dataset}"]}}}
    for _ in range(60):
        with get_client(sync_client=True) as prefect:
            found = prefect.request("POST", "/events/filter", json=asked).json()["events"]
        if len(found) >= wanted:
            return found
        time.sleep(0.5)
    return found


def test_darker_photos_are_a_drift_with_record_artifact_and_event(store, dataset, source, tmp_path):
    asked = given(dataset, source)
    before = ingest(**asked)
    crowned(asked, before, tmp_path / "bundle", store)
    state, _ = ended(drift, asked)
    assert not state.result().drifted and "0 new images" in state.result().left_out[0]

    add(source, 0.2)
    now = ingest(**asked)
    state, run = ended(drift, asked)
    found = state.result()
    assert (found.reference, found.current, found.current_images) == (before, now, 14)
    assert found.drifted
    names = [test.name for test in found.tests if test.drifted]
    assert {"embedding", "brightness"} <= set(names)
    assert len(found.tests) == 6 and len(found.points) == sum(found.compared) == sum(p[2] for p in found.points) + 23
    assert read_drift(store, dataset, before, now) == found
    assert "drifted in embedding" in artifacts(run)[f"drift-{dataset}"]
    [event] = events(dataset, 1)
    assert event["payload"]["experiment"] == asked["experiment"] and event["payload"]["drifted"] == names

    kept = {item.key: item.modified for item in store.listed("features/")}
    record = next(iter(store.listed(f"drift/{dataset}/{before}/{now}"))).modified
    again, _ = ended(drift, asked)
    assert again.result() == found
    assert {item.key: item.modified for item in store.listed("features/")} == kept
    assert next(iter(store.listed(f"drift/{dataset}/{before}/{now}"))).modified == record

    asked["overrides"]["drift"] = SETTINGS | {"false_alarms": 0.05}
    other, _ = ended(drift, asked)
    assert other.result().false_alarms == 0.05 and other.result().digest != found.digest
    assert {item.key: item.modified for item in store.listed("features/")} == kept


def test_photos_of_the_same_kind_are_none_and_the_command_says_so(store, dataset, source):
    asked = given(dataset, source)
    before = ingest(**asked)
    add(source, 1.01)
    ingest(**asked)
    state, _ = ended(drift, asked)
    assert state.is_failed() and state.message.startswith("DRIFT001")
    settings = [
        f"{group}.{k}={v}" for group, o in asked["overrides"].items() if isinstance(o, dict) for k, v in o.items()
    ]
    flags = [flag for s in settings if "method" not in s for flag in ("-s", s.replace("'", "").replace("(", "["))]
    done = semivl(
        "drift", asked["experiment"], "--reference", before, "-s", f"model={asked['overrides']['model']}", *flags
    )
    assert done.returncode == 0, done.stderr
    assert "no drift found" in done.stdout and "no champion" in done.stdout
    assert "alarm in at most 10.0%" in done.stdout
