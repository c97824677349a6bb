"""No point of a curve is lost or doubled, whatever happens to MLflow or to the training."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient

from semivl.registry.metrics import MetricBuffer
from semivl.registry.tracking import client, experiment_id


class Line:
    """A line to MLflow that can be cut."""

    def __init__(self, address: str) -> None:
        target = urlsplit(address)
        self.target, self.cut = (str(target.hostname), int(target.port or 80)), False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                if self.cut:
                    near.close()
                    continue
                far = socket.create_connection(self.target)
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (data := source.recv(65536)) and not self.cut:
                sink.sendall(data)
        source.close()
        sink.close()


@pytest.fixture
def line(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    made = Line(mlflow_server)
    yield made
    made.listener.close()


@pytest.fixture
def run(mlflow_server: str) -> str:
    return client().create_run(experiment_id()).info.run_id


def curve(run: str, name: str = "loss") -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in client().get_metric_history(run, name))


def test_points_wait_for_mlflow_to_come_back(line: Line, run: str, tmp_path: Path) -> None:
    buffer = MetricBuffer(MlflowClient(line.address), run, tmp_path / "journal")
    buffer.add(1, {"loss": 3.0})
    assert buffer.flush()
    line.cut = True
    buffer.add(2, {"loss": 2.0})
    assert not buffer.flush()
    buffer.add(3, {"loss": 1.0})
    assert not buffer.flush()
    assert curve(run) == [(1, 3.0)]
    line.cut = False
    assert buffer.flush()
    assert curve(run) == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert not (tmp_path / "journal").exists()


def test_points_that_were_not_sent_outlive_the_process(run: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    MetricBuffer(client(), run, journal).add(4, {"loss": 0.5, "rate": 0.1})
    with journal.open("a") as file:
        file.write('[["loss", 0.')  # the line that a kill cut
    assert curve(run) == []
    MetricBuffer(client(), run, journal)
    assert curve(run) == [(4, 0.5)] and curve(run, "rate") == [(4, 0.1)]


def test_a_batch_that_arrived_without_an_answer_is_not_doubled(run: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    buffer = MetricBuffer(client(), run, journal)
    buffer.add(1, {"loss": 2.0})
    kept = journal.read_text()
    assert buffer.flush()
    journal.write_text(kept)  # killed between MLflow's answer and the journal's end
    MetricBuffer(client(), run, journal).flush()
    assert curve(run) == [(1, 2.0)]


def test_steps_that_mlflow_has_are_passed_over(run: str, tmp_path: Path) -> None:
    first = MetricBuffer(client(), run, tmp_path / "a")
    for step in (2, 4, 6):
        first.add(step, {"loss": float(step)})
    first.flush()
    again = MetricBuffer(client(), run, tmp_path / "b")
    for step in (4, 6, 8):
        again.add(step, {"loss": -1.0})
    again.flush()
    assert curve(run) == [(2, 2.0), (4, 4.0), (6, 6.0), (8, -1.0)]


def test_thousands_of_points_go_in_a_few_calls(run: str, tmp_path: Path) -> None:
    buffer = MetricBuffer(client(), run, tmp_path / "journal")
    for step in range(1, 1201):
        buffer.add(step, {"loss": float(step), "rate": 1.0 / step})
    assert buffer.flush()
    assert [step for step, _ in curve(run)] == list(range(1, 1201))
