"""A registered version is whole by itself: it loads anywhere, from safetensors, and answers photos with masks."""

import io
import json
import re
import subprocess
import sys
from importlib.metadata import distributions, packages_distributions, requires
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semivl.config import Config, GuidanceConfig, MethodConfig
from semivl.data.snapshot import Manifest
from semivl.errors import RegistryError
from semivl.evaluation.scores import predicted_mask
from semivl.registry import package
from semivl.registry.package import alias_version, load_predictor, model_version, register
from semivl.registry.tracking import client
from semivl.training.bundle import load_bundle

ELSEWHERE = """
import io, json, sys
from importlib.machinery import PathFinder
uri, model, root, absent = sys.argv[1:]
absent = set(json.loads(absent))
class Listed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in absent else super().find_spec(name, path, target)
sys.meta_path[:] = [Listed if f is PathFinder else f for f in sys.meta_path if "editable" not in repr(f)]
sys.path[:] = [p for p in sys.path if p not in ("", root)]
try:
    import semivl
    sys.exit("the checkout is in sight")
except ImportError:
    pass
import mlflow, numpy, pandas
from PIL import Image
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model(model)
photos = []
for height, width in ((40, 56), (16, 90)):
    file = io.BytesIO()
    pixels = numpy.random.default_rng(height).integers(0, 255, (height, width, 3), dtype="uint8")
    Image.fromarray(pixels).save(file, "PNG")
    photos.append(file.getvalue())
answer = model.predict(pandas.DataFrame({"image": photos}))
import importlib, semivl, semivl.methods
for name in semivl.methods.names():  # a finished model of any method
    importlib.import_module("semivl.methods." + name)
print(json.dumps({
    "sizes": answer[["width", "height"]].values.tolist(),
    "masks": [numpy.asarray(Image.open(io.BytesIO(m))).tolist() for m in answer["mask"]],
    "code": semivl.__file__,
}))
"""


@pytest.fixture
def version(run_id: str, bundle: Path, config: Config, manifest: Manifest) -> int:
    return register(run_id, bundle, config, manifest)


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def unlisted_modules() -> list[str]:
    """The modules of every installed package that neither a version's requirements nor what they need include."""
    found: set[str] = set()
    waiting = [plain(r.split("==")[0]) for r in package.requirements()]
    while waiting:
        name = waiting.pop()
        if name in found or not list(distributions(name=name)):
            continue
        found.add(name)
        waiting += [plain(re.split(r"[^\w.-]", r)[0]) for r in requires(name) or [] if "extra ==" not in r]
    owners = packages_distributions().items()
    return sorted(module for module, names in owners if not {plain(n) for n in names} & found and module != "semivl")


def test_a_version_loads_far_from_the_checkout_and_needs_only_what_it_lists(
    config: Config, version: int, bundle: Path, mlflow_server: str, tmp_path: Path
) -> None:
    address = f"models:/{config.registered_model}/{version}"
    root = str(Path(package.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, mlflow_server, address, root, json.dumps(unlisted_modules())],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["sizes"] == [[56, 40], [90, 16]]
    assert not told["code"].startswith(root)
    own = load_bundle(bundle)
    for (width, height), mask in zip(told["sizes"], told["masks"], strict=True):
        photo = np.random.default_rng(height).integers(0, 255, (height, width, 3), dtype="uint8")
        assert np.array_equal(predicted_mask(own, photo), np.array(mask, np.uint8))


def test_no_pickle_lies_in_a_version(config: Config, version: int) -> None:
    from mlflow.artifacts import download_artifacts

    folder = Path(download_artifacts(f"models:/{config.registered_model}/{version}"))
    kinds = {p.suffix for p in folder.rglob("*") if p.is_file()}
    assert not kinds & {".pkl", ".pickle", ".pt", ".pth", ".bin", ".pyc"}
    assert (folder / "artifacts" / "bundle" / "model.safetensors").is_file()
    assert "torch==" in (folder / "requirements.txt").read_text()


def test_a_loaded_predictor_gives_the_bundles_logits(config: Config, version: int, bundle: Path) -> None:
    images = torch.rand(1, 3, 32, 32)
    for name in (version, "challenger"):
        got = load_predictor(config.registered_model, name).logits(images)
        assert torch.equal(got, load_bundle(bundle).logits(images))


def test_registering_again_gives_the_same_version(
    config: Config, manifest: Manifest, run_id: str, bundle: Path, version: int
) -> None:
    assert register(run_id, bundle, config, manifest) == version == 1
    assert len(client().search_model_versions(f"name = '{config.registered_model}'")) == 1
    tags = model_version(config.registered_model, version).tags
    assert tags["semivl.snapshot"] == manifest.version and tags["semivl.method"] == "supervised"
    assert tags["semivl.train_key"]
    assert alias_version(config.registered_model, "challenger") == version


def test_a_version_names_the_model_that_guided_its_training(
    config: Config, manifest: Manifest, run_id: str, bundle: Path
) -> None:
    guidance = GuidanceConfig(model="taught/4")  # pyright: ignore[reportCallIssue]
    guided = config.model_copy(update={"guidance": guidance, "method": MethodConfig(name="semivl")})
    number = register(run_id, bundle, guided, manifest)
    assert model_version(config.registered_model, number).tags["semivl.teacher"] == "taught/4"


def test_a_kill_between_logging_and_registering_doubles_nothing(
    config: Config, manifest: Manifest, run_id: str, bundle: Path
) -> None:
    run = client().get_run(run_id)
    client().create_logged_model(run.info.experiment_id, "model", run_id)  # killed while it was uploaded
    logged = package._log_model(run_id, bundle)
    register(run_id, bundle, config, manifest)
    found = client().search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
    assert [model.model_id for model in found] == [logged.model_id]


def test_a_kill_before_the_alias_is_made_good(
    config: Config, manifest: Manifest, run_id: str, bundle: Path, version: int
) -> None:
    client().delete_registered_model_alias(config.registered_model, "challenger")
    register(run_id, bundle, config, manifest)
    assert alias_version(config.registered_model, "challenger") == version


def test_a_decided_version_is_no_challenger_again(
    config: Config, manifest: Manifest, run_id: str, bundle: Path, version: int
) -> None:
    client().delete_registered_model_alias(config.registered_model, "challenger")
    client().set_model_version_tag(config.registered_model, str(version), "gate.decision", "promoted")
    register(run_id, bundle, config, manifest)
    assert alias_version(config.registered_model, "challenger") is None


@pytest.mark.parametrize("asked", [7, "champion"])
def test_a_version_that_is_not_there_is_a_clear_error(config: Config, version: int, asked: int | str) -> None:
    with pytest.raises(RegistryError, match=f"REG004.*{config.registered_model}.*{asked}"):
        load_predictor(config.registered_model, asked)


def test_a_row_that_is_no_photo_is_named(config: Config, version: int) -> None:
    import mlflow.pyfunc
    import pandas as pd

    file = io.BytesIO()
    Image.new("RGB", (20, 10)).save(file, "JPEG")
    model = mlflow.pyfunc.load_model(f"models:/{config.registered_model}/{version}")
    for bad in (b"no photo", b"", file.getvalue()[:300]):
        with pytest.raises(Exception, match="REG005 row 1"):
            model.predict(pd.DataFrame({"image": [file.getvalue(), bad]}))
