"""Label maps of a guide, written once for `guidance.labels`."""

import numpy as np
import pytest
import torch
from PIL import Image

from semivl.config import IGNORE
from semivl.errors import ConfigError
from semivl.evaluation.labels import write_labels
from semivl.methods.parts.guidance import GuidanceSettings, LanguageGuidance
from tests.tiny import SIDE, tiny_vlm

SETTINGS = GuidanceSettings(threshold=0.95)  # pyright: ignore[reportCallIssue]


def photos(count: int = 3) -> list[tuple[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [(f"{i:016x}", random.integers(0, 256, (SIDE, SIDE + 8 * i, 3), dtype=np.uint8)) for i in range(count)]


def test_maps_hold_the_guides_labels_of_whole_photos(tmp_path):
    written = write_labels(tiny_vlm(), SETTINGS, photos(), tmp_path)
    teacher = LanguageGuidance(tiny_vlm(), SETTINGS)
    maps = []
    for key, photo in photos():
        image = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
        expected = teacher(image, torch.zeros(1, *photo.shape[:2], dtype=torch.bool))[0].numpy()
        maps.append(np.asarray(Image.open(tmp_path / f"{key}.png")))
        assert np.array_equal(maps[-1], expected)
    labelled = np.concatenate([m.ravel() != IGNORE for m in maps])
    assert 0 < labelled.mean() < 1
    assert (written.photos, written.labelled) == (3, labelled.mean())


def test_a_killed_call_goes_on_and_keeps_what_is_there(tmp_path):
    write_labels(tiny_vlm(), SETTINGS, photos(2), tmp_path)
    (tmp_path / f"{1:016x}.png").unlink()
    kept = (tmp_path / f"{0:016x}.png").stat().st_mtime_ns
    done = []
    assert write_labels(tiny_vlm(), SETTINGS, photos(), tmp_path, done.append).photos == 3
    assert (tmp_path / f"{0:016x}.png").stat().st_mtime_ns == kept
    assert done == [1, 2, 3]
    assert sorted(p.name for p in tmp_path.glob("*.png")) == [f"{i:016x}.png" for i in range(3)]


def test_maps_of_other_settings_are_not_taken_for_these(tmp_path):
    write_labels(tiny_vlm(), SETTINGS, photos(1), tmp_path)
    for guide, settings in ((tiny_vlm(seed=3), SETTINGS), (tiny_vlm(), GuidanceSettings(threshold=0.5))):  # pyright: ignore[reportCallIssue]
        with pytest.raises(ConfigError, match="CONF027"):
            write_labels(guide, settings, photos(1), tmp_path)
