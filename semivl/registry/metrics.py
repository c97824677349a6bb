"""Metrics on their way to MLflow: sent in batches, none lost, none sent twice.

A point is written to a journal on disk before it counts as taken, and leaves it once MLflow has the batch. So
neither an outage nor a kill loses a point. After a resume the steps that MLflow already has are passed over.
"""

import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_log = logging.getLogger(__name__)
_EVERY = 5.0
"""seconds between batches"""
_BATCH = 1000
"""points that MLflow takes in one call"""


class MetricBuffer:
    """The points of one run that MLflow has not got yet."""

    def __init__(self, client: "MlflowClient", run_id: str, journal: Path) -> None:
        self._client, self._run_id, self._journal = client, run_id, journal
        self._last = _last_steps(client, run_id)
        self._pending = [m for m in _read(journal) if m.step > self._last.get(m.key, -1)]
        for metric in self._pending:
            self._last[metric.key] = max(metric.step, self._last.get(metric.key, -1))
        self._sent_at = time.monotonic()
        if self._pending:
            self.flush()

    def add(self, step: int, values: dict[str, float]) -> None:
        """Takes the values that are new at this step; sends what waits every few seconds."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        fresh = [Metric(k, float(v), now, step) for k, v in values.items() if step > self._last.get(k, -1)]
        if not fresh:
            return
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        with self._journal.open("a") as file:
            file.write(json.dumps([[m.key, m.value, m.timestamp, m.step] for m in fresh]) + "\n")
        self._pending += fresh
        self._last.update(dict.fromkeys((m.key for m in fresh), step))
        if time.monotonic() - self._sent_at >= _EVERY:
            self.flush()

    def flush(self) -> bool:
        """Sends what waits; False, with a line in the log, where MLflow does not take it now."""
        self._sent_at = time.monotonic()
        try:
            while self._pending:
                self._client.log_batch(self._run_id, metrics=self._pending[:_BATCH])
                del self._pending[:_BATCH]
        except Exception as error:  # whatever the network or the server does: training goes on, points are kept
            _log.warning("MLflow took no metrics (%s); %d points wait in %s", error, len(self._pending), self._journal)
            return False
        self._journal.unlink(missing_ok=True)
        return True


def _read(journal: Path) -> list["Metric"]:
    from mlflow.entities import Metric

    points = []
    for line in journal.read_text().splitlines() if journal.is_file() else []:
        try:
            points += [Metric(*point) for point in json.loads(line)]
        except ValueError:  # the line that a kill cut; its step had not been taken yet
            break
    return points


def _last_steps(client: "MlflowClient", run_id: str) -> dict[str, int]:
    """The last step of each of the run's own metrics."""
    names = [name for name in client.get_run(run_id).data.metrics if not name.startswith("system/")]
    return {name: max(m.step for m in client.get_metric_history(run_id, name)) for name in names}
