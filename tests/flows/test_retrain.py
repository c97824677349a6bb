"""semivl-retrain in this process, on real services: when it trains, when it does nothing, and what it starts from."""

import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from safetensors.torch import load_file

from flows.ingest import ingest
from flows.retrain import retrain
from flows.train import train
from flows.validate import validate
from semivl.config import load
from semivl.data import snapshot
from semivl.errors import SemivlError
from semivl.registry.device_time import METRIC, MODEL, used
from semivl.registry.frozen import frozen_set
from semivl.registry.package import alias_version, bundle_of, model_version
from semivl.registry.tracking import client, experiment_id
from semivl.settings import home
from semivl.training.bundle import train_key
from tests.loop import LABELLED, parameters, scenes

pytestmark = pytest.mark.usefixtures("mlflow_server", "prefect_server")
WAITING = 4


def given(dataset: str, source: Path | None = None, steps: int = 2, **settings) -> dict:
    made = parameters(dataset, steps=steps, source=source)
    made["overrides"]["retrain"] = settings
    return made


def config_of(arguments: dict):
    return load(arguments["experiment"], arguments["overrides"])


def growing_source(folder: Path) -> tuple[Path, list[Path]]:
    """A copy of the scenes without a few unlabelled images, and those."""
    source = Path(shutil.copytree(scenes(), folder / "source"))
    late = sorted((source / "images").glob("unlabelled-*"))[:WAITING]
    (folder / "late").mkdir()
    return source, [Path(shutil.move(image, folder / "late" / image.name)) for image in late]


def arrive(source: Path, images: list[Path]) -> None:
    for image in images:
        shutil.copy(image, source / "images" / image.name)


def ended(arguments: dict):
    state = retrain(**arguments, return_state=True)
    assert state.is_completed(), state.message
    return state


def committed(dataset: str) -> list[dict]:
    """The events of the dataset's snapshots."""
    asked = {"filter": {"event": {"name": ["semivl.snapshot.committed"]}}}
    until, found = time.monotonic() + 20, []
    while not found and time.monotonic() < until:
        with get_client(sync_client=True) as prefect:
            events = prefect.request("POST", "/events/filter", json=asked).json()["events"]
        found = [e["resource"] for e in events if e["resource"]["prefect.resource.id"] == f"semivl.dataset.{dataset}"]
        time.sleep(0.2)
    return found


def versions(model: str) -> list[str]:
    return [v.version for v in client().search_model_versions(f"name = '{model}'")]


def test_too_few_images_start_nothing_and_broken_ones_do_not_count(store, dataset, tmp_path):
    source, late = growing_source(tmp_path)
    there = len(list((source / "images").iterdir()))
    state = ended(given(dataset, source, min_new=1000))
    assert state.message.startswith("nothing to do: ") and "new images so far" in state.message
    assert snapshot.head(store, dataset) is None
    (source / "images" / late[0].name).write_bytes(b"no picture")  # enough, until it is opened
    state = ended(given(dataset, source, min_new=there + 1))
    assert state.message.startswith(f"nothing to do: {there} new images so far")
    assert snapshot.head(store, dataset) is not None and versions(f"semivl-{dataset}") == []


@pytest.mark.slow
def test_trains_on_what_came_and_does_nothing_below_the_threshold(store, dataset, tmp_path):
    source, late = growing_source(tmp_path)
    arguments = given(dataset, source, min_new=2)
    assert ended(arguments).result().promoted
    first = snapshot.head(store, dataset)
    assert ended(arguments).message.startswith("nothing to do: 0 new images since")
    arrive(source, late[:1])
    state = ended(arguments)
    assert state.message.startswith("nothing to do: 1 new images") and "min_new is 2" in state.message
    assert snapshot.head(store, dataset) == first and versions(f"semivl-{dataset}") == ["1"]
    (source / "images" / late[1].name).write_bytes(b"no picture")
    assert ended(arguments).message.startswith("nothing to do: 1 new images")  # a broken one does not count
    arrive(source, late[2:3])
    assert ended(arguments).result().challenger == 2
    assert snapshot.head(store, dataset) != first
    assert [e["semivl.retraining"] for e in committed(dataset)][:1] == ["demo-supervised"]


@pytest.mark.slow
def test_refused_challenger_is_left_at_that_and_met_the_champion_on_the_frozen_images(store, dataset, tmp_path):
    source, late = growing_source(tmp_path)
    listed, model = source / "evaluation.txt", f"semivl-{dataset}"
    judged = listed.read_text()
    listed.write_text("\n".join(judged.split()[:-1]) + "\n")
    arguments = given(dataset, source)
    arguments["overrides"]["gate"] = {"margin": 100}
    first = ended(arguments).result()
    listed.write_text(judged)  # one more to evaluate on
    arrive(source, late)
    second = ended(arguments).result()
    assert (second.challenger, second.champion, second.promoted) == (2, 1, False) and "GATE004" in second.failed
    assert snapshot.read(store, dataset).manifest.counts["val"] == first.images + 1
    frozen = frozen_set(store, model)
    assert frozen and frozen.digest == second.digest == first.digest and second.snapshot == first.snapshot
    assert model_version(model, 2).tags["gate.decision"] == "rejected"
    before = sorted(store.list(""))
    assert ended(arguments).message.startswith("nothing to do: 0 new images")
    assert sorted(store.list("")) == before and versions(model) == ["2", "1"]
    assert alias_version(model, "champion") == 1


