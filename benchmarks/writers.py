"""Writes the files of a list with another data set's writer; benchmarks/ingest.py starts it. Nothing of semivl here, so
that an environment with that writer alone will do.

    python benchmarks/writers.py webdataset|litdata|streaming LIST OUTPUT      # prints wall and CPU seconds
"""

import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path


def samples(listed: Path) -> Iterator[tuple[str, bytes, bytes]]:
    """Name, image and mask (empty where there is none) of every line."""
    for line in listed.read_text().splitlines():
        image, _, mask = line.partition("\t")
        yield Path(image).stem, Path(image).read_bytes(), Path(mask).read_bytes() if mask else b""


def webdataset(listed: Path, output: Path) -> None:
    from webdataset.writer import ShardWriter

    output.mkdir()
    with ShardWriter(f"{output}/%06d.tar", maxcount=512, verbose=0) as writer:
        for name, image, mask in samples(listed):
            writer.write({"__key__": name, "jpg": image} | ({"mask.png": mask} if mask else {}))


def litdata(listed: Path, output: Path) -> None:
    from litdata.streaming.writer import BinaryWriter  # pyright: ignore[reportMissingImports]

    output.mkdir()
    writer = BinaryWriter(str(output), chunk_bytes="64MB")
    for i, (name, image, mask) in enumerate(samples(listed)):
        writer.add_item(i, {"name": name, "image": image, "mask": mask})
    writer.done()
    writer.merge()


def streaming(listed: Path, output: Path) -> None:
    from streaming import MDSWriter  # pyright: ignore[reportMissingImports]

    columns = {"name": "str", "image": "bytes", "mask": "bytes"}
    with MDSWriter(out=str(output), columns=columns) as writer:
        for name, image, mask in samples(listed):
            writer.write({"name": name, "image": image, "mask": mask})


def main() -> None:
    write = {"webdataset": webdataset, "litdata": litdata, "streaming": streaming}[sys.argv[1]]
    warm = Path(sys.argv[3] + "-warm.txt")
    warm.write_text("".join(f"{line}\n" for line in Path(sys.argv[2]).read_text().splitlines()[:3]))
    write(warm, Path(sys.argv[3] + "-warm"))  # the imports
    since, cpu = time.perf_counter(), time.process_time()
    write(Path(sys.argv[2]), Path(sys.argv[3]))
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(time.perf_counter() - since, time.process_time() - cpu + usage.ru_utime + usage.ru_stime)


if __name__ == "__main__":
    main()
