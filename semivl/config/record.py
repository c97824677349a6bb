"""What all of conf/ is checked by."""

from pydantic import BaseModel, ConfigDict

IGNORE = 255
"""Mask value of pixels that nobody labelled: never learned from, never scored."""


class Record(BaseModel):
    """A frozen record that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
