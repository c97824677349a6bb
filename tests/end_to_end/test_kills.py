"""kill -9 in the midst of a training: started again and run again, everything ends as if nothing had happened."""

import threading
import uuid

import pytest

from semivl.config import load
from semivl.data import snapshot
from semivl.data.store import open_store
from semivl.registry.package import alias_version, model_version
from semivl.registry.tracking import client
from semivl.services import runs, supervisor
from semivl.settings import home
from semivl.training.bundle import train_key
from tests.kills import kill, unbroken_weights, wait_for_checkpoint
from tests.loop import parameters

STEPS = 300
LOGGED = list(range(2, STEPS + 1, 2))
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("services")]


def run_again(given: dict) -> runs.Ended:
    said: list[str] = []
    ended = runs.follow(runs.start(runs.PIPELINE, given), said.append)
    assert ended.completed, (ended, said)
    return ended


@pytest.mark.parametrize("service", ["worker", "s3", "mlflow"])
def test_killed_service_leaves_the_same_end_state_and_nothing_twice(service, tmp_path):
    dataset = f"t-{uuid.uuid4().hex[:8]}"
    given = parameters(dataset, steps=STEPS)
    config = load(given["experiment"], given["overrides"])
    first = runs.start(runs.PIPELINE, given)
    wait_for_checkpoint(config)
    kill(service)
    supervisor.up()
    again = threading.Thread(target=runs.follow, args=(first, lambda _: None), daemon=True)
    again.start()
    run_again(given)
    again.join(120)
    assert not again.is_alive(), "the killed run never ended"

    store, model = open_store(), config.registered_model
    version = snapshot.head(store, dataset)
    assert version
    snapshots = {key.split("/")[3] for key in store.list(f"datasets/{dataset}/snapshots/")}
    assert snapshots == {version}
    key = train_key(config, version)
    found = client().search_runs(["1"], f"tags.`semivl.train_key` = '{key}'")
    assert [run.info.status for run in found] == ["FINISHED"]
    curve = client().get_metric_history(found[0].info.run_id, "train/total")
    assert [point.step for point in curve] == LOGGED
    versions = client().search_model_versions(f"name = '{model}'")
    assert [v.run_id for v in versions] == [found[0].info.run_id]
    assert alias_version(model, "champion") == 1
    assert model_version(model, 1).tags["gate.decision"] == "promoted"
    decisions = [k for k in store.list(f"decisions/v2/{model}/") if k.endswith(".json")]
    assert len(decisions) == 1
    trained = home() / "runs" / key / "model" / "model.safetensors"
    assert trained.read_bytes() == unbroken_weights(config, tmp_path / "unbroken")
