"""The CLIP that ships with the repository: open_clip's own format, small, and better than chance on fresh scenes."""

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from omegaconf import OmegaConf

from benchmarks.tiny_clip import confident, dense_probabilities, fresh_scenes, iou, top_1
from semivl.config import CONF, Classes, VlmConfig, check

FOLDER = CONF / "vlm" / "tiny-clip"


def read(path: Path, model: Any) -> Any:
    return check(model, OmegaConf.to_container(OmegaConf.load(path)), path.stem)


@pytest.fixture(scope="module")
def classes() -> Classes:
    return read(CONF / "classes" / "scenes.yaml", Classes)


@pytest.fixture(scope="module")
def vlm() -> VlmConfig:
    return read(CONF / "vlm" / "tiny.yaml", VlmConfig)


def test_open_clip_loads_it_and_it_stays_small():
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{FOLDER}")
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) <= 8_000_000


def test_it_names_single_objects_far_above_chance(classes: Classes, vlm: VlmConfig):
    assert top_1(vlm, classes, fresh_scenes(80, objects=1)) > 40  # chance: 12.5


def test_its_dense_maps_find_objects_above_a_floor(classes: Classes, vlm: VlmConfig):
    scenes = fresh_scenes(40)
    masks = torch.from_numpy(np.stack([s.mask for s in scenes]))
    probabilities = dense_probabilities(vlm, classes, scenes)
    blank = torch.zeros_like(probabilities)
    blank[:, 0] = 1.0  # calling everything background
    assert iou(probabilities, masks).nanmean() > 1.5 * iou(blank, masks).nanmean()
    sure = confident(probabilities, masks, 0.9)
    assert sure.precision > 18
    assert sure.accuracy > 70
