"""A guide's label maps, written once: what `guidance.labels` reads in place of running the guide in every step.

Worth it where the guide is slow, or sees more in a whole photo than in a crop.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from semivl.config import IGNORE, Record
from semivl.errors import ConfigError
from semivl.methods import as_planes
from semivl.methods.parts.guidance import GuidanceSettings, LanguageGuidance
from semivl.nets.vlm import DenseVLM

MADE_WITH = "made-with.txt"


class Written(Record):
    """What a folder of label maps amounts to."""

    photos: int
    """all of them, those included whose maps were there already"""
    labelled: float
    """share of their pixels that have a label"""


def write_labels(
    guide: DenseVLM,
    settings: GuidanceSettings,
    photos: Iterable[tuple[str, np.ndarray]],
    folder: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> Written:
    """Writes KEY.png, (H, W) class ids with 255 where the guide is unsure, for every (key, (H, W, 3) uint8 photo).

    Maps that are there already stay, so that a killed call goes on where it was; each appears whole or not at all.

    Raises:
        ConfigError: CONF027, the folder's maps are of another guide or of other settings.
    """
    teacher = LanguageGuidance(guide, settings)
    folder.mkdir(parents=True, exist_ok=True)
    _require_same(folder / MADE_WITH, teacher)
    photo_count = sure = pixels = 0
    for photo_count, (key, photo) in enumerate(photos, 1):
        path = folder / f"{key}.png"
        if not path.is_file():
            image = as_planes(photo)[None]
            labels = teacher(image, torch.zeros(1, *photo.shape[:2], dtype=torch.bool))
            partial = folder / f".{key}.{os.getpid()}"
            Image.fromarray(labels[0].byte().numpy()).save(partial, "PNG")
            partial.replace(path)
        labels = np.asarray(Image.open(path))
        sure, pixels = sure + int((labels != IGNORE).sum()), pixels + labels.size
        progress(photo_count)
    return Written(photos=photo_count, labelled=sure / max(1, pixels))


def _require_same(path: Path, teacher: LanguageGuidance) -> None:
    """Notes what the folder's maps are made with, or compares it with what is noted."""
    digest = hashlib.sha256(teacher.settings.model_dump_json(exclude={"form"}).encode())
    for tensor in teacher.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    if not path.is_file():
        path.write_text(digest.hexdigest())
    elif path.read_text() != digest.hexdigest():
        what = f"the label maps in {path.parent} were made with another guide or other settings."
        raise ConfigError("CONF027", what, "Give another folder, or empty this one.")
