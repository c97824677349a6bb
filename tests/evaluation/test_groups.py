"""The bound of groups, counted by hand and against every labelling there is."""

import itertools
import re

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from semivl.cli import app
from semivl.config import ClassDefinition, Classes, load
from semivl.data.scenes import write_scenes
from semivl.errors import RegistryError
from semivl.evaluation.counting import confusion, mean_iou
from semivl.evaluation.groups import majority, measure_groups
from semivl.methods import create
from semivl.nets.vlm import load_vlm
from semivl.training.bundle import save_bundle

CLASSES = Classes(classes=tuple(ClassDefinition(name=n) for n in ("background", "cat", "dog")))


def photo(mask: np.ndarray) -> np.ndarray:
    return np.zeros((*mask.shape, 3), np.uint8)


def test_the_bound_is_that_counted_by_hand():
    mask = np.array([[0, 0, 1, 1], [0, 1, 1, 255]], np.uint8)
    groups = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1]])
    assert torch.equal(majority(groups, torch.from_numpy(mask).long(), 3), groups)
    found = measure_groups(lambda _: groups[None], CLASSES, [(photo(mask), mask)])
    assert (found.images, found.groups) == (1, 2.0)
    assert found.iou == {"background": pytest.approx(75.0), "cat": pytest.approx(75.0), "dog": None}
    assert found.bound == pytest.approx(75.0)


def test_groups_as_fine_as_the_mask_allow_everything_and_one_group_the_commonest_class_alone():
    mask = np.array([[0, 1, 2], [0, 1, 0]], np.uint8)
    every = torch.arange(6).view(1, 2, 3)
    assert measure_groups(lambda _: every, CLASSES, [(photo(mask), mask)]).bound == pytest.approx(100.0)
    single = measure_groups(lambda _: torch.zeros_like(every), CLASSES, [(photo(mask), mask)])
    assert single.iou == {"background": pytest.approx(50.0), "cat": 0.0, "dog": 0.0}


def test_no_labelling_of_the_groups_has_more_right_pixels():
    torch.manual_seed(0)
    mask, groups = torch.randint(0, 3, (6, 6)), torch.randint(0, 4, (6, 6))
    right = (majority(groups, mask, 3) == mask).sum()
    every = (torch.tensor(labels)[groups] for labels in itertools.product(range(3), repeat=4))
    assert right == max((labelling == mask).sum() for labelling in every)


def test_bounds_of_several_photos_add_up_before_they_are_divided():
    masks = [np.array([[0, 0, 1]], np.uint8), np.array([[1, 1, 0]], np.uint8)]
    groups = torch.zeros(1, 1, 3, dtype=torch.int64)
    found = measure_groups(lambda _: groups, CLASSES, [(photo(m), m) for m in masks])
    table = confusion(torch.tensor([0, 0, 1, 1, 1, 0]), torch.tensor([0, 0, 0, 1, 1, 1]), 3)
    assert found.bound == pytest.approx(mean_iou(table.numpy()))


def test_without_labelled_pixels_it_says_so():
    mask = np.full((2, 2), 255, np.uint8)
    with pytest.raises(RegistryError, match="REG003"):
        measure_groups(lambda _: torch.zeros(1, 2, 2, dtype=torch.int64), CLASSES, [(photo(mask), mask)])


def test_the_command_tells_the_bound_beside_what_the_model_knows(tmp_path):
    write_scenes(tmp_path, seed=0, labelled=1, unlabelled=1, evaluation=3, size=96)
    settings = ["--groups", "grouper=kmeans", "--groups", "count=6", "--groups", "side=128"]
    found = CliRunner().invoke(
        app, ["vlm", "eval", "tiny", "--data", "demo", "--source", "-s", f"data.source={tmp_path}", *settings]
    )
    assert found.exit_code == 0, found.output
    assert "top-1" in found.output and "highest mIoU that they allow" in found.output
    wrong = CliRunner().invoke(app, ["vlm", "eval", "tiny", "--data", "demo", "--source", "--groups", "cuont=6"])
    assert wrong.exit_code != 0 and "CONF003" in f"{wrong.output} {wrong.exception}" and "count" in str(wrong.exception)


def test_a_finished_scg_model_tells_what_its_own_groups_allow(tmp_path):
    write_scenes(tmp_path / "scenes", seed=0, labelled=1, unlabelled=1, evaluation=2, size=96)
    config = load("scenes-scg", {"method": {"settings": {"groups": {"grouper": "kmeans", "count": 2, "side": 64}}}})
    vlm = load_vlm(config.vlm, config.classes, 96)
    model = create(config.method).build(config.classes, vlm, training=False)
    save_bundle(tmp_path / "model", config, model, vlm.student().architecture)
    asked = ["vlm", "eval", str(tmp_path / "model"), "--data", "scenes-scg", "--source"]
    found = CliRunner().invoke(app, [*asked, "-s", f"data.source={tmp_path / 'scenes'}"])
    assert found.exit_code == 0, found.output
    told = re.search(r"groups a photo +highest mIoU that they allow *\n2 +([\d.]+) +([\d.]+)", found.output)
    assert told and 1 < float(told[1]) <= 2, found.output
