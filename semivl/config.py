"""The experiment: what conf/ says, merged with OmegaConf and checked by frozen pydantic models.

`conf/experiment/NAME.yaml` names one file of each group (`data: scenes`) and overrides what it wants to
(`data: {use: scenes, labelled: 12}`). With `base: OTHER` it starts from another experiment. `load` returns the checked
whole. The flows take `Overrides`, the same models with every field optional, so that Prefect's page shows them as a
form.
"""

import difflib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)
from yaml import YAMLError

from semivl.errors import ConfigError
from semivl.settings import ROOT

T = TypeVar("T", bound=BaseModel)
CONF = ROOT / "conf"
GROUPS = ("data", "classes", "vlm", "method", "compute", "gate", "suite")
SUITE = "samples"
"""the suite of experiments that choose none"""
IGNORE = 255
"""Mask value of pixels that nobody labelled: never learned from, never scored."""


class Record(BaseModel):
    """A frozen record that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassDefinition(Record):
    """One class: the name users read, and the phrases a vision-language model is asked for."""

    name: str
    definitions: tuple[str, ...] = Field((), description="noun phrases for guidance; the name where empty")

    @property
    def phrases(self) -> tuple[str, ...]:
        return self.definitions or (self.name,)


class Classes(Record):
    """The class map: the mask id of a class is its place in the list; 255 is ignore."""

    classes: tuple[ClassDefinition, ...] = Field(min_length=2, max_length=255)
    prompt: str = Field("a photo of a {}", description="template around names and definitions")
    joined: bool = Field(False, description="take the spaces out of names in prompts, as SemiVL was trained on VOC")

    @field_validator("prompt")
    @classmethod
    def _takes_a_name(cls, prompt: str) -> str:
        if prompt.count("{}") != 1 or prompt.replace("{}", "").count("{") + prompt.replace("{}", "").count("}"):
            raise ValueError("write it with one {} where the name goes, and no other braces")
        return prompt

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    def __len__(self) -> int:
        return len(self.classes)


class DataConfig(Record):
    """A source of images and how to read it."""

    dataset: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="name under which snapshots are kept")
    layout: Literal["ade20k", "camvid", "cityscapes", "coco", "folder", "images", "voc", "webdataset"] = Field(
        "folder", description="how the source is arranged: docs/layouts.md"
    )
    source: Path | Annotated[str, Field(pattern="^s3://[^/]+")] = Field(
        description="folder with the images, relative to the checkout, or s3://BUCKET/PREFIX"
    )
    train_list: str | None = Field(None, description="file that lists the images to train on; all of them otherwise")
    labelled_list: str | None = Field(
        None,
        description="file that lists the images whose masks may be used; all masks otherwise. Lists are looked for in "
        "the source, then in the checkout",
    )
    evaluation_list: str | None = Field(None, description="file that lists the evaluation images")
    evaluation_share: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="without a list: share of the masked images held out, chosen by content hash",
    )
    shard_samples: int = Field(512, ge=1, description="images in a shard")
    max_pixels: int = Field(64_000_000, ge=1, description="images with more pixels are quarantined")
    annotations: tuple[str, ...] = Field(
        (), description="layout coco: panoptic, stuff or instances JSON that masks are made of; masks/ where empty"
    )
    categories: dict[str, str] = Field(
        default_factory=dict, description="class names by the names that annotations or colours have for them"
    )
    other_categories: Literal["ignore", "background"] = Field(
        "ignore", description="what pixels of categories become that no class bears the name of"
    )
    ignore_ids: tuple[Annotated[int, Field(ge=0, le=255)], ...] = Field(
        (), description="ids in the masks, beside 255, of pixels that nobody labelled"
    )
    tags: tuple[str, ...] = Field((), description="CSV, JSONL or Parquet of tags; tags.jsonl and tags.csv where empty")
    tag_names: str | None = Field(None, description="layout webdataset: list of the names that the numbers in cls mean")
    captions: tuple[str, ...] = Field(
        (), description="CSV, JSONL, Parquet or COCO JSON of captions; captions.jsonl and captions.csv where empty"
    )
    split_table: str | None = Field(
        None, description="CSV, JSONL or Parquet with a column `image` and one that says train or val"
    )
    split_column: str = Field(
        "split", description="the column of split_table; layout webdataset: the field of the json"
    )
    split_names: dict[str, Literal["train", "val", "out"]] = Field(
        default_factory=dict, description="what other words for a split stand for; `out` is neither learned nor scored"
    )

    max_bytes: int = Field(64_000_000, ge=1, description="images and masks whose files are larger are quarantined")
    max_aspect: float = Field(30.0, ge=1, description="images that are longer than so many times their short side are")
    formats: tuple[Literal["jpeg", "png"], ...] = Field(
        ("jpeg", "png"), min_length=1, description="formats of images that are let in; masks are PNG"
    )
    file_seconds: float = Field(20, gt=0, description="CPU seconds that checking one image may take")

    @model_validator(mode="after")
    def _one_split(self) -> Self:
        if self.evaluation_list and self.split_table:
            raise ValueError("set evaluation_list or split_table: one of them says what is scored")
        return self


class VlmConfig(Record):
    """The image encoder, mostly a vision-language model's: by open_clip's or timm's name, or from a folder."""

    model: str = Field(
        description="open_clip's model name, timm:NAME for an encoder without text, or a folder as local-dir:PATH "
        "(open_clip's format), aligned:PATH or spoken:PATH; PATH is relative to the checkout"
    )
    pretrained: str | None = Field(None, description="open_clip's weights tag or a file; not for folders")
    gelu: Literal["exact", "quick", "own"] = Field("own", description="activation of the encoder's MLPs")
    layer_norm_eps: float | None = Field(None, gt=0, description="of all the encoder's norms; its own where empty")
    normalisation: Literal["own", "imagenet"] = Field("own", description="mean and deviation that images are fed with")
    skip_blocks: tuple[int, ...] = Field((0, 4), description="blocks whose value path feeds the decoder, shallow first")
    conv_stem: bool = Field(False, description="a ResNet-101 stem and first stage as the shallowest skip feature")