@pytest.mark.slow
def test_model_that_the_gate_has_not_seen_is_decided_before_anything_is_ingested(store, dataset, tmp_path):
    source, late = growing_source(tmp_path)
    arguments, model = given(dataset, source, min_new=2), f"semivl-{dataset}"
    first = ingest(**arguments)
    validate(**arguments)
    train(**arguments)
    arrive(source, late[:1])
    assert ended(arguments).result().challenger == 1
    assert snapshot.head(store, dataset) == first and versions(model) == ["1"]
    assert ended(arguments).message.startswith("nothing to do: 1 new images")


@pytest.mark.slow
def test_champion_that_was_named_by_hand_does_not_wait_for_the_gate(store, dataset):
    arguments, model = given(dataset), f"semivl-{dataset}"
    ingest(**arguments)
    validate(**arguments)
    train(**arguments)
    client().set_registered_model_alias(model, "champion", "1")
    assert ended(arguments).message.startswith("nothing to do: 0 new images")


@pytest.mark.slow
def test_image_that_got_a_mask_counts_as_new(store, dataset, tmp_path):
    source, _ = growing_source(tmp_path)
    arguments = given(dataset, source)
    ended(arguments)
    masks = sorted((source / "masks").glob("labelled-*"))
    newly = sorted((source / "images").glob("unlabelled-*"))[0]
    shutil.copy(masks[0], source / "masks" / f"{newly.stem}.png")
    listed = source / "labelled.txt"
    listed.write_text(f"{listed.read_text()}{newly.name}\n")
    ended(arguments)
    assert snapshot.read(store, dataset).manifest.counts["train/mask"] == LABELLED + 1
    assert len(versions(f"semivl-{dataset}")) == 2


def log_hours(model: str, hours: float, age: timedelta) -> None:
    run = client().create_run(experiment_id(), tags={MODEL: model})
    at = int((datetime.now(UTC) - age).timestamp() * 1000)
    client().log_metric(run.info.run_id, METRIC, hours * 3600, timestamp=at, step=at // 1000)


def test_budget_that_is_used_up_is_said_with_the_hour_when_room_returns(store, dataset):
    arguments = given(dataset, device_hours_a_week=2)
    model = f"semivl-{dataset}"
    for hours, days in ((5, 8), (1.5, 6), (1, 2)):
        log_hours(model, hours, timedelta(days=days))
    found = used(config_of(arguments))
    assert found.hours == pytest.approx(2.5)
    room = datetime.now(UTC) + timedelta(days=1)
    assert found.room_at is not None and abs(found.room_at - room) < timedelta(minutes=1)
    state = ended(arguments)
    assert "2.50 of 2 device hours" in state.message and f"{room:%Y-%m-%d}" in state.message
    assert snapshot.head(store, dataset) is None


@pytest.mark.slow
def test_training_stops_where_the_budget_ends_and_goes_on_when_there_is_room(store, dataset):
    arguments = given(dataset, steps=12, device_hours_a_week=1e-5)
    state = ended(arguments)
    assert "5 steps are kept" in state.message and "room again at" in state.message
    config = config_of(arguments)
    folder = home() / "runs" / train_key(config, snapshot.head(store, dataset))
    assert [c.name for c in folder.glob("step-*")] == ["step-00000005"]
    arguments["overrides"]["retrain"] = {"device_hours_a_week": 40}
    assert ended(arguments).result().challenger == 1
    runs = client().search_runs([experiment_id()], f"tags.`{MODEL}` = 'semivl-{dataset}'")
    assert [run.info.status for run in runs] == ["FINISHED"]
    spent = client().get_metric_history(runs[0].info.run_id, METRIC)
    assert len(spent) >= 2 and used(config).hours == pytest.approx(sum(m.value for m in spent) / 3600)


@pytest.mark.slow
def test_warm_start_goes_on_from_the_champion_and_names_it(store, dataset, tmp_path):
    source, late = growing_source(tmp_path)
    arguments = given(dataset, source, start="champion")
    arguments["overrides"]["train"] |= {"learning_rate": 1e-12, "weight_decay": 0}  # so that the start shows
    ended(arguments)
    arrive(source, late)
    assert ended(arguments).result().challenger == 2
    model = f"semivl-{dataset}"
    tags = model_version(model, 2).tags
    assert tags["semivl.parent_version"] == "1" and "semivl.parent_version" not in model_version(model, 1).tags
    run = client().get_run(model_version(model, 2).run_id)
    assert run.data.tags["semivl.parent_version"] == "1" and run.info.run_name.endswith("-from-1")
    assert run.data.params["train.parent.train_key"] == model_version(model, 1).tags["semivl.train_key"]
    first, second = (load_file(bundle_of(model, number) / "model.safetensors") for number in (1, 2))
    assert max((second[n] - first[n]).abs().max().item() for n in first) < 1e-6
    assert any((second[n] != first[n]).any() for n in first if n.startswith("decoder."))


@pytest.mark.slow
def test_champion_of_another_method_is_no_start_and_the_error_says_so(store, dataset, tmp_path):
    source, late = growing_source(tmp_path)
    ended(given(dataset, source))
    other = parameters(dataset, "demo", source=source)
    other["overrides"]["retrain"] = {"start": "champion"}
    arrive(source, late)
    with pytest.raises(SemivlError, match="method supervised, not semivl") as caught:
        retrain(**other)
    assert caught.value.code == "TRAIN010"
    with pytest.raises(SemivlError, match="REG004"):
        other["overrides"] |= {"retrain": {}, "train": other["overrides"]["train"] | {"parent": {"version": 7}}}
        retrain(**other)
