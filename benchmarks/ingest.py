"""An ingest with every check, against what the cores can decode at all and against writers that check nothing.

    semivl up
    python -m benchmarks.ingest                                   # made-up photos
    python -m benchmarks.ingest --source FOLDER --layout voc --lists splits/1464/labeled.txt splits/val.txt
    python -m benchmarks.ingest ... --python VENV/bin/python      # one that has litdata and mosaicml-streaming

The source is copied under `.semivl/`, without 100 of its photos at first: they come with the second ingest.
"""

import argparse
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from semivl.cli.common import show_table
from semivl.config import DataConfig, load
from semivl.data.ingest import ingest
from semivl.data.layouts import list_sources
from semivl.data.sample import Source
from semivl.data.source_files import open_source
from semivl.data.store import open_store
from semivl.services import processes
from semivl.services.embedded import S3
from semivl.settings import home

LATER = 100
PHOTOS = 1500
WRITERS = ("webdataset", "litdata", "streaming")
CORES = os.cpu_count() or 1
WARM = {"layout": "folder", "labelled_list": None, "evaluation_list": None}
"""a small ingest beforehand: imports and the start of the workers, which the bound does not count either"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="a folder of photos; made-up ones otherwise")
    parser.add_argument("--layout", default="folder")
    parser.add_argument("--lists", nargs=2, default=(None, None), help="labelled and evaluation list of the source")
    parser.add_argument("--classes", default="voc")
    parser.add_argument("--python", default=sys.executable, help="the one that has the writers to compare with")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=home(), prefix="bench-ingest-") as folder:
        run(chosen, Path(folder))


def run(chosen: argparse.Namespace, folder: Path) -> None:
    whole = chosen.source or made_up(folder / "made", PHOTOS)
    classes = load("voc-92").classes
    config = DataConfig.model_validate(
        {
            "dataset": f"bench-{int(time.time())}",
            "layout": chosen.layout,
            "source": folder / "source",
            "labelled_list": chosen.lists[0],
            "evaluation_list": chosen.lists[1],
        }
    )
    shutil.copytree(whole, folder / "source", copy_function=shutil.copy)
    sources = [s for s in list_sources(config, open_source(config)) if not s.masked]
    stems = {s.image.stem for s in sources[:: max(1, len(sources) // LATER)][:LATER]}
    files = [path for path in (folder / "source").rglob("*.*") if path.stem in stems]  # a mask that no list names, too
    later = [path.relative_to(folder / "source") for path in files]
    for path in later:
        (folder / "later" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "source" / path).rename(folder / "later" / path)
    present = list_sources(config, open_source(config))
    print(f"{len(present)} photos, {sum(s.masked for s in present)} masks, {CORES} cores")
    bound, decoding = decoded_at_all(folder / "source", present)
    small = made_up(folder / "small", 32)
    ingest(config.model_copy(update=WARM | {"dataset": f"{config.dataset}-warm", "source": small}), classes)
    first = measured(lambda: ingest(config, classes))
    for path in later:
        (folder / "later" / path).rename(folder / "source" / path)
    second = measured(lambda: ingest(config, classes))
    third = measured(lambda: ingest(config, classes))
    store = open_store()
    for key in list(store.list(f"datasets/{config.dataset}")):
        store.delete(key)
    rows = [
        row("decoded at all, every core, nothing else", bound, bound, decoding),
        row("first ingest", len(present) / first["seconds"], bound, first["cpu"], first["s3"], first["peak"]),
    ]
    for name in WRITERS:
        python = sys.executable if name == "webdataset" else chosen.python
        taken = written(python, name, folder / "source", present, folder)
        if taken:
            rows.append(row(f"{name} writes the same files", len(present) / taken[0], bound, taken[1]))
        else:
            rows.append({"": f"{name}: not installed"})
    show_table([{column: r.get(column, "") for column in rows[0]} for r in rows])
    show_table(
        [
            shares("first ingest", first, first),
            shares(f"second, {len(stems)} photos more", second, first),
            shares("third, nothing new", third, first),
        ]
    )


def row(
    name: str, rate: float, bound: float, cpu: float, s3: float | None = None, peak: float | None = None
) -> dict[str, str]:
    return {
        "": name,
        "photos/s": f"{rate:.0f}",
        "of the bound": f"{rate / bound:.2f}",
        "CPU s": f"{cpu:.2f}",
        "S3's CPU s": "" if s3 is None else f"{s3:.2f}",
        "peak MiB": "" if peak is None else f"{peak:.0f}",
    }


def shares(name: str, one: dict[str, float], first: dict[str, float]) -> dict[str, str]:
    return {
        "": name,
        "seconds": f"{one['seconds']:.2f}",
        "of the first": f"{one['seconds'] / first['seconds']:.3f}",
        "CPU s": f"{one['cpu']:.2f}",
        "S3's CPU s": f"{one['s3']:.2f}",
    }


def measured(work: Callable[[], Any]) -> dict[str, float]:
    """Wall seconds, CPU seconds and the peak of the resident memory, MiB, of this process and all below it; and the CPU
    seconds of the embedded S3, which works on the same cores."""
    process, done, peak = psutil.Process(), threading.Event(), [0]

    def watch() -> None:
        while not done.wait(0.2):
            total = 0
            for one in (process, *process.children(recursive=True)):
                with suppress(psutil.Error):
                    total += one.memory_info().rss
            peak[0] = max(peak[0], total)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    s3, cpu, since = s3_seconds(), cpu_seconds(), time.perf_counter()
    work()
    taken = {"seconds": time.perf_counter() - since, "cpu": cpu_seconds() - cpu, "s3": s3_seconds() - s3}
    done.set()
    watcher.join()
    return taken | {"peak": peak[0] / 2**20}


def cpu_seconds() -> float:
    """Of this process and of all below it, those that live included."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    gone = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = own.ru_utime + own.ru_stime + gone.ru_utime + gone.ru_stime
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            total += sum(child.cpu_times()[:2])
    return total


