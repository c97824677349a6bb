"""A training killed at twenty random moments ends as one that nobody touched: losses and weights, bit by bit."""

import json
import random
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from semivl.config import load
from semivl.data.ingest import ingest
from semivl.data.store import Store
from tests.loop import parameters

KILLS, STEPS = 20, 80
TRAIN = """
import json, os, random, signal, sys, time
from pathlib import Path
from semivl.config import load
from semivl.data.snapshot import read
from semivl.data.store import open_store
from semivl.training.trainer import train

given, folder, kills = json.loads(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
told = folder / "losses.jsonl"

class Writes:
    def samples(self, told) -> None: ...

    def metrics(self, step, values):
        with told.open("a") as file:
            file.write(json.dumps([step, values["train/total"].hex()]) + "\\n")

    def previews(self, step, images): ...

    def checkpoint(self, step, path): ...

    def artifact(self, path): ...

def attempt():
    config = load(given["experiment"], given["overrides"])
    store = open_store()
    train(config, read(store, config.data.dataset), store, folder, Writes())

def reached(step):
    lines = told.read_text().splitlines() if told.exists() else []
    return any(json.loads(line)[0] >= step for line in lines[-1:] if line.endswith("]"))

for step, wait in kills:
    child = os.fork()
    if not child:
        attempt()
        os._exit(3)
    while not reached(step):
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the training ended before it was killed"
        time.sleep(0.002)
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the training ended before it was killed"
attempt()
"""


def trained(folder: Path, given: dict, kills: list[tuple[int, float]]) -> tuple[dict[int, set[str]], bytes]:
    """All losses that were told of each step, and the finished weights."""
    folder.mkdir()
    command = [sys.executable, "-c", TRAIN, json.dumps(given), str(folder), json.dumps(kills)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    losses: dict[int, set[str]] = {}
    for line in (folder / "losses.jsonl").read_text().splitlines():
        step, loss = json.loads(line)
        losses.setdefault(step, set()).add(loss)
    return losses, (folder / "model" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_twenty_kills_at_random_steps_leave_losses_and_weights_as_they_are(store: Store, tmp_path):
    given = parameters(f"t-{uuid.uuid4().hex[:8]}", "demo", steps=STEPS)
    given["overrides"]["train"] |= {"checkpoint_every": 3, "log_every": 1}
    config = load(given["experiment"], given["overrides"])
    ingest(config.data, config.classes)
    seed = random.randrange(1 << 30)
    drawn = random.Random(seed)
    steps = sorted(drawn.sample(range(1, STEPS - 5), KILLS))
    kills = [(step, drawn.uniform(0, 0.1)) for step in steps]
    losses, weights = trained(tmp_path / "killed", given, kills)
    for key in list(store.list("checkpoints/")):
        store.delete(key)  # else the second training goes on from the first one's
    unbroken, expected = trained(tmp_path / "unbroken", given, [])
    assert losses == unbroken and set(losses) == set(range(1, STEPS + 1)), f"seed {seed}"
    assert all(len(told) == 1 for told in losses.values())
    assert weights == expected, f"seed {seed}"
