"""A process that finishes no step in time ends itself, and says where it stood."""

import subprocess
import sys
from pathlib import Path

from semivl.training.heartbeat import forget_hung, heartbeat, where_hung

SLEEPS = """
import sys, time
from pathlib import Path
from semivl.training.heartbeat import heartbeat

def forgets_to_go_on():
    time.sleep(600)

with heartbeat(float(sys.argv[2]), Path(sys.argv[1])) as beat:
    for step in range(5):
        time.sleep(float(sys.argv[2]) / 4)
        beat()
    if len(sys.argv) > 3:
        forgets_to_go_on()
"""


def run(folder: Path, *more: str) -> int:
    return subprocess.run([sys.executable, "-c", SLEEPS, str(folder), "2", *more], timeout=120).returncode


def test_a_process_that_sleeps_is_ended_and_says_where(tmp_path):
    assert run(tmp_path, "sleeps") == 1
    (words,) = where_hung(tmp_path)
    assert words.startswith("rank 0 stood at File") and "forgets_to_go_on" in words
    forget_hung(tmp_path)
    assert not where_hung(tmp_path)


def test_a_process_whose_steps_come_in_time_lives_on(tmp_path):
    assert run(tmp_path) == 0  # five steps take longer than one may
    assert not list(tmp_path.iterdir())


def test_without_a_limit_nothing_is_watched(tmp_path):
    with heartbeat(None, tmp_path) as beat:
        beat()
    assert not list(tmp_path.iterdir())
