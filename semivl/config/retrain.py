"""When an experiment is trained again, from what, and for how long: the experiment's retrain (docs/retraining.md)."""

import re
from datetime import timedelta
from typing import Literal

from pydantic import Field, field_validator

from semivl.config.record import Record

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_INTERVAL = re.compile(r"(\d+)([smhd])")
_CRON_FIELDS = 5


class RetrainConfig(Record):
    """What `semivl-retrain` asks before it trains, and what `semivl schedule` sets up."""

    min_new: int = Field(
        1, ge=1, description="images, new or newly labelled since the last training, below which nothing is done"
    )
    start: Literal["fresh", "champion"] = Field(
        "fresh", description="weights that a retraining starts from: those of `vlm`, or the champion's"
    )
    schedule: str = Field(
        "", description="cron such as `0 3 * * *` (UTC), or interval such as 6h; `semivl schedule` sets it up"
    )
    overlap: Literal["queue", "cancel"] = Field(
        "queue", description="what becomes of a run that is due while another of the experiment is at work"
    )
    device_hours_a_week: float | None = Field(
        40, gt=0, description="hours of training that the model may take in any seven days; no bound where empty"
    )
    restarts: int = Field(3, ge=0, description="times in a row that a run whose process died is started again")

    @field_validator("schedule")
    @classmethod
    def _readable(cls, schedule: str) -> str:
        if schedule and interval_of(schedule) is None and len(schedule.split()) != _CRON_FIELDS:
            raise ValueError("write an interval such as 30m, 6h or 1d, or the five fields of a cron")
        return schedule


def interval_of(schedule: str) -> timedelta | None:
    """The interval that a schedule such as 6h means; None for a cron."""
    found = _INTERVAL.fullmatch(schedule.strip())
    length = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None
    return length or None
