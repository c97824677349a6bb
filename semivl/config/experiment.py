"""The experiment whole: files of conf/ merged with OmegaConf and checked."""

import difflib
import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from yaml import YAMLError

from semivl.config.data import Classes, DataConfig, Suite
from semivl.config.drift import DriftConfig
from semivl.config.gate import GateConfig
from semivl.config.model import GuidanceConfig, MethodConfig, TrainConfig, VlmConfig
from semivl.config.record import Record
from semivl.config.retrain import RetrainConfig
from semivl.config.run import ComputeConfig, EvaluationConfig
from semivl.errors import ConfigError
from semivl.settings import ROOT

T = TypeVar("T", bound=BaseModel)
CONF = ROOT / "conf"
GROUPS = ("data", "classes", "vlm", "method", "compute", "gate", "suite")
SUITE = "samples"
"""the suite of experiments that choose none"""


def load_suite(name: str = SUITE) -> Suite:
    """The checked suite of conf/suite/NAME.yaml.

    Raises:
        ConfigError: CONF001 there is no such file, CONF002 it is not YAML or has a code twice, CONF003 a field.
    """
    return check(Suite, OmegaConf.to_container(_read("suite", name), resolve=True), f"conf/suite/{name}.yaml")


class Config(Record):
    """One experiment, whole."""

    name: str
    model: str = Field("", description="name in the model registry; semivl-DATASET where empty")
    data: DataConfig
    classes: Classes
    vlm: VlmConfig
    method: MethodConfig
    train: TrainConfig = TrainConfig()  # pyright: ignore[reportCallIssue]
    evaluation: EvaluationConfig = EvaluationConfig()  # pyright: ignore[reportCallIssue]
    guidance: GuidanceConfig = GuidanceConfig()  # pyright: ignore[reportCallIssue]
    compute: ComputeConfig
    gate: GateConfig
    retrain: RetrainConfig = RetrainConfig()  # pyright: ignore[reportCallIssue]
    suite: Suite = Field(default_factory=load_suite)
    drift: DriftConfig = DriftConfig()  # pyright: ignore[reportCallIssue]

    @property
    def registered_model(self) -> str:
        return self.model or f"semivl-{self.data.dataset}"

    def digest(self, *parts: str) -> str:
        """Sixteen hex digits of the named parts of the experiment: the same settings, the same digest.

        At which sizes latency is measured decides nothing. Without refinement the digest is what it was before there
        was any.
        """
        chosen = self.model_dump(mode="json", include=set(parts))
        evaluation = chosen.get("evaluation", {})
        evaluation.pop("latency_sizes", None)
        if evaluation.get("refine") is None:
            evaluation.pop("refine", None)
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]


def _optional(model: type[BaseModel]) -> type[BaseModel]:
    """The model with every field optional, for overrides and for the form on Prefect's page."""

    def loosened(annotation: Any) -> Any:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return _optional(annotation)
        if get_origin(annotation) is dict:
            key, value = get_args(annotation)
            return dict[key, loosened(value)]
        return annotation

    fields: dict[str, Any] = {
        name: (loosened(f.annotation) | None, Field(None, description=f.description))
        for name, f in model.model_fields.items()
        if name != "name" or model is not Config
    }
    return create_model(f"{model.__name__}Overrides", __config__=ConfigDict(extra="forbid"), **fields)


Overrides = _optional(Config)
"""Every setting of an experiment, none of them needed."""


def experiments() -> list[str]:
    """Names of the experiments in conf/experiment."""
    return sorted(p.stem for p in (CONF / "experiment").glob("*.yaml"))


def load(experiment: str, overrides: BaseModel | dict[str, Any] | None = None) -> Config:
    """The checked experiment.

    Raises:
        ConfigError: CONF001 unknown experiment or group file, CONF002 a file that is not YAML,
            CONF003 an unknown field or a value that cannot be used.
    """
    if isinstance(overrides, BaseModel):
        overrides = overrides.model_dump(mode="json", exclude_none=True)
    chosen = _experiment(experiment)
    for group in GROUPS:
        if group not in chosen:
            raise ConfigError(
                "CONF003",
                f"conf/experiment/{experiment}.yaml has no {group}.",
                f"Add one of: {_names(group)}.",
            )
    whole = OmegaConf.merge(chosen, OmegaConf.create(expanded(overrides or {})))
    config = check(Config, OmegaConf.to_container(whole, resolve=True), f"experiment {experiment}")
    _require_plain_background(config)
    return config


