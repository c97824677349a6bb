"""Ingests that are killed, or run at once: nothing half is seen, nothing is lost, and the end is the same."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time

import pytest

from semivl.data import snapshot
from semivl.data.ingest import ingest
from semivl.data.shards import shard_key

INGEST = """
import sys
from semivl.config import Classes, DataConfig
from semivl.data.ingest import ingest
config, classes = DataConfig.model_validate_json(sys.argv[1]), Classes.model_validate_json(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
print(ingest(config, classes).version, flush=True)
"""


def started(config, classes, environment) -> subprocess.Popen:
    """A process that will ingest as soon as it gets a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", INGEST, config.model_dump_json(), classes.model_dump_json()],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def begin(process: subprocess.Popen) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_ingests_at_once_keep_both(config, classes, store, make, environment, tmp_path):
    both_are_kept(config, classes, store, make, environment, tmp_path)


@pytest.mark.slow
def test_two_ingests_at_once_keep_both_twenty_times(config, classes, store, make, environment, tmp_path):
    for i in range(20):
        named = config.model_copy(update={"dataset": f"{config.dataset}-{i}"})
        both_are_kept(named, classes, store, make, environment, tmp_path / str(i))


def both_are_kept(config, classes, store, make, environment, folder) -> None:
    other = make.source(folder / "other", labelled=3, evaluation=2, unlabelled=4, seed=7)
    both = [config, config.model_copy(update={"source": other})]
    processes = [started(c, classes, environment) for c in both]
    for process in processes:
        begin(process)
    versions = {process.communicate(timeout=120)[0].strip() for process in processes}
    found = snapshot.read(store, config.dataset)
    assert found.manifest.version in versions
    assert found.manifest.samples == 13 + 9
    assert found.manifest.parent in versions | {None}


def consistent(store, dataset) -> None:
    """Whatever can be seen is whole: manifest, index, and shards with every member in its place."""
    if snapshot.head(store, dataset) is None:
        return
    found = snapshot.read(store, dataset)
    members = {}
    for entry in found.manifest.shards:
        body = store.get(shard_key(dataset, entry.sha256))
        assert len(body) == entry.bytes
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            members |= {(entry.sha256, m.offset_data): m.size for m in tar}
    for row in found.rows():
        assert members[row.shard, row.image_offset] == row.image_bytes


@pytest.mark.slow
def test_ingest_killed_at_any_moment_shows_nothing_half(config, classes, store, make, environment, dataset):
    config = config.model_copy(
        update={"source": make.source(config.source.parent / "long", 60, 40, 300), "shard_samples": 20}
    )
    reference = config.model_copy(update={"dataset": f"{dataset}-whole"})
    whole = started(reference, classes, environment)
    began = time.monotonic()
    begin(whole)
    whole.communicate(timeout=120)
    duration = time.monotonic() - began
    visible = []
    for _ in range(50):
        process = started(config, classes, environment)
        begin(process)
        time.sleep(random.uniform(0, 1.1) * duration)
        process.send_signal(signal.SIGKILL)
        process.wait()
        consistent(store, dataset)
        visible.append(snapshot.head(store, dataset))
    final = ingest(config, classes)
    assert {v for v in visible if v} <= {final.version}
    expected = snapshot.read(store, reference.dataset)
    assert list(snapshot.read(store, dataset).rows()) == list(expected.rows())
    kept = set(store.list(f"datasets/{dataset}/shards/"))
    assert kept == {shard_key(dataset, e.sha256) for e in final.shards}


@pytest.mark.parametrize("last", ["shards/", "groups/", "index.parquet", "manifest.json", "HEAD", "ledgers/"])
def test_ingest_killed_after_each_kind_of_write(config, classes, store, environment, last):
    """Kills the process in the instant after a write of that kind, and looks at what can be seen."""
    killer = INGEST.replace(
        'print("ready"',
        "import os, signal\n"
        "from semivl.data.store import Store\n"
        "put = Store._put\n"
        "def killed(self, key, *rest):\n"
        "    put(self, key, *rest)\n"
        f"    if {last!r} in key:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return True\n"
        "Store._put = killed\n"
        'print("ready"',
    )
    process = subprocess.run(
        [sys.executable, "-c", killer, config.model_dump_json(), classes.model_dump_json()],
        env={**os.environ, **environment},
        input="\n",
        text=True,
        capture_output=True,
    )
    assert process.returncode == -signal.SIGKILL
    assert (snapshot.head(store, config.dataset) is not None) == (last in ("HEAD", "ledgers/"))
    consistent(store, config.dataset)
    manifest = ingest(config, classes)
    assert manifest.samples == 13
    consistent(store, config.dataset)
    snapshots = {key.split("/")[3] for key in store.list(f"datasets/{config.dataset}/snapshots/")}
    assert snapshots == {manifest.version}
    assert json.loads(store.get(f"datasets/{config.dataset}/HEAD")) == {"version": manifest.version}