def s3_seconds() -> float:
    """CPU seconds of the embedded S3 so far; of another one nothing is known."""
    server = processes.running(S3)
    return sum(server.cpu_times()[:2]) if server else 0.0


def decoded_at_all(root: Path, sources: list[Source]) -> tuple[float, float]:
    """Photos a second, each with its mask, that all cores read and decode when they do nothing else; CPU seconds."""
    context = multiprocessing.get_context("spawn")
    parts = [sources[i::CORES] for i in range(CORES)]
    with context.Pool(CORES) as pool:
        pool.starmap(decode_all, [(root, part[:20]) for part in parts], chunksize=1)  # starts them and warms the disk
        since = time.perf_counter()
        cpu = sum(pool.starmap(decode_all, [(root, part) for part in parts], chunksize=1))
        return len(sources) / (time.perf_counter() - since), cpu


def decode_all(root: Path, sources: list[Source]) -> float:
    """CPU seconds that they took."""
    from semivl.data.decode import decode_image, decode_mask

    since = time.process_time()
    for source in sources:
        decode_image((root / source.image).read_bytes())
        if source.mask:
            decode_mask((root / source.mask).read_bytes())
    return time.process_time() - since


def written(python: str, writer: str, root: Path, sources: list[Source], folder: Path) -> tuple[float, float] | None:
    """Wall and CPU seconds that a writer takes for the same files on the local disk; None where it is not there."""
    listed = folder / "files.txt"
    listed.write_text("".join(f"{root / s.image}\t{root / s.mask if s.mask else ''}\n" for s in sources))
    command = [python, str(Path(__file__).with_name("writers.py")), writer, str(listed), str(folder / writer)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"{writer} failed", file=sys.stderr)
        return None
    seconds, cpu = done.stdout.split()[-2:]
    return float(seconds), float(cpu)


def made_up(folder: Path, count: int) -> Path:
    """Photos of 500 x 375 and masks for one in three, in the `folder` layout."""
    import numpy as np
    from PIL import Image

    for place in ("images", "masks"):
        (folder / place).mkdir(parents=True)
    random = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)).astype(int)
        noisy = np.clip(pixels + random.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / "images" / f"{i:05}.jpg", quality=90)
        if i % 3 == 0:
            ids = Image.fromarray(random.integers(0, 21, (6, 8), dtype=np.uint8))
            ids.resize((500, 375), Image.Resampling.NEAREST).save(folder / "masks" / f"{i:05}.png")
    return folder


if __name__ == "__main__":
    main()
