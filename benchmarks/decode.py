"""Decoders of photos and masks, and the checks around them: images per CPU second, and whether pixels are Pillow's.

    python -m benchmarks.decode                              # made JPEGs of 500 x 375 and masks of as many pixels
    python -m benchmarks.decode FOLDER --count 300           # the first *.jpg and *.png below a folder

CPU seconds of all processes, the best of several turns in which every decoder has one, so that a busy machine slows
all of them alike. The pool's start is not counted; it is printed.
"""

import argparse
import io
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from benchmarks.jpegs import HEIGHT, WIDTH, described, jpegs
from semivl.config import ClassDefinition, Classes
from semivl.data.check_pool import CheckPool
from semivl.data.checks import Files, Limits, examine
from semivl.data.decode import decode_image, decode_mask
from semivl.data.sample import Source

TURNS = 5
CLASSES = Classes(classes=tuple(ClassDefinition(name=str(i)) for i in range(255)))  # pyright: ignore[reportCallIssue]
Decode = Callable[[bytes], np.ndarray]


def pillow(body: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))


def pillow_mask(body: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(body)))


def photo_decoders() -> dict[str, Decode]:
    """By name; those of libraries that are not installed are left out."""
    import simplejpeg

    found: dict[str, Decode] = {
        "Pillow": pillow,
        "semivl.data.decode": decode_image,
        "simplejpeg, exact": simplejpeg.decode_jpeg,
        "simplejpeg, fast": lambda body: simplejpeg.decode_jpeg(body, fastdct=True, fastupsample=True),
        "torchvision": torchvision(colours=True),
    }
    try:
        import cv2  # pyright: ignore[reportMissingImports]
    except ImportError:
        return found
    return found | {"cv2": lambda body: cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]}


def torchvision(colours: bool) -> Decode:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg, decode_png

    torch.set_num_threads(1)

    def decode(body: bytes) -> np.ndarray:
        data = torch.frombuffer(bytearray(body), dtype=torch.uint8)
        if colours:
            return torch.permute(decode_jpeg(data, ImageReadMode.RGB), (1, 2, 0)).numpy()  # pyright: ignore[reportArgumentType]
        return decode_png(data).squeeze(0).numpy()

    return decode


def made_masks(count: int) -> list[bytes]:
    """Palette PNGs of large regions, as masks are."""
    masks = []
    for number in range(count):
        small = np.random.default_rng(number).integers(0, 21, (6, 8), dtype=np.uint8)
        mask = Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
        mask.putpalette(bytes(768))
        file = io.BytesIO()
        mask.save(file, "PNG")
        masks.append(file.getvalue())
    return masks


def cpu_seconds() -> float:
    """Of this process and the children that run or ran."""
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    running = [process.cpu_times() for process in psutil.Process().children()]
    return sum(u.ru_utime + u.ru_stime for u in own) + sum(t.user + t.system for t in running)


def timed(work: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The least CPU seconds of each, taken in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(TURNS):
        for name, do in work.items():
            since = cpu_seconds()
            do()
            seconds[name].append(cpu_seconds() - since)
    return {name: min(each) for name, each in seconds.items()}


def compare(title: str, bodies: list[bytes], decoders: dict[str, Decode], reference: Decode) -> None:
    rounds = max(1, 600 // len(bodies))
    work = {n: lambda d=d: [d(body) for _ in range(rounds) for body in bodies] for n, d in decoders.items()}
    expected = [reference(body) for body in bodies]
    print(f"\n| {title} | images per CPU second | Pillow's pixels |\n|---|---|---|")
    for name, seconds in timed(work).items():
        equal = all(np.array_equal(decoders[name](body), e) for body, e in zip(bodies, expected, strict=True))
        print(f"| {name} | {rounds * len(bodies) / seconds:.0f} | {'yes' if equal else 'no'} |")


def checks(photos: list[bytes]) -> None:
    """All checks of a photo, beside its decoding alone: in this process, and in worker processes."""
    pairs = [(Source(Path(f"{i}.jpg"), "train"), Files(body, None)) for i, body in enumerate(photos)]
    rounds = max(1, 2000 // len(photos))
    with CheckPool(CLASSES, Limits(), 1, 1 << 30, 30.0) as pool:
        since, clock = cpu_seconds(), time.perf_counter()
        list(pool.examine(pairs[:1]))
        started = cpu_seconds() - since, time.perf_counter() - clock
        seconds = timed({
            "decode alone": lambda: [decode_image(body) for _ in range(rounds) for body in photos],
            "all checks in this process": lambda: [
                examine(source, files, CLASSES, Limits()) for _ in range(rounds) for source, files in pairs
            ],
            "all checks in a worker process": lambda: list(pool.examine(pairs * rounds)),
        })  # fmt: skip
    print("\n| photos | per CPU second |\n|---|---|")
    for name, each in seconds.items():
        print(f"| {name} | {rounds * len(photos) / each:.0f} |")
    alone, pooled = list(seconds.values())[1:]
    print(
        f"\nA worker process adds {pooled / alone - 1:.1%}; its start took {started[0]:.2f} CPU s, {started[1]:.2f} s."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=300)
    given = parser.parse_args()
    photos = jpegs(given.count, given.folder)
    masks = [p.read_bytes() for p in sorted(given.folder.rglob("*.png"))[: given.count]] if given.folder else []
    masks = masks or made_masks(given.count)
    print(described(photos))
    print(f"{len(masks)} masks, {statistics.mean(map(len, masks)) / 1000:.1f} kB on average")
    compare("photos", photos, photo_decoders(), pillow)
    mask_decoders = {
        "Pillow": pillow_mask,
        "semivl.data.decode": decode_mask,
        "torchvision": torchvision(colours=False),
    }
    compare("masks", masks, mask_decoders, pillow_mask)
    checks(photos)


if __name__ == "__main__":
    main()
