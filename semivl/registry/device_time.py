"""How long a model's trainings have held their device, so that a week's budget can bound them.

Each training adds to its MLflow run a point every few seconds: the seconds since the point before, with the time of
day. A kill loses the seconds since the last point alone, and steps that are taken twice are counted twice.
"""

import logging
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from semivl.config import Config, Record
from semivl.registry.tracking import client, experiment_id

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_log = logging.getLogger(__name__)
METRIC = "device_seconds"
MODEL = "semivl.model"
WEEK = timedelta(days=7)
_EVERY = 10.0
"""seconds between points"""
_RUNS = 1000


class DeviceClock:
    """The seconds of one training. What MLflow does not take now it takes with the next point."""

    def __init__(self, mlflow: "MlflowClient", run_id: str) -> None:
        self._client, self._run_id = mlflow, run_id
        self._began = self._since = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the clock began."""
        return time.monotonic() - self._began

    def tick(self, every: float = _EVERY) -> None:
        """Adds a point where the last one is `every` seconds old."""
        now = time.monotonic()
        if now - self._since < every:
            return
        at = int(time.time() * 1000)
        try:
            self._client.log_metric(self._run_id, METRIC, now - self._since, timestamp=at, step=at // 1000)
            self._since = now
        except Exception as error:  # whatever the network or the server does: training goes on
            _log.warning("MLflow took no device time: %s", error)


class Used(Record):
    """What a model's trainings took of the last seven days' budget; hours."""

    hours: float
    budget: float | None
    room_at: datetime | None = None
    """when the first of it is a week old, where all is used"""

    @property
    def seconds_left(self) -> float | None:
        """Until the budget is used up; None where there is none."""
        return None if self.budget is None else (self.budget - self.hours) * 3600


def used(config: Config, now: datetime | None = None) -> Used:
    """The device time of the experiment's model in the seven days before `now`."""
    now = now or datetime.now(UTC)
    points = sorted(p for run in _runs(config.registered_model, now - WEEK) for p in _points(run, now - WEEK))
    hours, budget = sum(seconds for _, seconds in points) / 3600, config.retrain.device_hours_a_week
    if budget is None or hours < budget:
        return Used(hours=hours, budget=budget)
    rest, room = hours, now
    for at, seconds in points:
        rest, room = rest - seconds / 3600, at + WEEK
        if rest < budget:
            break
    return Used(hours=hours, budget=budget, room_at=room)


def _runs(model: str, since: datetime) -> list["Run"]:
    """The model's runs that were alive after `since`."""
    found = client().search_runs(
        [experiment_id()], f"tags.`{MODEL}` = '{model}'", max_results=_RUNS, order_by=["attributes.start_time DESC"]
    )
    oldest = since.timestamp() * 1000  # a run that goes on keeps the end of its former attempt
    return [r for r in found if r.info.status == "RUNNING" or not r.info.end_time or r.info.end_time >= oldest]


def _points(run: "Run", since: datetime) -> list[tuple[datetime, float]]:
    """When, and how many seconds, since then."""
    if METRIC not in run.data.metrics:
        return []
    history = client().get_metric_history(run.info.run_id, METRIC)
    points = [(datetime.fromtimestamp(m.timestamp / 1000, UTC), m.value) for m in history]
    return [(at, seconds) for at, seconds in points if at > since]
