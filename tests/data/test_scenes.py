"""The demo's scenes: the same bytes for the same seed, masks and captions that agree, and no mask for pretraining."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from semivl.config import CONF, IGNORE, Classes, DataConfig, check
from semivl.data.scenes import Told, write_captioned, write_scenes
from semivl.data.scenes_compose import scene
from semivl.data.scenes_words import BACKGROUND_WORDS, NAMES, OBJECT_WORDS, SKY_WORDS, _plural
from semivl.errors import DataError

SIZE = 64


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def names_in(text: str) -> set[str]:
    words = f" {text} "
    return {
        n for n, spoken in OBJECT_WORDS.items() if any(f" {w} " in words or f" {_plural(w)} " in words for w in spoken)
    }


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_scenes(tmp_path / name, seed, 3, 4, 2, SIZE)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    assert all(a[name] != c[name] for name in a if name.startswith("images"))


def test_asking_for_more_keeps_the_earlier_images_and_for_fewer_drops_the_rest(tmp_path: Path):
    write_scenes(tmp_path, 1, 2, 3, 2, SIZE)
    before = digests(tmp_path)
    write_scenes(tmp_path, 1, 4, 6, 3, SIZE)
    larger = digests(tmp_path)
    pictures = [name for name in before if name.startswith(("images", "masks"))]
    assert all(larger[name] == before[name] for name in pictures)
    write_scenes(tmp_path, 1, 2, 3, 2, SIZE)
    assert digests(tmp_path) == before


def test_a_lost_image_is_drawn_again_as_it_was(tmp_path: Path):
    write_scenes(tmp_path, 1, 2, 2, 1, SIZE)
    before = digests(tmp_path)
    (tmp_path / "images" / "unlabelled-00001.jpg").unlink()
    write_scenes(tmp_path, 1, 2, 2, 1, SIZE)
    assert digests(tmp_path) == before


def test_folder_of_something_else_is_refused_and_untouched(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="DATA060"):
        write_scenes(tmp_path, 1, 1, 1, 1, SIZE)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_folder_of_another_seed_is_refused(tmp_path: Path):
    write_scenes(tmp_path, 1, 1, 1, 1, SIZE)
    with pytest.raises(DataError, match="DATA060"):
        write_scenes(tmp_path, 2, 1, 1, 1, SIZE)


def test_masks_are_palette_images_of_known_ids_for_labelled_and_evaluation_alone(tmp_path: Path):
    write_scenes(tmp_path, 1, 3, 3, 2, SIZE)
    listed = (tmp_path / "labelled.txt").read_text().split() + (tmp_path / "evaluation.txt").read_text().split()
    masks = sorted((tmp_path / "masks").iterdir())
    assert [m.stem for m in masks] == sorted(Path(name).stem for name in listed)
    for path in masks:
        mask = Image.open(path)
        assert (mask.mode, mask.size) == ("P", (SIZE, SIZE))
        assert set(np.unique(np.asarray(mask))) <= {*range(len(NAMES)), IGNORE}


def test_pretraining_folder_holds_images_and_captions_and_no_mask(tmp_path: Path):
    write_captioned(tmp_path, 1, 5, SIZE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["captions.jsonl", "images", "scenes.json"]
    entries = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert [set(e) for e in entries] == [{"image", "caption"}] * 5
    assert all((tmp_path / "images" / e["image"]).is_file() for e in entries)


def test_captions_name_only_what_can_be_seen_and_leave_some_of_it_out():
    scenes = [scene(3, "unlabelled", i, SIZE) for i in range(120)]
    named = [names_in(s.caption) for s in scenes]
    assert all(n and n <= set(s.objects) for n, s in zip(named, scenes, strict=True))
    left_out = sum(len(set(s.objects) - n) for n, s in zip(named, scenes, strict=True))
    assert 0.05 < left_out / sum(len(set(s.objects)) for s in scenes) < 0.25


def test_objects_that_can_be_seen_are_in_the_mask():
    scenes = [scene(3, "labelled", i, 128) for i in range(40)]
    assert all({NAMES.index(name) for name in s.objects} <= set(np.unique(s.mask)) for s in scenes)


def test_a_turn_of_eight_images_shows_every_class():
    first = {name for i in range(8) for name in scene(5, "labelled", i, SIZE).objects}
    assert len(first) >= 7  # one may be hidden behind another


def test_borders_are_ignored_and_thin():
    shares = [float((scene(3, "evaluation", i, 128).mask == IGNORE).mean()) for i in range(20)]
    assert all(0 < share < 0.12 for share in shares)


def test_class_map_of_the_demo_is_that_of_the_scenes():
    read = OmegaConf.to_container(OmegaConf.load(CONF / "classes" / "scenes.yaml"))
    classes = check(Classes, read, "classes/scenes")
    assert classes.names == NAMES
    grounds = [word for words in BACKGROUND_WORDS.values() for word in words]
    assert classes.classes[0].definitions == (*grounds, *SKY_WORDS)
    assert [c.definitions for c in classes.classes[1:]] == list(OBJECT_WORDS.values())


def test_demo_config_reads_what_write_scenes_writes(tmp_path: Path):
    config = check(DataConfig, OmegaConf.to_container(OmegaConf.load(CONF / "data" / "scenes.yaml")), "data/scenes")
    write_scenes(tmp_path, 1, 1, 1, 1, SIZE)
    assert config.layout == "folder"
    assert all((tmp_path / str(name)).is_file() for name in (config.labelled_list, config.evaluation_list))


def test_what_is_told_changes_no_picture_and_no_evaluation_mask(tmp_path: Path):
    write_scenes(tmp_path / "plain", 1, 4, 6, 3, SIZE)
    write_scenes(tmp_path / "told", 1, 4, 6, 3, SIZE, Told(mentioned=0.65, tags="all", masked=("cat", "car")))
    plain, told = digests(tmp_path / "plain"), digests(tmp_path / "told")
    same = [n for n in plain if n.startswith(("images", "masks/evaluation"))]
    assert [told[n] for n in same] == [plain[n] for n in same]
    assert told["captions.jsonl"] != plain["captions.jsonl"]


def test_training_masks_show_the_told_classes_alone_and_the_rest_is_ignored(tmp_path: Path):
    chosen = {"cat", "car", "mushroom"}
    write_scenes(tmp_path / "plain", 1, 8, 1, 1, SIZE)
    write_scenes(tmp_path / "told", 1, 8, 1, 1, SIZE, Told(masked=tuple(chosen)))
    kept = [0, *(NAMES.index(name) for name in chosen)]
    hidden = 0
    for index in range(8):
        whole, part = (
            np.asarray(Image.open(tmp_path / k / f"masks/labelled-{index:05d}.png")) for k in ("plain", "told")
        )
        assert np.array_equal(part, np.where(np.isin(whole, kept), whole, 255))
        hidden += int((part != whole).sum())
    assert hidden


def test_complete_tags_name_all_that_the_mask_shows_and_the_others_some(tmp_path: Path):
    for kind in ("all", "some"):
        write_scenes(tmp_path / kind, 1, 12, 1, 1, SIZE, Told(tags=kind))
    fewer = 0
    for index in range(12):
        mask = np.asarray(Image.open(tmp_path / f"all/masks/labelled-{index:05d}.png"))
        shown = {name for number, name in enumerate(NAMES) if number and (mask == number).any()}
        every, some = (tags(tmp_path / kind)[f"labelled-{index:05d}.jpg"] for kind in ("all", "some"))
        assert (set(every["tags"]), every["complete"]) == (shown, True)
        assert some["tags"] and set(some["tags"]) <= shown and "complete" not in some
        fewer += len(shown) - len(some["tags"])
    assert fewer > 0
    assert not [name for name in tags(tmp_path / "all") if name.startswith("evaluation")]


def tags(folder: Path) -> dict[str, dict]:
    return {entry["image"]: entry for entry in map(json.loads, (folder / "tags.jsonl").read_text().splitlines())}


def test_a_class_that_no_scene_shows_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"DATA061.*dog"):
        write_scenes(tmp_path, 1, 1, 1, 1, SIZE, Told(masked=("dog",)))
