"""How new data are held against those that the champion learned from: the experiment's drift."""

from typing import Self

from pydantic import Field, model_validator

from semivl.config.record import Record

MOST_TESTS = 6
"""embedding, predicted classes, brightness, width, height, aspect"""


class DriftConfig(Record):
    """When new data count as drifted."""

    false_alarms: float = Field(
        0.01, gt=0, lt=1, description="share of comparisons that may tell of a drift where there is none, at the most"
    )
    permutations: int = Field(1999, ge=99, description="random divisions that each test compares with the real one")
    images: int = Field(500, ge=20, le=5000, description="images compared on each side, at the most")
    min_new: int = Field(30, ge=10, description="new images below which there is no verdict")

    @model_validator(mode="after")
    def _can_alarm(self) -> Self:
        needed = round(MOST_TESTS / self.false_alarms + 0.5) - 1
        if self.permutations < needed:
            raise ValueError(f"false_alarms {self.false_alarms:g} needs permutations of {needed} or more")
        if self.min_new > self.images:
            raise ValueError("min_new is more than images")
        return self
