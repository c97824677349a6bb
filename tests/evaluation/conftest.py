"""Models small enough to know their answer, and a snapshot to score them on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from semivl.config import ClassDefinition, Classes, DataConfig, EvaluationConfig
from semivl.data.cache import ShardCache
from semivl.data.ingest import ingest
from semivl.data.snapshot import Snapshot, read
from semivl.data.store import Store

NAMES = ("ground", "red", "green", "blue", "unicorn")


def classes_of(*names: str) -> Classes:
    return Classes(classes=tuple(ClassDefinition(name=n) for n in names))  # pyright: ignore[reportCallIssue]


class ColourPredictor:
    """Says of every pixel by itself which colour it has: a model without a receptive field."""

    classes = classes_of(*NAMES)
    evaluation = EvaluationConfig(window=32, stride=20)  # pyright: ignore[reportCallIssue]
    device = torch.device("cpu")
    model_bytes = 12

    def logits(self, images: Tensor) -> Tensor:
        red, green, blue = images.unbind(1)
        return torch.stack([torch.full_like(red, 0.5), red, green, blue, torch.full_like(red, -1.0)], 1)


@pytest.fixture
def predictor() -> ColourPredictor:
    return ColourPredictor()


@pytest.fixture
def snapshot(store: Store, tmp_path: Path) -> Snapshot:
    """Twelve evaluation images of noisy colours with masks that are right in most places, 255 in some."""
    random = np.random.default_rng(7)
    source = tmp_path / "source"
    for folder in ("images", "masks"):
        (source / folder).mkdir(parents=True)
    for number in range(13):
        height, width = int(random.integers(30, 70)), int(random.integers(30, 70))
        truth = np.kron(random.integers(0, 4, (7, 7)), np.ones((10, 10), int))[:height, :width].astype(np.uint8)
        colours = np.array([[40, 40, 40], [220, 0, 0], [0, 220, 0], [0, 0, 220]], np.uint8)
        photo = colours[np.where(random.random(truth.shape) < 0.15, random.integers(0, 4, truth.shape), truth)]
        truth[random.random(truth.shape) < 0.1] = 255
        Image.fromarray(photo).save(source / "images" / f"{number:02}.png")
        Image.fromarray(truth).save(source / "masks" / f"{number:02}.png")
    (source / "val.txt").write_text("".join(f"{n:02}\n" for n in range(1, 13)))
    config = DataConfig(dataset="colours", source=source, evaluation_list="val.txt")  # pyright: ignore[reportCallIssue]
    manifest = ingest(config, classes_of(*NAMES))
    return read(store, "colours", manifest.version)


@pytest.fixture
def cache(store: Store, tmp_path: Path) -> ShardCache:
    return ShardCache(store, "colours", tmp_path / "shards")
