"""Snapshots of small real pictures, committed to a store without an ingest."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from semivl.config import Classes, DataConfig
from semivl.data import snapshot
from semivl.data.checks import Quarantined
from semivl.data.phash import phash
from semivl.data.sample import Row
from semivl.data.shards import ShardEntry, shard_key
from semivl.data.snapshot import Snapshot
from semivl.data.store import Store
from semivl.data.tables import index_table
from tests.made_shards import picture

Sample = tuple[bytes, Row]


def sample(name: str, image: bytes, split: str = "train", mask: tuple[int, int, int] | None = None, **fields) -> Sample:
    """A picture and its row; `mask` gives the pixels of three classes, the rest being ignored."""
    opened = Image.open(io.BytesIO(image)).convert("RGB")
    grey = np.asarray(opened.convert("L"))
    digest = hashlib.sha256(image).hexdigest()
    known: dict[str, Any] = {
        "key": digest[:16], "shard": "", "image_offset": 0, "image_bytes": len(image), "mask_offset": None,
        "mask_bytes": None, "sha256": digest, "mask_sha256": "0" * 64 if mask else None, "phash": phash(grey),
        "width": opened.width, "height": opened.height, "orientation": 1, "split": split,
        "supervision": "mask" if mask else "none", "tags": (), "tags_complete": False, "caption": None,
        "pixels": mask or (), "ignored": opened.width * opened.height - sum(mask) if mask else 0,
        "brightness": round(float(grey.mean()), 2), "source": f"images/{name}.jpg",
    }  # fmt: skip
    return image, Row(**known | fields)


def samples(labelled: int = 4, evaluation: int = 3, unlabelled: int = 6, seed: int = 0) -> list[Sample]:
    """Pictures that do not look alike; masks show the first two of three classes."""
    mask = (700, 800, 0)
    return [
        *(sample(f"m{i:03}", picture(1000 * seed + i), mask=mask) for i in range(labelled)),
        *(sample(f"v{i:03}", picture(1000 * seed + 100 + i), "val", mask) for i in range(evaluation)),
        *(sample(f"u{i:03}", picture(1000 * seed + 500 + i)) for i in range(unlabelled)),
    ]


def grown(
    store: Store, dataset: str, classes: Classes, made: Sequence[Sample], left_out: Sequence[Quarantined] = ()
) -> Snapshot:
    """The dataset's snapshot with these samples added, their pictures in one object."""
    body = b"".join(image for image, _ in made)
    name = hashlib.sha256(body).hexdigest()
    store.put(shard_key(dataset, name), body)
    starts = np.cumsum([0, *(len(image) for image, _ in made)]).tolist()
    rows = [replace(row, shard=name, image_offset=start) for (_, row), start in zip(made, starts, strict=False)]
    config = DataConfig(dataset=dataset, source="nowhere")  # pyright: ignore[reportCallIssue, reportArgumentType]
    entry = ShardEntry(sha256=name, bytes=len(body), samples=len(rows))
    manifest = snapshot.commit(store, config, classes, [index_table(rows)], [entry], left_out)
    return snapshot.read(store, dataset, manifest.version)
