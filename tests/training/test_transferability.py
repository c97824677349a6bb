"""Leave-one-class-out estimates of a label net, on a made snapshot in the shard cache (spec transfer.md, 7)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from semivl.cli import app
from semivl.config import ClassDefinition, Classes, Config, EvaluationConfig, load
from semivl.data.cache import ShardCache
from semivl.data.decode import decode_mask
from semivl.data.manifest import Manifest
from semivl.data.snapshot import Snapshot
from semivl.data.tables import index_table
from semivl.errors import ConfigError, TrainingError
from semivl.nets.label_net import Foreground
from semivl.training.transferability import Transferability, foreground_iou, parted, transferability
from tests.made_shards import encoded, shard

NAMES = ("background", "red", "green", "blue")
CLASSES = Classes(classes=tuple(ClassDefinition(name=name) for name in NAMES))
COLOURS = {1: (230, 20, 20), 2: (20, 230, 20), 3: (20, 20, 230)}
SIDE = 48


def scene(seed: int, shown: tuple[int, ...]) -> tuple[bytes, bytes]:
    """Bright squares with a badge in the class's colour on grey noise, as PNG bytes, and their mask."""
    random = np.random.default_rng(seed)
    photo = random.integers(90, 120, (SIDE, SIDE, 3)).astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for place, number in enumerate(shown):
        top, left = random.integers(2, 28), 2 + 24 * place
        photo[top : top + 18, left : left + 18] = 235
        photo[top + 6 : top + 12, left + 6 : left + 12] = COLOURS[number]
        mask[top : top + 18, left : left + 18] = number
    return encoded(photo, "PNG"), encoded(mask, "PNG")


def made(folder: Path, shown: list[tuple[int, ...]]) -> tuple[Snapshot, ShardCache]:
    """A snapshot of such scenes, its shard where a cache looks first: no store is asked."""
    body, rows = shard([scene(seed, numbers) for seed, numbers in enumerate(shown)])
    (folder / f"{rows[0].shard}.tar").write_bytes(body)
    rows = [replace(row, pixels=tuple(int(n in (0, *numbers)) for n in range(4)))
            for row, numbers in zip(rows, shown, strict=True)]  # fmt: skip
    manifest = Manifest.model_construct(dataset="squares", version="0" * 16, classes=CLASSES)
    return Snapshot(manifest, index_table(rows)), ShardCache(None, "squares", folder, 1 << 30)  # pyright: ignore


def experiment(**train) -> Config:
    sizes = {"crop": 48, "short_side": 48, "scale": [1.0, 1.0], "backbone_multiplier": 1.0, "decoder_multiplier": 3.0}
    config = load("scenes-transfer", {"train": sizes | train, "evaluation": {"window": 48, "stride": 48}})
    return config.model_copy(update={"classes": CLASSES})


def test_a_label_net_finds_objects_of_a_class_that_it_never_saw(tmp_path):
    snapshot, cache = made(tmp_path, [(1,), (1,), (2,), (2,)])
    lines: list[str] = []
    found = transferability(experiment(steps=100, batch=2), snapshot, cache, lines.append, most_images=2)
    assert found.steps == 60 and not found.untested
    assert found.images == {"red": 2, "green": 2}
    assert found.mean > 60, found
    values = np.array(list(found.iou.values()))
    assert found.mean == pytest.approx(values.mean()) and found.spread == pytest.approx(values.std(ddof=1))
    assert "without green: 2 masks to learn from, 2 with it" in lines
    assert Transferability.model_validate_json(found.model_dump_json()) == found


def test_the_class_left_out_is_in_no_mask_that_is_learned_from(tmp_path):
    snapshot, _ = made(tmp_path, [(1, 2), (2, 3), (3,), (1,)])
    without, with_it = parted(snapshot.rows("train", "mask"), 2)
    assert [row.pixels[2] for row in without] == [0, 0] and [row.pixels[2] for row in with_it] == [1, 1]
    assert not {row.key for row in without} & {row.key for row in with_it}


def test_the_iou_counts_the_class_and_the_background_alone(tmp_path):
    snapshot, cache = made(tmp_path, [(1, 2), (1, 3)])

    class Left(torch.nn.Linear):
        """Takes the left half for objects."""

        background = 0

        def maps(self, images):
            return images

        def objects(self, images):
            logits = torch.full(images.shape[:1] + images.shape[2:], -9.0)
            logits[..., : images.shape[-1] // 2] = 9.0
            return Foreground(logits, images)

    rows = snapshot.rows("train", "mask")
    windows = EvaluationConfig(window=48, stride=48)  # pyright: ignore[reportCallIssue]
    masks = [decode_mask(scene(seed, numbers)[1]) for seed, numbers in enumerate([(1, 2), (1, 3)])]
    left = np.arange(SIDE)[None].repeat(SIDE, 0) < SIDE // 2
    both = sum(int((left & (m == 1)).sum()) for m in masks)
    either = sum(int(((left | (m == 1)) & np.isin(m, (0, 1))).sum()) for m in masks)
    found = foreground_iou(Left(1, 1), rows, 1, cache, windows)  # pyright: ignore[reportArgumentType]
    assert found == pytest.approx(100 * both / either)


def test_classes_that_every_mask_shows_cannot_be_left_out(tmp_path):
    snapshot, cache = made(tmp_path, [(1, 2), (2, 3), (2,)])
    found = transferability(experiment(steps=5, batch=2), snapshot, cache, lambda _: None, most_images=1)
    assert found.untested == {"green": "every mask shows it"} and set(found.iou) == {"red", "blue"}


def test_what_cannot_be_estimated_is_refused(tmp_path):
    snapshot, cache = made(tmp_path, [(1, 2), (2, 1)])
    with pytest.raises(TrainingError, match=r"TRAIN043.*red, green"):
        transferability(experiment(steps=5), snapshot, cache, lambda _: None)
    with pytest.raises(ConfigError, match=r"CONF062.*supervised"):
        transferability(load("demo-supervised"), snapshot, cache, lambda _: None)
    (tmp_path / "one").mkdir()
    snapshot, cache = made(tmp_path / "one", [(1,), (1,)])
    with pytest.raises(TrainingError, match="TRAIN040"):
        transferability(experiment(steps=5), snapshot, cache, lambda _: None)


def test_the_command_tells_progress_apart_from_json(own_home, monkeypatch):
    shards = own_home / "cache" / "shards"
    shards.mkdir(parents=True)
    snapshot, _ = made(shards, [(1,), (2,)])
    monkeypatch.setattr("semivl.data.store.open_store", lambda: None)
    monkeypatch.setattr("semivl.data.snapshot.read", lambda *_: snapshot)
    settings = ["-s", "train.steps=3", "-s", "train.crop=48", "-s", "train.short_side=48", "-s", "train.batch=1"]
    done = CliRunner().invoke(app, ["transferability", "scenes-transfer", "--json", "--images", "1", *settings])
    assert done.exit_code == 0, done.output
    found = Transferability.model_validate_json(done.stdout)
    assert set(found.iou) == {"red", "green"} and "without red: 1 masks to learn from, 1 with it" in done.stderr
    table = CliRunner().invoke(app, ["transferability", "scenes-transfer", "--images", "1", *settings]).stdout
    assert "foreground IoU" in table and f"mean {found.mean:.1f}, spread {found.spread:.1f}, 2 steps each" in table
