"""Pictures in the report: small, and inside the page."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semivl.evaluation.overlay import mask_png

_SIDE = 480
"""longest side of a picture in the report, pixels"""


@dataclass(frozen=True)
class Example:
    """One evaluated image; photo (H, W, 3), truth and prediction (H, W), all uint8."""

    key: str
    source: str
    iou: float
    photo: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


def picture(name: str, photo: np.ndarray, masks: dict[str, np.ndarray]) -> dict[str, Any]:
    """What a template shows of an image: its name, the ratio of its sides, and data URIs of photo and masks.

    Args:
        photo: (H, W, 3) uint8.
        masks: (H, W) uint8 class ids by the name that the template has for them.
    """
    from PIL import Image

    height, width = photo.shape[:2]
    ratio = min(_SIDE / max(height, width), 1.0)
    size = (max(round(width * ratio), 1), max(round(height * ratio), 1))
    file = io.BytesIO()
    Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=82)
    small = {
        kind: np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)) for kind, mask in masks.items()
    }
    return {
        "name": Path(name).name,
        "ratio": f"{size[0]} / {size[1]}",
        "photo": _data_uri(file.getvalue(), "image/jpeg"),
    } | {kind: _data_uri(mask_png(mask), "image/png") for kind, mask in small.items()}


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
