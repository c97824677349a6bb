"""What images are compared by: an embedding of the whole, and the classes that a model sees in it.

Both are kept in S3 under what they were made by, in parts of a few hundred images, by the images' keys. A key stands
for the image's bytes, so what is kept stays true, whatever snapshot holds the image; only new images are computed. A
part is named by its keys: two that compute the same write the same.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import Config
from semivl.data.cache import ShardCache, read_sample
from semivl.data.decode import decode_image
from semivl.data.sample import Row
from semivl.data.store import Store
from semivl.data.tables import from_parquet, to_parquet
from semivl.evaluation.scores import predicted_mask
from semivl.nets.encoder import Features
from semivl.nets.vlm import load_vlm, weights_digest

if TYPE_CHECKING:
    from semivl.training.bundle import Predictor

LONGEST = 224
"""pixels of the square that images are resized to before they are embedded; less where training crops are smaller"""
_PART, _BATCH = 256, 16
Compute = Callable[[Sequence[Row]], np.ndarray]
"""rows -> (n, D) float32"""


def kept(store: Store, digest: str, rows: Sequence[Row], compute: Compute) -> np.ndarray:
    """(n, D) float32, a line for each of the rows: what is kept of them, and what `compute` gives for the others."""
    known: dict[str, np.ndarray] = {}
    for place in store.list(f"features/{digest}/"):
        known |= _read(store.get(place))
    missing = [row for row in rows if row.key not in known]
    for first in range(0, len(missing), _PART):
        part = missing[first : first + _PART]
        values = compute(part).astype(np.float32)
        keys = [row.key for row in part]
        name = hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
        store.put_if_absent(f"features/{digest}/{name}.parquet", _written(keys, values))
        known |= dict(zip(keys, values, strict=True))
    return np.stack([known[row.key] for row in rows]) if rows else np.zeros((0, 0), np.float32)


def embedding_digest(config: Config) -> str:
    """What embeddings by the experiment's encoder are kept under."""
    said = f"{config.vlm.model_dump_json()} {weights_digest(config.vlm)} {_side(config)}"
    return f"embedding-{hashlib.sha256(said.encode()).hexdigest()[:16]}"


def embedding(config: Config, cache: ShardCache) -> Compute:
    """The embedding by the experiment's own encoder, as it was before any training.

    A trained encoder would know the images that it was trained on from others, and find a drift where there is none.
    """
    encoder: list[nn.Module] = []

    def compute(rows: Sequence[Row]) -> np.ndarray:
        if not encoder:  # nothing is loaded where all is kept
            encoder.append(load_vlm(config.vlm, config.classes, _side(config)).frozen_encoder())
        return embedded(encoder[0], np.stack([resized(_photo(cache, row), _side(config)) for row in rows]))

    return compute


@torch.inference_mode()
def embedded(encoder: nn.Module, images: np.ndarray) -> np.ndarray:
    """(n, D) float32, L2-normalised: the encoder's own embedding of the whole, else the mean of the patches'.

    Args:
        images: (n, S, S, 3) uint8.
    """
    own = getattr(encoder, "whole", None)

    def whole(batch: Tensor) -> Tensor:
        if own is not None:
            return own(batch)
        features: Features = encoder(batch)
        return F.normalize(features.dense.mean((2, 3)), dim=1)

    batches = torch.from_numpy(images).permute(0, 3, 1, 2).split(_BATCH)
    return torch.cat([whole(batch.float() / 255) for batch in batches]).numpy()


def shares(predictor: "Predictor", cache: ShardCache) -> Compute:
    """The share of an image that the model gives to each class, (n, N); a line sums to 1."""
    classes = len(predictor.classes)

    def compute(rows: Sequence[Row]) -> np.ndarray:
        masks = (predicted_mask(predictor, _photo(cache, row)) for row in rows)
        return np.stack([np.bincount(mask.ravel(), minlength=classes) / mask.size for mask in masks])

    return compute


def resized(photo: np.ndarray, side: int) -> np.ndarray:
    """(side, side, 3) uint8 of a photo (H, W, 3), low-passed where it is made smaller."""
    from PIL import Image

    return np.asarray(Image.fromarray(photo).resize((side, side), Image.Resampling.BILINEAR))


def _photo(cache: ShardCache, row: Row) -> np.ndarray:
    return decode_image(read_sample(cache, row)[0])


def _side(config: Config) -> int:
    return min(LONGEST, config.train.crop)


def _written(keys: list[str], values: np.ndarray) -> bytes:
    import pyarrow as pa

    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    return to_parquet(pa.table({"key": keys, "values": column}))


def _read(body: bytes) -> dict[str, np.ndarray]:
    table = from_parquet(body).combine_chunks()
    values = table["values"].combine_chunks()
    lines = values.flatten().to_numpy().reshape(len(table), -1)
    return dict(zip(table["key"].to_pylist(), lines, strict=True))
