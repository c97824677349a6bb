"""The small twin of benchmarks.load: submissions, workers and trainings at once, and nothing lost or doubled."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from benchmarks import load, load_flows, load_objects, load_trainings

pytestmark = pytest.mark.slow
SUBMISSIONS, WORKERS, TRAININGS, STEPS = 6, 3, 2, 60


def test_submissions_and_trainings_at_once_lose_and_double_nothing(services):
    overrides = load.dataset()
    with load_flows.workers(WORKERS - 1), ThreadPoolExecutor(1) as beside:
        telling = beside.submit(load_trainings.tell_together, TRAININGS, load.EXPERIMENT, overrides, STEPS, pause=0.02)
        found = load_flows.course(load_flows.submit(SUBMISSIONS, load.parameters(overrides)))
        told = telling.result()
    assert found.wrong == []
    assert len(found.completed) == len(found.running) == SUBMISSIONS
    assert [load_trainings.differences(one, load.EXPERIMENT, overrides, STEPS) for one in told] == [[]] * TRAININGS


def test_lost_point_and_changed_file_of_a_training_are_seen(services, monkeypatch):
    overrides = load.dataset() | {"train": {"steps": 777}}
    (told,) = load_trainings.tell_together(1, load.EXPERIMENT, overrides, 50, pause=0)
    assert load_trainings.differences(told, load.EXPERIMENT, overrides, 50) == []
    assert len(load_trainings.differences(told, load.EXPERIMENT, overrides, 51)) == load_trainings.METRICS
    (load.home() / "runs" / told.key / "trace.bin").write_bytes(b"other")
    assert load_trainings.differences(told, load.EXPERIMENT, overrides, 50) == ["training 0: trace.bin differs"]


def test_lost_and_strange_runs_are_seen(services):
    submitted = load_flows.submit(3, {}, timedelta(days=1))
    lost, twice = submitted[0], submitted[1]
    load_flows.call("DELETE", f"{services.prefect_api_url}/flow_runs/{lost.run}")
    wrong = load_flows.forget([lost, twice, twice])
    assert f"run {lost.run} is lost" in wrong
    assert f"run {twice.run} has 2 submissions" in wrong
    assert f"run {submitted[2].run} was not submitted" in wrong


def test_shards_come_back_as_they_were(services):
    shards = load_objects.shards(6, 100_000)
    moved = load_objects.move(3, shards)
    assert moved.wrong == [] and len(moved.puts) == len(moved.gets) == 6
