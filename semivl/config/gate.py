"""When a challenger replaces the champion: conf/gate. docs/gate.md explains every rule."""

import hashlib
import json
from typing import Literal

from pydantic import Field

from semivl.config.record import Record


class GateConfig(Record):
    """When a challenger replaces the champion."""

    margin: float = Field(
        0.0, ge=0, le=100, description="mIoU in points that the lower bound of the challenger's lead must exceed"
    )
    confidence: float = Field(
        0.95, ge=0.5, lt=1, description="of that bound, one-sided; 0.5: the lead itself counts, chance or not"
    )
    floor: float = Field(0.0, ge=0, le=100, description="mIoU that the first champion needs")
    class_floors: dict[str, float] = Field(
        default_factory=dict, description="IoU by class name that a champion needs, unless the one before lacked it too"
    )
    class_drop: float = Field(5.0, ge=0, le=100, description="IoU in points that a class may fall by")
    ece_max: float | None = Field(None, ge=0, le=100, description="calibration error in points; any where empty")
    ece_rise: float | None = Field(5.0, ge=0, description="points by which the calibration error may rise")
    latency_max: float | None = Field(None, gt=0, description="milliseconds an image; any where empty")
    latency_ratio: float | None = Field(
        1.5, gt=0, description="of the challenger's time for an image to the champion's"
    )
    size_max: float | None = Field(None, gt=0, description="MiB of the model's files; any where empty")
    size_ratio: float | None = Field(2.0, gt=0, description="of the challenger's size to the champion's")
    near_bits: int = Field(
        4, ge=0, le=16, description="bits of the perceptual hash in which two pictures of the same thing may differ"
    )
    unknown_lineage: Literal["refuse", "accept"] = Field(
        "refuse", description="where it cannot be known any more what a model was trained on"
    )
    evaluation_snapshot: str = Field(
        "", description="version whose evaluation images count; the frozen set of the model where empty"
    )
    evaluation_digest: str = Field(
        "", pattern="^([0-9a-f]{16})?$", description="refuse any other evaluation images than those of this digest"
    )
    approval: Literal["none", "person"] = Field("none", description="person: one must approve on Prefect's page")
    approval_hours: float = Field(72.0, gt=0, le=720, description="after which a challenger is refused unapproved")

    @property
    def digest(self) -> str:
        """Eight hex digits of all settings: under other rules a challenger is decided on anew."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:8]
