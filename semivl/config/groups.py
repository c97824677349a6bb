"""How a photo is divided into groups of alike patches, and how a prediction is refined by them."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from semivl.config.record import Record


class GroupConfig(Record):
    """Groups by the features of a frozen encoder (Zhang et al. 2023; docs/spatial-grouping.md)."""

    encoder: str = Field(
        "own",
        pattern=r"^(own|timm:.+)$",
        description="whose features tell groups apart: the model's own encoder, or timm's of that name (DINO, DINOv2)",
    )
    weights: Path | None = Field(None, description="file of the timm encoder's weights; timm's own where empty")
    block: int = Field(-1, description="block whose keys are the features; -1 is the last")
    side: int | None = Field(
        448, ge=16, description="short side in pixels that a photo is grouped at; its own where empty"
    )
    grouper: Literal["spectral", "kmeans", "agglomerative"] = Field("spectral", description="see docs")
    count: int = Field(12, ge=2, le=250, description="groups of a photo at the most")
    eigenvectors: int = Field(15, ge=1, description="spectral: smallest eigenvectors that tell groups apart")
    colour: float = Field(0.0, ge=0, description="spectral: weight of alike colours beside alike features")
    position: float = Field(0.3, ge=0, description="kmeans: weight of a patch's place beside its features")
    merge_above: float = Field(0.65, ge=-1, le=1, description="agglomerative: mean cosine down to which groups merge")
    smallest: float = Field(
        0.005, ge=0, lt=1, description="connected parts with a smaller share of the patches join a neighbour"
    )

    @model_validator(mode="after")
    def _weights_of_timm(self) -> Self:
        if self.weights and self.encoder == "own":
            raise ValueError("weights are a timm encoder's: set encoder to timm:NAME")
        return self


class RefineConfig(Record):
    """Evens a prediction out over groups of alike patches."""

    groups: GroupConfig = GroupConfig()  # pyright: ignore[reportCallIssue]
    weight: float = Field(1.0, ge=0, le=1, description="share of the group's mean; the rest is the pixel's own")
