"""Shards of small pictures, put into a store without an ingest."""

import hashlib
import io
import tarfile
from collections.abc import Sequence

import numpy as np
from PIL import Image

from semivl.data.sample import Row
from semivl.data.shards import shard_key
from semivl.data.store import Store


def picture(seed: int, width: int = 48, height: int = 32, smooth: bool = True) -> bytes:
    """A JPEG; of noise, and so of some size, where it is not smooth."""
    random = np.random.default_rng(seed)
    if not smooth:
        return encoded(random.integers(0, 256, (height, width, 3), dtype=np.uint8), "JPEG")
    small = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return encoded(np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)), "JPEG")


def mask(seed: int, width: int = 48, height: int = 32) -> bytes:
    """A PNG of two classes and a border to ignore."""
    ids = np.zeros((height, width), np.uint8)
    ids[:, width // 2 + seed % 5 :], ids[0] = 1, 255
    return encoded(ids, "PNG")


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def shard(samples: Sequence[tuple[bytes, bytes | None]]) -> tuple[bytes, list[Row]]:
    """The tar of the samples, and their rows."""
    file = io.BytesIO()
    places = []
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (image, ids) in enumerate(samples):
            places.append([_added(tar, f"{number:08}.{kind}", data) for kind, data in (("jpg", image), ("png", ids))])
    body = file.getvalue()
    name = hashlib.sha256(body).hexdigest()
    return body, [_row(name, *sample, *place) for sample, place in zip(samples, places, strict=True)]


def put_shards(store: Store, dataset: str, samples: Sequence[tuple[bytes, bytes | None]], in_a_shard: int) -> list[Row]:
    """Puts shards of that many samples; the rows, in the order of the samples."""
    rows: list[Row] = []
    for start in range(0, len(samples), in_a_shard):
        body, added = shard(samples[start : start + in_a_shard])
        store.put(shard_key(dataset, added[0].shard), body)
        rows += added
    return rows


def _added(tar: tarfile.TarFile, name: str, data: bytes | None) -> int | None:
    if data is None:
        return None
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
    return tar.offset - -(-len(data) // 512) * 512


def _row(name: str, image: bytes, ids: bytes | None, image_offset: int | None, mask_offset: int | None) -> Row:
    assert image_offset is not None
    digest = hashlib.sha256(image).hexdigest()
    width, height = Image.open(io.BytesIO(image)).size
    return Row(
        key=digest[:16], shard=name, image_offset=image_offset, image_bytes=len(image), mask_offset=mask_offset,
        mask_bytes=len(ids) if ids else None, sha256=digest,
        mask_sha256=hashlib.sha256(ids).hexdigest() if ids else None, phash="0" * 16, width=width, height=height,
        orientation=1, split="train", supervision="mask" if ids else "none", tags=(), tags_complete=False,
        caption=None, pixels=(), ignored=0, brightness=0.0, source=f"{digest[:16]}.jpg",
    )  # fmt: skip
