"""JPEGs for the benchmarks of the stream: made ones of a photo's size, or real ones; and a shard cache that holds them.

No store is asked: the shards are written straight into the cache's folder.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from semivl.data.cache import ShardCache
from semivl.data.checks import Checked, Files
from semivl.data.sample import Row, key_of
from semivl.data.samples import Samples
from semivl.data.shards import write_shard
from semivl.data.store import Store
from semivl.data.tables import index_table
from semivl.settings import Settings

WIDTH, HEIGHT, QUALITY = 500, 375, 90
SHARD = 512


def jpegs(count: int, folder: Path | None) -> list[bytes]:
    """The first ones of a folder; made ones of about 70 kB where there is none."""
    if folder is None:
        return [_made(number) for number in range(count)]
    return [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))[:count]]


def _made(number: int) -> bytes:
    """Soft shapes with grain, which compress as photos do."""
    random = np.random.default_rng(number)
    small = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    soft = np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(np.int16)
    grain = random.normal(0, 8, (HEIGHT, WIDTH, 1)).astype(np.int16)
    file = io.BytesIO()
    Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def described(images: list[bytes]) -> str:
    size = Image.open(io.BytesIO(images[0])).size
    mean = sum(map(len, images)) / len(images) / 1000
    return f"{len(images)} JPEGs, the first {size[0]} x {size[1]}, {mean:.0f} kB on average"


def cached(images: list[bytes], folder: Path) -> tuple[ShardCache, Samples]:
    """A cache in `folder` that holds the images in shards, and their rows."""
    folder.mkdir(parents=True)
    rows: list[Row] = []
    for start in range(0, len(images), SHARD):
        written = folder / "next.tar"
        sha256, placed = write_shard([_checked(image) for image in images[start : start + SHARD]], written)
        written.rename(folder / f"{sha256}.tar")
        rows += placed
    return ShardCache(Store(Settings()), "bench", folder), Samples(index_table(rows))  # pyright: ignore[reportCallIssue]


def _checked(image: bytes) -> Checked:
    width, height = Image.open(io.BytesIO(image)).size
    row = Row(
        key=key_of(image), shard="", image_offset=0, image_bytes=len(image), mask_offset=None, mask_bytes=None,
        sha256=hashlib.sha256(image).hexdigest(), mask_sha256=None, phash="", width=width, height=height,
        orientation=1, split="train", supervision="none", tags=(), tags_complete=False, caption=None, pixels=(),
        ignored=0, brightness=0.0, source="",
    )  # fmt: skip
    return Checked(Files(image, None), "jpg", row)