def _require_plain_background(config: Config) -> None:
    """CONF003 for `Background` and the like, which no method would know for the background. Asked of experiments alone:
    snapshots and models that have such a class can be read."""
    for place, name in enumerate(config.classes.names):
        if name != "background" and name.strip().casefold() == "background":
            where = f"experiment {config.name}: classes.classes.{place}.name"
            remedy = "Write it background; a dataset that was ingested with the other name needs a new data.dataset."
            raise ConfigError("CONF003", f"{where}: {name!r} would not be known for the background.", remedy)


def expanded(overrides: dict[str, Any]) -> dict[str, Any]:
    """The overrides with the name of a guide replaced by what its file in conf/vlm says.

    Raises:
        ConfigError: CONF001 there is no such file.
    """
    guidance = overrides.get("guidance")
    if not isinstance(guidance, dict) or not isinstance(guidance.get("vlm"), str):
        return overrides
    guide = OmegaConf.to_container(_read("vlm", guidance["vlm"]))
    return overrides | {"guidance": guidance | {"vlm": guide}}


def _experiment(name: str, above: tuple[str, ...] = ()) -> DictConfig:
    """The settings of an experiment's file, its groups read, merged onto those of the experiment it is based on."""
    if name in above:
        raise ConfigError("CONF003", f"experiments {', '.join(above)} are based on each other.", "Mend their base.")
    read = _read("experiment", name)
    base = read.pop("base", None)
    settings = _experiment(base, (*above, name)) if base else OmegaConf.create({"suite": _read("suite", SUITE)})
    settings["name"] = name
    for key, value in read.items():
        partial = OmegaConf.is_dict(value) and "use" not in value
        if key in GROUPS and not (partial and key in settings):
            settings[key] = _group(str(key), value)
        else:
            value = expanded({"guidance": OmegaConf.to_container(value)})["guidance"] if key == "guidance" else value
            settings = OmegaConf.merge(settings, {key: value})
            assert isinstance(settings, DictConfig)
    return settings


def check(model: type[T], value: Any, where: str) -> T:
    """`value` as a `model`; CONF003 names each field at fault and the field that was likely meant."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = "; ".join(_fault(model, e["loc"], e["msg"]) for e in error.errors())
        raise ConfigError("CONF003", f"{where}: {faults}.", "Mend the YAML or the override.") from None


def _fault(model: type[BaseModel], location: tuple[int | str, ...], message: str) -> str:
    known: list[str] = []
    part: Any = model
    for step in location[:-1]:
        field = part.model_fields.get(str(step)) if isinstance(part, type) and issubclass(part, BaseModel) else None
        part = field.annotation if field else part  # a place in a list, or a key of a mapping
        part = next((a for a in get_args(part) if isinstance(a, type) and issubclass(a, BaseModel)), part)
    if isinstance(part, type) and issubclass(part, BaseModel):
        known = list(part.model_fields)
    name = ".".join(map(str, location))
    if message != "Extra inputs are not permitted":
        return f"{name}: {message}"
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"{name} is not a setting" + (f" (did you mean {near[0]}?)" if near else f" (known: {', '.join(known)})")


def _group(group: str, chosen: Any) -> DictConfig:
    if isinstance(chosen, str):
        return _read(group, chosen)
    chosen = dict(chosen)
    base = _read(group, chosen.pop("use")) if "use" in chosen else OmegaConf.create({})
    merged = OmegaConf.merge(base, OmegaConf.create(chosen))
    assert isinstance(merged, DictConfig)
    return merged


def _names(group: str) -> str:
    return ", ".join(sorted(p.stem for p in (CONF / group).glob("*.yaml"))) or "none yet"


def _read(group: str, name: str) -> DictConfig:
    path = CONF / group / f"{name}.yaml"
    if Path(name).name != name or not path.is_file():
        raise ConfigError("CONF001", f"there is no conf/{group}/{name}.yaml.", f"Known: {_names(group)}.")
    try:
        read = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException) as error:
        line = " ".join(str(error).split())
        raise ConfigError("CONF002", f"conf/{group}/{name}.yaml is not YAML: {line}.", "Mend the file.") from None
    if not isinstance(read, DictConfig):
        raise ConfigError("CONF002", f"conf/{group}/{name}.yaml holds no settings.", "Write `name: value` lines.")
    return read