class MethodConfig(Record):
    """A method by name; its own settings are checked by the method itself."""

    name: str = Field(description="file in semivl/methods")
    settings: dict[str, Any] = Field(default_factory=dict, description="see the method's Settings")


class TrainConfig(Record):
    """The length and shape of a training, the same for every method."""

    steps: int = Field(1000, ge=1)
    batch: int = Field(8, ge=1, description="labelled images a step; as many unlabelled ones for methods that use them")
    crop: int = Field(512, ge=16, description="side of the training crop in pixels")
    scale: tuple[PositiveFloat, PositiveFloat] = Field(
        (0.5, 2.0), description="range of the random resize, relative to short_side"
    )
    short_side: int | None = Field(
        512,
        ge=16,
        description="short side in pixels that scale 1 stands for; where empty, the image's own size is scale 1",
    )
    long_side: int | None = Field(None, ge=16, description="bound of the long side at scale 1; none where empty")
    antialias: bool = Field(
        True, description="low-pass an image that is made smaller, which OpenCV's bilinear does not"
    )
    learning_rate: float = Field(1e-4, gt=0)
    backbone_multiplier: float = Field(0.01, ge=0)
    decoder_multiplier: float = Field(10.0, gt=0)
    conv_multiplier: float = Field(0.1, ge=0, description="of the encoder's convolutional stem, where it has one")
    weight_decay: float = Field(0.01, ge=0)
    seed: int = 0
    checkpoint_every: int = Field(100, ge=1, description="steps")
    log_every: int = Field(10, ge=1, description="steps between points of a metric's curve")
    preview_every: int = Field(100, ge=1, description="steps between overlays of the fixed validation images")

    @field_validator("scale")
    @classmethod
    def _ascending(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("the smaller one comes first")
        return scale


class EvaluationConfig(Record):
    """How a model is scored: by a sliding window (spec 5)."""

    mode: Literal["average_logits", "sum_probabilities"] = Field(
        "average_logits", description="what overlapping windows add up; sum_probabilities cuts the last ones short"
    )
    short_side: int | None = Field(None, ge=16, description="resize so before prediction; native size where empty")
    window: int = Field(512, ge=16)
    stride: int = Field(426, ge=1)
    batch: int = Field(4, ge=1, description="windows predicted at once")
    repeat_to_multiple_of: int = Field(
        1, ge=1, description="count the first images twice until their number divides, as that many GPUs once did"
    )


class ComputeConfig(Record):
    """Where a training runs."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int = Field(0, ge=0, description="processes that decode and crop")
    threads: int | None = Field(None, ge=1, description="CPU threads of torch; torch's own choice where empty")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of the networks; losses and cosines stay fp32")
    compile: bool = Field(False, description="torch.compile the blocks of the encoder and the decoder's convolutions")
    class_chunk: int | None = Field(
        10, ge=1, description="classes decoded at once, and again on the way back, which saves memory; all where empty"
    )
    ray: str | None = Field(
        None, description="address of a Ray cluster that ingests; processes of this machine where empty"
    )
    cache_bytes: int | None = Field(
        None,
        ge=1,
        description="shards kept on the local disk at the most; half of the disk they leave free where empty",
    )


class GuidanceConfig(Record):
    """Who guides a training that takes guidance."""

    vlm: VlmConfig | None = Field(None, description="a file of conf/vlm; the student's own frozen copy where empty")
    labels: Path | None = Field(
        None, description="folder of label maps KEY.png that guide in a model's place, 255 where unsure"
    )
    table_side: int | None = Field(
        None, ge=16, description="image side in pixels that the guide's position table is for; the crop where empty"
    )

    @model_validator(mode="after")
    def _one_guide(self) -> Self:
        if self.vlm and self.labels:
            raise ValueError("set vlm or labels: one of them guides")
        return self


class GateConfig(Record):
    """When a challenger replaces the champion."""

    margin: float = Field(0.0, ge=0, description="mIoU in points by which the challenger must be better")
    floor: float = Field(0.0, ge=0, le=100, description="mIoU that the first champion needs")


class Rule(Record):
    """One expectation that a snapshot is held to."""

    demand: str = Field(min_length=1, description="what must hold, in words that a message can begin with")
    table: Literal["samples", "classes", "pairs"] = Field("samples", description="see docs/validation.md")
    expectation: str = Field(description="name of a Great Expectations class, or of one of ours, without `Expect`")
    arguments: dict[str, Any] = Field(default_factory=dict, description="what the expectation takes")
    severity: Literal["critical", "warning"] = Field("critical", description="critical: a training is refused")


class Suite(Record):
    """The expectations that a snapshot must meet, by their codes."""

    rules: dict[Annotated[str, Field(pattern=r"^[A-Z]+[0-9]{3}$")], Rule] = Field(
        min_length=1, description="by code; codes of your own need a prefix of their own, such as FARM001"
    )

    @property
    def digest(self) -> str:
        """Sixteen hex digits of all rules, whatever their order."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:16]


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
    suite: Suite = Field(default_factory=load_suite)

    @property
    def registered_model(self) -> str:
        return self.model or f"semivl-{self.data.dataset}"

    def digest(self, *parts: str) -> str:
        """Sixteen hex digits of the named parts of the experiment: the same settings, the same digest."""
        chosen = self.model_dump(mode="json", include=set(parts))
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
    return check(Config, OmegaConf.to_container(whole, resolve=True), f"experiment {experiment}")


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
