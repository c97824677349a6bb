"""What it costs to get through faults and to compare every byte: the store against plain boto3 calls, in one run.

    semivl up s3; python -m benchmarks.store

Eight objects of 64 MiB and a thousand gets of 20 kB, each way in turn, three times; medians. Plain boto3 compares
nothing when it gets; the store hashes what it got.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from semivl.data.store import Store, open_store

LARGE, SMALL, OBJECTS, GETS, PASSES = 64 << 20, 20_000, 8, 1000, 3
FOLDER = "benchmarks/store/"


def main() -> None:
    store = open_store()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "large"
        file.write_bytes(os.urandom(LARGE))
        store.put(f"{FOLDER}small", os.urandom(SMALL))
        print("| | store, s | boto3, s | ratio | store, CPU s | boto3, CPU s | ratio |\n|---|---|---|---|---|---|---|")
        for name, ours, plain in ways(store, file):
            passes = [(timed(ours), timed(plain)) for _ in range(PASSES)]
            cells = []
            for clock in range(2):
                own, other = (statistics.median(p[side][clock] for p in passes) for side in range(2))
                cells += [f"{own:.2f}", f"{other:.2f}", f"{own / other:.2f}"]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
    for key in list(store.list(FOLDER)):
        store.delete(key)


def ways(store: Store, file: Path) -> list[tuple[str, Callable[[], None], Callable[[], None]]]:
    """What is done, by the store and by boto3."""

    def key(n: int) -> str:
        return f"{FOLDER}{n}"

    def plain(n: int | str) -> dict[str, str]:
        return {"Bucket": store.bucket, "Key": f"{FOLDER}{n}"}

    def put_plain() -> None:
        for n in range(OBJECTS):
            with file.open("rb") as body:
                store.client.put_object(Body=body, **plain(n))

    def get_plain(name: int | str) -> bytes:
        return store.client.get_object(**plain(name))["Body"].read()

    def download_plain() -> None:
        for n in range(OBJECTS):
            with file.with_name("plain").open("wb") as down:
                for chunk in store.client.get_object(**plain(n))["Body"].iter_chunks(1 << 20):
                    down.write(chunk)

    each = range(OBJECTS)
    return [
        (f"put {OBJECTS} x 64 MiB", lambda: repeat(lambda n: store.put(key(n), file), each), put_plain),
        (f"get {OBJECTS} x 64 MiB", lambda: repeat(lambda n: store.get(key(n)), each), lambda: repeat(get_plain, each)),
        (
            f"download {OBJECTS} x 64 MiB",
            lambda: repeat(lambda n: store.download(key(n), file.with_name("ours")), each),
            download_plain,
        ),
        (
            f"{GETS} gets of 20 kB",
            lambda: repeat(lambda _: store.get(f"{FOLDER}small"), range(GETS)),
            lambda: repeat(lambda _: get_plain("small"), range(GETS)),
        ),
    ]


def repeat(action: Callable[[int], object], numbers: range) -> None:
    for n in numbers:
        action(n)


def timed(action: Callable[[], None]) -> tuple[float, float]:
    """Seconds of the clock and of this process' CPU."""
    wall, cpu = time.monotonic(), time.process_time()
    action()
    return time.monotonic() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
