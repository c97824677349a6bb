"""Reads what another data set's writer wrote; benchmarks/read.py starts it. Nothing of semivl here, so that an
environment with that reader alone will do.

    python benchmarks/readers.py webdataset|litdata|streaming stored|shuffled FOLDER    # prints the result as JSON
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

PASSES = 3
PACKAGES = {"webdataset": "webdataset", "litdata": "litdata", "streaming": "mosaicml-streaming"}
Images = Iterator[bytes | memoryview]


@dataclass
class Result:
    """Of one pass over all samples."""

    samples: int
    seconds: float
    """of CPU, all threads together: the fastest pass"""
    digest: str
    """of the images' hashes, in no order"""
    version: str = ""


def measured(images: Callable[[int], Images]) -> Result:
    """`images(n)` gives all images for the n-th time. The first pass warms what there is to warm, and is hashed.

    A view of a mapped file is copied: before that, nothing was read.
    """
    hashes = [hashlib.sha256(image).digest() for image in images(0)]
    spent = []
    for number in range(1, PASSES + 1):
        since = time.process_time()
        read = sum(1 for image in images(number) if bytes(image))
        spent.append(time.process_time() - since)
        assert read == len(hashes)
    return Result(len(hashes), min(spent), hashlib.sha256(b"".join(sorted(hashes))).hexdigest())


def webdataset(folder: Path, shuffled: bool) -> Callable[[int], Images]:
    from webdataset.compat import WebDataset
    from webdataset.filters import shuffle

    tars = sorted(map(str, folder.glob("*.tar")))
    data = WebDataset(tars, shardshuffle=100 if shuffled else False)
    if shuffled:
        data.append(shuffle(1000))
    return lambda _: (sample["jpg"] for sample in data)


def litdata(folder: Path, shuffled: bool) -> Callable[[int], Images]:
    from litdata import StreamingDataset  # pyright: ignore[reportMissingImports]

    data = StreamingDataset(str(folder), shuffle=shuffled)
    return lambda _: (sample["image"] for sample in data)


def streaming(folder: Path, shuffled: bool) -> Callable[[int], Images]:
    from streaming import StreamingDataset  # pyright: ignore[reportMissingImports]

    data = StreamingDataset(local=str(folder), shuffle=shuffled, batch_size=1)
    return lambda _: (sample["image"] for sample in data)


def main() -> None:
    name, order, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    reader = {"webdataset": webdataset, "litdata": litdata, "streaming": streaming}[name]
    result = measured(reader(folder, order == "shuffled"))
    result.version = version(PACKAGES[name])
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
