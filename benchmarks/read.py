"""Raw samples read per CPU second, warm: offsets and pread against the readers of webdataset, litdata and mosaic.

    python -m benchmarks.read                               # ours and webdataset's
    python -m benchmarks.read --python ENV/bin/python       # an environment with litdata and mosaicml-streaming

All read the same images into memory, in one process; the fastest of three passes after a warm one, whose images are
compared by hash. Shuffled is what a training does: an exact permutation here, a shuffle of shards and within a buffer
or block elsewhere. As stored, shard after shard, is the others' fastest.
`uv pip install litdata mosaicml-streaming` makes that environment; in this one they would change what is installed.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import jpegs, readers

OTHERS, ORDERS = ("webdataset", "litdata", "streaming"), ("shuffled", "stored")
BATCH = 16
HERE = Path(__file__).parent


def ours(images: list[bytes], folder: Path) -> dict[str, readers.Result]:
    """By order. Shuffled is what a training does: the next of the permutation, its row, its bytes."""
    from semivl.data.cache import read_sample
    from semivl.data.stream import positions

    cache, rows = jpegs.cached(images, folder)

    def shuffled(epoch: int) -> Iterator[bytes]:
        for step in range(epoch * len(rows) // BATCH, (epoch + 1) * len(rows) // BATCH):
            for place in positions(step, BATCH, len(rows), 0):
                yield read_sample(cache, rows[place])[0]

    def stored(_: int) -> Iterator[bytes]:
        return (read_sample(cache, row)[0] for row in rows)

    return {"shuffled": readers.measured(shuffled), "stored": readers.measured(stored)}


def others(name: str, python: str, listed: Path, folder: Path, tars: Path) -> dict[str, readers.Result]:
    """Another reader's results by order, each in a process of its own; none where that Python has no such package."""
    if subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False).returncode:
        return {}
    if name == "webdataset":
        folder = tars
    else:
        _run(python, HERE / "writers.py", name, listed, folder)
    return {
        order: readers.Result(**json.loads(_run(python, HERE / "readers.py", name, order, folder))) for order in ORDERS
    }


def _run(python: str, *arguments: object) -> str:
    ran = subprocess.run([python, *map(str, arguments)], capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"{' '.join(map(str, arguments))} failed:\n{ran.stderr}")
    return ran.stdout.splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of real JPEGs; made ones where empty")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--python", default=sys.executable, help="of the environment that has the other readers")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = jpegs.jpegs(a.images, a.photos)
        images = images[: len(images) // BATCH * BATCH]
        results = {"semivl": ours(images, folder / "shards")}
        listed = written(images, folder)
        for other in OTHERS:
            results[other] = others(other, a.python, listed, folder / other, folder / "shards")
    print(f"{os.cpu_count()} CPU cores, {platform.machine()}, one process; {jpegs.described(images)}")
    for order in ORDERS:
        report(order, {name: by_order.get(order) for name, by_order in results.items()})


def written(images: list[bytes], folder: Path) -> Path:
    """The images as files, and the list of them."""
    files = [folder / "images" / f"{number:06}.jpg" for number in range(len(images))]
    files[0].parent.mkdir()
    for path, image in zip(files, images, strict=True):
        path.write_bytes(image)
    listed = folder / "list.txt"
    listed.write_text("".join(f"{path}\n" for path in files))
    return listed


def report(order: str, results: dict[str, readers.Result | None]) -> None:
    """Prints the table; exits where a reader gave other bytes."""
    mine = results["semivl"]
    assert mine
    print(f"\n| {order} | version | samples per CPU second | us a sample | semivl is so many times as fast |")
    print("|---|---|---|---|---|")
    for name, result in results.items():
        if result is None:
            print(f"| {name} | not installed | | | |")
            continue
        if (result.samples, result.digest) != (mine.samples, mine.digest):
            sys.exit(f"{name} read other bytes: {result} instead of {mine}")
        speed = result.samples / result.seconds
        times = result.seconds / mine.seconds
        print(f"| {name} | {result.version} | {speed:,.0f} | {1e6 / speed:.1f} | {times:.2f} |")
    known = {name: result.seconds for name, result in results.items() if result}
    print(f"\nfirst of {len(known)}: {min(known, key=lambda name: known[name])}")


if __name__ == "__main__":
    main()
