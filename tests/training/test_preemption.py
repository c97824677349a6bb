"""SIGTERM: the last finished step is kept within ten seconds, and the training goes on from there."""

import signal
import time

from semivl.training.checkpoint import newest_whole, step_of
from tests.training.launches import family, losses, small, training, wait_for_step

ENDLESS = 1_000_000


def test_sigterm_leaves_the_last_finished_step_within_ten_seconds(store, tmp_path):
    given = small(ENDLESS)
    given["overrides"]["train"]["checkpoint_every"] = ENDLESS - 1
    with training(given, tmp_path) as process:
        wait_for_step(process, tmp_path, 3)
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        seconds = time.monotonic() - asked
        words = process.stderr.read() if process.stderr else ""
    assert process.returncode == 75 and "TRAIN050" in words, words[-2000:]
    assert seconds < 10
    found = newest_whole(tmp_path)
    assert found and step_of(found) == max(losses(tmp_path))
    assert any(key.endswith(f"{found.name}/state.json") for key in store.list("checkpoints/"))
    assert f"{step_of(found)} steps are kept" in words
    assert not family(process)
