"""The other methods as a user starts them: through the deployments to a champion, and two before one gate."""

import json
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from semivl.data.scenes import Told, write_scenes
from semivl.data.store import open_store
from semivl.registry.package import load_predictor, model_version
from semivl.registry.tracking import client
from semivl.settings import home
from tests.loop import overrides

BIN = Path(sys.executable).parent
METHODS = {
    "scenes-transfer": ("transfer", "learned from: 8 labelled and 16 unlabelled (16 with tags) images"),
    "scenes-code": ("co_decomposition", "learned from: 24 captioned images"),
    "scenes-scg": ("spatial_grouping", "learns nothing"),
    "scenes-scg-adapted": ("spatial_grouping", "learned from: 24 captioned images"),
}
pytestmark = [pytest.mark.usefixtures("services"), pytest.mark.slow]


@pytest.fixture(scope="module")
def dataset() -> str:
    return f"t-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def told_scenes() -> Path:
    """Scenes with masks of four classes, complete tags of all, and captions that leave out a third."""
    folder = home() / "tests" / "told"
    told = Told(mentioned=0.65, tags="all", masked=("cat", "duck", "car", "mushroom"))
    write_scenes(folder, 5, 8, 16, 6, 64, told)
    return folder


def given(dataset: str, experiment: str, source: Path, model: str) -> dict:
    """The parameters of a small run of the experiment."""
    small = overrides(dataset, source=source, steps=4)
    small["train"] |= {"warmup": 1}
    small["method"] = {"settings": {"least_captions": 1}} if experiment == "scenes-code" else {}
    return {"experiment": experiment, "overrides": small | {"model": model}}


def run(deployment: str, parameters: dict) -> None:
    command = [BIN / "prefect", "deployment", "run", deployment, "--params", json.dumps(parameters), "--watch"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr


def decisions(model: str) -> list[dict]:
    store = open_store()
    keys = [key for key in store.list(f"decisions/v2/{model}/") if key.endswith(".json")]
    return sorted((json.loads(store.get(key)) for key in keys), key=lambda d: d["challenger"])


@pytest.mark.parametrize("experiment", METHODS)
def test_each_method_comes_through_the_deployments_to_a_champion(experiment, dataset, told_scenes):
    method, samples = METHODS[experiment]
    model = f"semivl-{dataset}-{experiment}"
    run("semivl-pipeline/local", given(dataset, experiment, told_scenes, model))
    version = model_version(model, "champion")
    assert version.version == "1"
    predictor = load_predictor(model, 1, "cpu")
    kept = predictor.model.state_dict()
    assert type(predictor.method).__module__ == f"semivl.methods.{method}"
    assert not [name for name in kept if name.startswith(("teacher.", "learner."))]
    told = client().download_artifacts(version.run_id, "samples.txt", str(home()))
    assert samples in Path(told).read_text().lower()


def test_gate_compares_two_methods_on_one_split_and_a_model_teaches_semivl(dataset, told_scenes):
    model = f"semivl-{dataset}-scenes-transfer"
    run("semivl-pipeline/local", given(dataset, "scenes-scg", told_scenes, model))
    taught = given(dataset, "demo", told_scenes, model)
    taught["overrides"] |= {"guidance": {"model": f"{model}@challenger"}}
    taught["overrides"]["method"] = overrides(dataset)["method"]
    run("semivl-pipeline/local", taught)
    first, second, third = decisions(model)
    assert first["promoted"] and (second["challenger"], second["champion"]) == (2, 1)
    assert first["digest"] == second["digest"] == third["digest"]
    assert second["challenger_miou"] != second["champion_miou"]
    run_of = client().get_run(model_version(model, 3).run_id)
    assert run_of.data.params["guidance.model"] == f"{model}/2"
