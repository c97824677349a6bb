"""Two processes of torchrun train as one does, and none of them outlives its training, however that ends."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from semivl.training.checkpoint import newest_whole, step_of
from tests.training.launches import family, losses, small, training, wait_for_step

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ENDLESS = 1_000_000
TWO = {"launch": "torchrun", "processes": 2}


def ranks_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that train, by rank."""
    found = [p for p in family(process) if "RANK" in p.environ() and "semivl.training.rank" in p.cmdline()]
    return sorted(found, key=lambda p: int(p.environ()["RANK"]))


def ends(given: dict, folder: Path, status: int = 0) -> str:
    """Runs the training to its end; its words."""
    with training(given, folder) as process:
        words = process.communicate(timeout=300)[1]
        assert process.returncode == status, words[-3000:]
        assert not family(process)
    return words


def nothing_left(process: subprocess.Popen[str], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while family(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not family(process)


def alone(given: dict) -> dict:
    """The same training in one process."""
    return given | {"overrides": given["overrides"] | {"compute": {"device": "cpu", "threads": 1}}}


def forget_checkpoints(store) -> None:
    for key in list(store.list("checkpoints/")):
        store.delete(key)


def test_two_processes_learn_what_one_does(store, tmp_path):
    given = small(8, "demo", **TWO)
    two, one = tmp_path / "two", tmp_path / "one"
    for folder, parameters in ((two, given), (one, alone(given))):
        folder.mkdir()
        ends(parameters, folder)
        assert (folder / "model" / "model.json").is_file()
        forget_checkpoints(store)
    assert losses(two) == pytest.approx(losses(one), rel=1e-5) and len(losses(one)) == 8


def test_sigterm_leaves_a_checkpoint_of_the_group_and_nothing_else(store, tmp_path):
    given = small(ENDLESS, **TWO)
    with training(given, tmp_path) as process:
        wait_for_step(process, tmp_path, 3)
        asked = time.time()
        process.send_signal(signal.SIGTERM)
        words = process.communicate(timeout=60)[1]
        assert nothing_left(process, 5)
    assert process.returncode == 75 and "TRAIN050" in words, words[-3000:]
    found = newest_whole(tmp_path)
    assert found and step_of(found) >= max(losses(tmp_path))
    assert 0 < found.stat().st_mtime - asked < 10
    assert f"{step_of(found)} steps are kept" in words


def test_ranks_end_with_the_process_that_launched_them(store, tmp_path):
    with training(small(ENDLESS, **TWO), tmp_path) as process:
        wait_for_step(process, tmp_path, 1)
        assert len(ranks_of(process)) == 2
        process.kill()
        process.wait()
        assert nothing_left(process, 20)


def test_killed_rank_ends_the_group_with_a_clear_error(store, tmp_path):
    with training(small(ENDLESS, **TWO), tmp_path) as process:
        wait_for_step(process, tmp_path, 1)
        os.kill(ranks_of(process)[1].pid, signal.SIGKILL)
        words = process.communicate(timeout=120)[1]
        assert not family(process)
    assert process.returncode == 1 and "TRAIN052 a process of the training died" in words, words[-3000:]


def test_stopped_rank_is_found_and_the_group_goes_on_from_the_last_checkpoint(store, tmp_path):
    given = small(30, **TWO, heartbeat_seconds=10, restarts=1)
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    unbroken.mkdir()
    ends(given, unbroken)
    forget_checkpoints(store)
    broken.mkdir()
    with training(given, broken) as process:
        wait_for_step(process, broken, 6)  # a checkpoint is kept after 5
        os.kill(ranks_of(process)[1].pid, signal.SIGSTOP)
        words = process.communicate(timeout=300)[1]
        assert not family(process)
    assert process.returncode == 0, words[-3000:]
    assert losses(broken) == losses(unbroken) and len(losses(broken)) == 30  # on as many ranks, to the last bit


def test_hung_group_without_restarts_ends_with_where_it_stood(store, tmp_path):
    with training(small(ENDLESS, **TWO, heartbeat_seconds=10), tmp_path) as process:
        wait_for_step(process, tmp_path, 1)
        os.kill(ranks_of(process)[1].pid, signal.SIGSTOP)
        words = process.communicate(timeout=120)[1]
        assert not family(process)
    assert process.returncode == 1 and "TRAIN051 no step was finished for 10 s" in words, words[-3000:]
    assert "rank 0 stood at File" in words
