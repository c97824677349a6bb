"""What benchmarks.label_next learns from: dense features of a frozen encoder and small masks, computed once and kept.

A photo is resized to a square, so that the features of all photos are one array, and so is its mask.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from semivl.config import VlmConfig
from semivl.data.decode import decode_image, decode_mask
from semivl.nets.aligned import load_encoder

SIDE = 224
"""pixels of the square that the encoder sees"""
TARGET = 64
"""side of the masks that a head learns from and is scored on"""
_BATCH, _PART = 8, 64


def features(source: Path, encoder: Path, names: Sequence[str], folder: Path) -> np.ndarray:
    """(n, D, h, w) float16 patch tokens of the named photos after the last norm. Parts that are there already stay."""
    folder.mkdir(parents=True, exist_ok=True)
    net = None
    parts = []
    for first in range(0, len(names), _PART):
        some = names[first : first + _PART]
        path = folder / f"{some[0]}-{len(some)}.npy"
        if not path.is_file():
            if net is None:
                net = load_encoder(encoder, VlmConfig(model="aligned:", skip_blocks=()), SIDE)[1]  # pyright: ignore[reportCallIssue]
            photos = torch.from_numpy(np.stack([_photo(source, name) for name in some])).permute(0, 3, 1, 2)
            with torch.inference_mode():
                last = len(net.blocks) - 1
                found = [net.outputs(batch.float() / 255, [last])[0] for batch in photos.split(_BATCH)]
            partial = path.with_suffix(".partial.npy")
            np.save(partial, torch.cat(found).half().numpy())
            partial.replace(path)
            print(f"features of {first + len(some)} of {len(names)} photos", flush=True)
        parts.append(np.load(path))
    return np.concatenate(parts)


def small_masks(source: Path, names: Sequence[str]) -> np.ndarray:
    """(n, TARGET, TARGET) uint8, the nearest pixel of each mask."""
    from PIL import Image

    size = (TARGET, TARGET)
    small = (Image.fromarray(_mask(source, name)).resize(size, Image.Resampling.NEAREST) for name in names)
    return np.stack([np.asarray(one) for one in small])


def listed(path: Path) -> list[str]:
    """Names of the photos in a list of VOC's splits."""
    return [Path(line.split()[0]).stem for line in path.read_text().splitlines() if line.strip()]


def _photo(source: Path, name: str) -> np.ndarray:
    from PIL import Image

    photo = decode_image((source / "JPEGImages" / f"{name}.jpg").read_bytes())
    return np.asarray(Image.fromarray(photo).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _mask(source: Path, name: str) -> np.ndarray:
    return decode_mask((source / "SegmentationClass" / f"{name}.png").read_bytes())
