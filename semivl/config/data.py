"""Where images come from, what their classes are, and what a snapshot of them must meet: conf/data, classes, suite."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from semivl.config.record import Record


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
    tags_complete: bool = Field(
        False,
        description="an image with tags holds no class that they do not name, unless its row has another word in a "
        "column `complete`; else they name some of what is there",
    )
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
