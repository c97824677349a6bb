"""What learns, from whom, and how long: conf/vlm, conf/method, and the experiment's guidance and train."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, field_validator, model_validator

from semivl.config.record import Record


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


class GuidanceConfig(Record):
    """Who guides a training that takes guidance."""

    vlm: VlmConfig | None = Field(None, description="a file of conf/vlm; the student's own frozen copy where empty")
    model: str | None = Field(
        None,
        description="finished model that guides: NAME/VERSION or NAME@ALIAS of the registry, or a bundle's folder, "
        "relative to the checkout",
    )
    labels: Path | None = Field(
        None, description="folder of label maps KEY.png that guide in a model's place, 255 where unsure"
    )
    table_side: int | None = Field(
        None, ge=16, description="image side in pixels that the guide's position table is for; the crop where empty"
    )

    @model_validator(mode="after")
    def _one_guide(self) -> Self:
        if sum(one is not None for one in (self.vlm, self.model, self.labels)) > 1:
            raise ValueError("set one of vlm, model and labels: one of them guides")
        return self


class Parent(Record):
    """The model version that a training goes on from."""

    version: int = Field(ge=1)
    train_key: str = Field("", description="of the version's own training; looked up where empty")


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
    discriminator_multiplier: float = Field(
        1.0, ge=0, description="of a discriminator, where the method learns with one (transfer)"
    )
    weight_decay: float = Field(0.01, ge=0)
    decay: Literal["all", "matrices"] = Field("all", description="what decays; matrices: no biases, no norms")
    schedule: Literal["poly", "cosine"] = Field("poly", description="how the learning rate falls to 0")
    warmup: int = Field(0, ge=0, description="steps in which the learning rate rises to its height")
    clip: float | None = Field(None, gt=0, description="norm that gradients are cut to; none where empty")
    seed: int = 0
    parent: Parent | None = Field(
        None, description="version of the same model whose weights the training starts from; those of `vlm` where empty"
    )
    checkpoint_every: int = Field(100, ge=1, description="steps")
    log_every: int = Field(10, ge=1, description="steps between points of a metric's curve")
    preview_every: int = Field(100, ge=1, description="steps between overlays of the fixed validation images")

    @field_validator("scale")
    @classmethod
    def _ascending(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("the smaller one comes first")
        return scale

    @model_validator(mode="after")
    def _ends_warm(self) -> Self:
        if self.warmup >= self.steps:
            raise ValueError(f"a warmup of {self.warmup} steps leaves none of {self.steps}")
        return self
