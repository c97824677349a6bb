"""A dataset of a million samples: what its index costs, without a picture.

    python -m benchmarks.index                 # 1,000,000 rows; needs `semivl up`
    python -m benchmarks.index --rows 100000

Each line is a process of its own, so that the peak memory is that of the step alone. CPU seconds are those of all its
threads; wall seconds have the store's in them. What was written to the store is removed at the end.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from semivl.config import ClassDefinition, Classes, DataConfig
from semivl.data import history, quality, snapshot
from semivl.data.samples import Samples
from semivl.data.shards import ShardEntry, shard_key
from semivl.data.store import open_store
from semivl.data.stream import permutation, positions
from semivl.data.tables import as_index

pc: Any = pyarrow.compute
CLASSES = Classes(classes=tuple(ClassDefinition(name=f"class {n}") for n in range(21)))  # pyright: ignore[reportCallIssue]
SHARD = 500
STEPS = (
    "commit",
    "commit 1,000 more",
    "read",
    "validate",
    "diff",
    "rows by permutation",
    "permutation",
    "resume position",
)


@dataclass(frozen=True)
class Dataset:
    """The synthetic dataset, the same rows for the same seed: a tenth with masks, a fiftieth for evaluation."""

    name: str
    rows: int

    def commit(self, first: int, count: int) -> None:
        store, config = open_store(), DataConfig(dataset=self.name, source="nowhere")  # pyright: ignore
        table = synthetic(first, count)
        shards = table["shard"].unique().to_pylist()
        for sha256 in shards:
            store.put_if_absent(shard_key(self.name, sha256), b"x")
        entries = [ShardEntry(sha256=sha256, bytes=1, samples=SHARD) for sha256 in shards]
        tables = [table.slice(start, SHARD) for start in range(0, count, SHARD)]
        timed(lambda: snapshot.commit(store, config, CLASSES, tables, entries, []))

    def step(self, name: str) -> None:
        """Runs one step and prints what it took."""
        store = open_store()
        if name == "commit":
            self.commit(0, self.rows)
        elif name == "commit 1,000 more":
            self.commit(self.rows, 1000)
        elif name == "read":
            timed(lambda: snapshot.read(store, self.name))
        elif name == "validate":
            timed(lambda: quality.validate(store, snapshot.read(store, self.name)))
        elif name == "diff":
            versions = [manifest.version for manifest in history.log(store, self.name)]
            timed(lambda: history.diff(*(snapshot.read(store, self.name, v) for v in reversed(versions))))
        elif name == "rows by permutation":
            samples = Samples(snapshot.read(store, self.name).index)
            timed(lambda: sum(samples[place].image_bytes for place in permutation(len(samples), 0, 0).tolist()))
        elif name == "permutation":
            timed(lambda: permutation(self.rows, 0, 0))
        elif name == "resume position":
            timed(lambda: positions(10**6, 8, self.rows, 0))


def timed(action: Callable[[], object]) -> None:
    """Prints wall seconds, CPU seconds and the process' peak memory."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{wall:.2f} {cpu:.2f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f}")


def synthetic(first: int, count: int) -> pa.Table:
    """Rows as an ingest of real photos would give them, made as columns."""
    random = np.random.default_rng(first)
    sha256, masked = hashes(random, count, 32), random.random(count) < 0.1
    place = np.arange(count) % SHARD * 100_000
    pixels = random.integers(0, 60_000, (int(masked.sum()), len(CLASSES))) * (random.random((1, len(CLASSES))) < 0.2)
    edges = np.concatenate([[0], np.cumsum(masked * len(CLASSES))]).astype(np.int32)
    names = pc.cast(pa.array(np.arange(first, first + count)), pa.string())
    return as_index(
        pa.table(
            {
                "key": pc.utf8_slice_codeunits(sha256, 0, 16),
                "shard": hashes(random, count // SHARD + 1, 32).take(pa.array(np.arange(count) // SHARD)),
                "image_offset": place,
                "image_bytes": random.integers(50_000, 90_000, count),
                "mask_offset": pa.array(place + 90_000, mask=~masked),
                "mask_bytes": pa.array(random.integers(1_000, 5_000, count), mask=~masked),
                "sha256": sha256,
                "mask_sha256": pc.if_else(pa.array(masked), hashes(random, count, 32), None),
                "phash": hashes(random, count, 8),
                "width": np.full(count, 500),
                "height": np.full(count, 375),
                "orientation": np.ones(count, int),
                "split": pc.if_else(pa.array(masked & (random.random(count) < 0.2)), "val", "train"),
                "supervision": pc.if_else(pa.array(masked), "mask", "none"),
                "tags": pa.ListArray.from_arrays(np.zeros(count + 1, np.int32), pa.array([], pa.string())),
                "caption": pa.nulls(count, pa.string()),
                "pixels": pa.ListArray.from_arrays(edges, pa.array(pixels.ravel())),
                "ignored": random.integers(0, 9_000, count) * masked,
                "brightness": random.normal(110, 30, count).clip(0, 255).round(2),
                "source": pc.binary_join_element_wise("JPEGImages/", names, ".jpg", ""),
            }
        )
    )


def hashes(random: np.random.Generator, count: int, size: int) -> pa.StringArray:
    """Hex digests of so many bytes each."""
    edges = pa.py_buffer(np.arange(count + 1, dtype=np.int32) * (2 * size))
    return pa.StringArray.from_buffers(count, edges, pa.py_buffer(random.bytes(count * size).hex().encode()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--step", choices=STEPS, help="one of them, on the dataset that is there already")
    parser.add_argument("--dataset", default=f"bench-index-{time.time_ns()}")
    chosen = parser.parse_args()
    dataset = Dataset(chosen.dataset, chosen.rows)
    if chosen.step:
        dataset.step(chosen.step)
        return
    print(f"| {chosen.rows:,} rows | wall seconds | CPU seconds | peak GB |\n|---|---|---|---|")
    store = open_store()
    try:
        for step in STEPS:
            command = [sys.executable, "-m", "benchmarks.index", "--step", step, "--dataset", dataset.name]
            took = subprocess.check_output([*command, "--rows", str(dataset.rows)], text=True).split()
            print(f"| {step} | {' | '.join(took)} |", flush=True)
        manifest = snapshot.read_manifest(store, dataset.name)
        size = store.size(snapshot.snapshot_key(dataset.name, manifest.version, "index.parquet")) or 0
        print(f"\nindex.parquet of {manifest.samples:,} rows: {size / 1e6:.1f} MB in {len(manifest.shards):,} shards")
    finally:
        for key in list(store.list(f"datasets/{dataset.name}/")):
            store.delete(key)


if __name__ == "__main__":
    main()
