"""The finished model in MLflow's registry: a pyfunc made from code with safetensors inside, no pickle.

It needs nothing but its own folder and the packages it lists: the project's code, the class names and the
text embeddings travel with it.
"""

import shutil
import tempfile
import warnings
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semivl import __version__
from semivl.config import Config
from semivl.data.snapshot import Manifest
from semivl.errors import RegistryError
from semivl.registry.runs import TRAIN_KEY, learned_from
from semivl.registry.tracking import client
from semivl.settings import home

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

    from semivl.training.bundle import Predictor

CHALLENGER = "challenger"
NEEDED = (
    "mlflow", "torch", "torchvision", "open_clip_torch", "timm", "numpy", "pandas", "pyarrow", "pillow",
    "safetensors", "pydantic", "pydantic-settings", "omegaconf", "pyyaml", "boto3", "simplejpeg", "scipy",
    "pycocotools", "scikit-learn",
)  # fmt: skip
"""the packages that inference imports"""
_MODEL_CODE = Path(__file__).parents[1] / "serving" / "pyfunc.py"
"""what MLflow runs; a room above this one, so that it is named and never imported"""


def register(run_id: str, bundle: Path, config: Config, manifest: Manifest) -> int:
    """The version that holds this run's model, made once; alias `challenger` until it is decided on.

    Args:
        bundle: folder that `semivl.training.bundle.save_bundle` wrote.
    """
    name = config.registered_model
    known = _version_of(name, run_id)
    if known is None:
        logged = _logged_model(run_id) or _log_model(run_id, bundle)
        known = _create_version(name, logged, run_id, config, manifest)
    current = alias_version(name, CHALLENGER)
    if "gate.decision" not in known.tags and (current is None or current < int(known.version)):
        client().set_registered_model_alias(name, CHALLENGER, str(known.version))
    return int(known.version)


def alias_version(model: str, alias: str) -> int | None:
    """The version that the alias names now; None where the model or the alias is not there."""
    from mlflow.exceptions import MlflowException

    try:
        return int(client().get_model_version_by_alias(model, alias).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def model_version(model: str, version: int | str) -> "ModelVersion":
    """MLflow's record of a version, which may be given by its alias.

    Raises:
        RegistryError: REG004 there is none.
    """
    from mlflow.exceptions import MlflowException

    number = alias_version(model, version) if isinstance(version, str) else version
    try:
        if number is not None:
            return client().get_model_version(model, str(number))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    raise RegistryError(
        "REG004", f"model {model} has no version or alias {version}.", "Train and register one: semivl-train."
    )


def load_predictor(model: str, version: int | str, device: str = "cpu") -> "Predictor":
    """The version's model, ready to predict. Its bundle is downloaded once for a machine; no code of it runs.

    Raises:
        RegistryError: REG004 there is no such version or alias.
    """
    from semivl.training.bundle import load_bundle

    found = model_version(model, version)
    return load_bundle(fetch_bundle(found), device)


def bundle_of(model: str, version: int) -> Path:
    """The folder with the version's bundle, downloaded once for a machine; REG004 there is no such version."""
    return fetch_bundle(model_version(model, version))


def fetch_bundle(found: "ModelVersion") -> Path:
    """The folder of the version's bundle on this machine, downloaded once."""
    from mlflow.artifacts import download_artifacts

    folder = home() / "cache" / "models" / found.name / f"{found.version}-{found.creation_timestamp}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        address = f"models:/{found.name}/{found.version}/artifacts/bundle"
        fetched = Path(download_artifacts(artifact_uri=address, dst_path=place))
        try:
            fetched.rename(folder)
        except OSError:  # another process has put the same there
            if not folder.is_dir():
                raise
    return folder


def _version_of(model: str, run_id: str) -> "ModelVersion | None":
    found = client().search_model_versions(f"name = '{model}' and run_id = '{run_id}'")
    return min(found, key=lambda v: int(v.version), default=None)


def _logged_model(run_id: str) -> "LoggedModel | None":
    """The model that an earlier attempt logged whole; one that it left unfinished is deleted."""
    from mlflow.entities import LoggedModelStatus

    experiment = client().get_run(run_id).info.experiment_id
    whole = None
    for model in client().search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"):
        if model.status == LoggedModelStatus.READY:
            whole = model
        else:
            client().delete_logged_model(model.model_id)
    return whole


def _log_model(run_id: str, bundle: Path) -> "LoggedModel":
    import mlflow.pyfunc
    from mlflow.models import Model

    run = client().get_run(run_id)
    params = {k: v for k, v in run.data.params.items() if len(v) <= 500}
    logged = client().create_logged_model(run.info.experiment_id, "model", run_id, params=params, model_type="semivl")
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*input example")  # the signature is given
        Model.log(
            artifact_path=None,
            name="model",
            model_id=logged.model_id,
            run_id=run_id,
            flavor=mlflow.pyfunc,
            python_model=str(_MODEL_CODE),
            artifacts={"bundle": str(shutil.copytree(bundle, Path(place) / "bundle"))},  # MLflow keeps the name
            code_paths=[str(_own_code(Path(place)))],
            pip_requirements=requirements(),
            signature=_signature(),
        )
    return client().get_logged_model(logged.model_id)


def _own_code(place: Path) -> Path:
    """A copy of the semivl package without caches; MLflow copies whatever it is given."""
    source = Path(__file__).resolve().parent.parent
    return Path(shutil.copytree(source, place / source.name, ignore=shutil.ignore_patterns("__pycache__")))


def requirements() -> list[str]:
    """The packages that inference needs, as installed here; without the local part of a version (+cpu)."""
    return [f"{name}=={installed(name).split('+')[0]}" for name in NEEDED]


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    inputs = Schema([ColSpec("string", "image")])
    outputs = Schema([
        ColSpec("string", "mask"), ColSpec("long", "width"), ColSpec("long", "height"), ColSpec(AnyType(), "classes"),
        ColSpec("double", "confidence"), ColSpec("string", "confidence_map", required=False),
        ColSpec(AnyType(), "rle", required=False),
    ])  # fmt: skip
    params = ParamSchema([ParamSpec("confidence", "boolean", False), ParamSpec("rle", "boolean", False)])
    return ModelSignature(inputs, outputs, params)


def _create_version(
    name: str, logged: "LoggedModel", run_id: str, config: Config, manifest: Manifest
) -> "ModelVersion":
    from mlflow.exceptions import MlflowException

    try:
        client().create_registered_model(name, description=f"Segmentation of {', '.join(config.classes.names)}.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {
        TRAIN_KEY: client().get_run(run_id).data.tags.get(TRAIN_KEY, ""),
        "semivl.dataset": manifest.dataset,
        "semivl.snapshot": manifest.version,
        "semivl.method": config.method.name,
        "semivl.experiment": config.name,
        "semivl.version": __version__,
    } | learned_from(config)
    source = f"models:/{logged.model_id}"
    return client().create_model_version(name, source, run_id, tags=tags, model_id=logged.model_id)
