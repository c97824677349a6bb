"""What a VLM knows: every figure on hand-made maps against a count by hand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from semivl.cli import app
from semivl.config import ClassDefinition, Classes, EvaluationConfig, load
from semivl.data.scenes import write_scenes
from semivl.errors import ConfigError, RegistryError
from semivl.evaluation.language import Confident, LanguageScores, advised, measure, measure_model, tables, tally
from semivl.language.text import ClassText
from semivl.methods import create
from semivl.nets.encoder import Features
from semivl.nets.vlm import DenseVLM, load_vlm
from semivl.training.bundle import save_bundle

CLASSES = Classes(classes=tuple(ClassDefinition(name=n) for n in ("background", "cat", "dog")))
TEXT = ClassText(torch.eye(3), torch.eye(3), torch.eye(3), torch.arange(3))


class Drawn(nn.Module):
    """Gives the cosines that were drawn for each image, in turn; the classes' texts are the axes."""

    def __init__(self, maps: list[Tensor]) -> None:
        super().__init__()
        self.maps = iter(maps)

    def forward(self, images: Tensor) -> Features:
        return Features(next(self.maps)[None], ())


def scores(maps: list[Tensor], masks: list[np.ndarray], scales: tuple[float, ...] = (1.0,)) -> LanguageScores:
    photos = [np.zeros((*mask.shape, 3), np.uint8) for mask in masks]
    return measure(DenseVLM(Drawn(maps), TEXT), CLASSES, zip(photos, masks, strict=True), scales=scales)


def cosines(rows: list[list[list[float]]]) -> Tensor:
    """(3, H, W) of rows of pixels with their three cosines."""
    return torch.tensor(rows).permute(2, 0, 1)


def at(found: LanguageScores, threshold: float) -> Confident:
    return next(p for p in found.curve if p.threshold == threshold)


MAP = cosines([
    [[9.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]],
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 9.0], [3.0, 0.0, 1.0]],
])  # fmt: skip
MASK = np.array([[0, 1, 2, 2], [0, 1, 255, 1]], np.uint8)
"""Five of seven are right. Called cat: right, wrong, right; called dog: right; the last cat is missed."""


def test_shares_and_iou_are_those_counted_by_hand():
    found = scores([MAP], [MASK])
    assert found.iou == {"background": pytest.approx(200 / 3), "cat": pytest.approx(50.0), "dog": pytest.approx(50.0)}
    assert found.miou == pytest.approx(500 / 9)
    whole = at(found, 0.0)
    assert (whole.coverage, whole.accuracy) == (1.0, pytest.approx(5 / 7))
    assert (whole.foreground, whole.precision) == (pytest.approx(4 / 7), pytest.approx(3 / 4))
    assert found.naming == pytest.approx(3 / 5)


def test_a_photo_without_a_labelled_pixel_is_left_out_whatever_the_classes():
    nothing = np.full_like(MASK, 255)
    assert scores([MAP, MAP], [MASK, nothing]) == scores([MAP], [MASK])
    objects = Classes(classes=tuple(ClassDefinition(name=n) for n in ("bird", "cat", "dog")))
    photos = [(np.zeros((*mask.shape, 3), np.uint8), mask) for mask in (nothing, MASK)]
    found = measure(DenseVLM(Drawn([MAP, MAP]), TEXT), objects, photos, scales=(1.0,))
    assert found.images == 1
    of_model = measure_model(lambda images: MAP[None], objects, photos, EvaluationConfig(window=16, stride=16))
    assert of_model.images == 1


def test_a_threshold_keeps_the_pixels_whose_probability_reaches_it():
    found = scores([MAP], [MASK])
    others = [2.0] * 6 + [1 + math.e]
    probability = [math.exp(c) / (math.exp(c) + o) for c, o in zip((9, 4, 2, 3, 1, 1, 3), others, strict=True)]
    right = [True, True, False, True, True, True, False]
    called = [False, True, True, True, False, True, False]
    for threshold in (0.6, 0.8, 0.95):
        kept = [p >= threshold for p in probability]
        point = at(found, threshold)
        assert point.coverage == pytest.approx(sum(kept) / 7)
        assert point.accuracy == pytest.approx(sum(k and r for k, r in zip(kept, right, strict=True)) / sum(kept))
        named = [r for k, c, r in zip(kept, called, right, strict=True) if k and c]
        assert point.foreground == pytest.approx(len(named) / 7)
        assert point.precision == pytest.approx(sum(named) / len(named))


def test_scale_changes_confidence_and_no_label():
    weak, strong = scores([MAP], [MASK], (0.1,)), scores([MAP], [MASK], (10.0,))
    assert weak.iou == strong.iou
    assert at(weak, 0.9).coverage == 0.0 and at(weak, 0.9).precision is None
    assert at(strong, 0.9).coverage == 1.0


def test_the_surest_quarter_takes_the_most_confident_called_foreground():
    row = [[0.0, 0.8 - i / 10, 0.0] for i in range(8)]
    row[7] = [0.0, 0.1, 0.05]
    mask = np.array([[1, 2, 1, 1, 1, 1, 1, 1]], np.uint8)
    assert scores([cosines([row])], [mask]).strict == pytest.approx(1 / 2)


def test_given_tags_rule_out_classes_that_the_image_lacks():
    found = scores([cosines([[[0.0, 0.9, 0.8], [0.0, 0.9, 0.8]]])], [np.array([[2, 0]], np.uint8)])
    assert found.strict == 0.0
    assert found.tagged == pytest.approx(1 / 2)


def test_top_1_is_the_class_with_the_most_pixels_among_foreground():
    cat = cosines([[[5.0, 2.0, 1.0], [5.0, 0.0, 1.0], [5.0, 2.0, 0.0]]])
    masks = [np.array([[1, 1, 2]], np.uint8), np.array([[0, 2, 2]], np.uint8), np.array([[0, 0, 0]], np.uint8)]
    assert scores([cat, cat, cat], masks).top_1 == pytest.approx(1 / 2)


def test_cosines_are_brought_to_the_masks_size():
    small = torch.zeros(3, 1, 1)
    small[1] = 1
    assert scores([small], [np.ones((4, 6), np.uint8)]).iou["cat"] == pytest.approx(100.0)


def test_a_class_that_no_mask_holds_is_absent_even_where_it_is_called():
    found = scores([MAP], [np.where(MASK == 2, 1, MASK)])
    assert found.iou["dog"] is None
    assert found.miou == pytest.approx((200 / 3 + 60) / 2)


def test_without_text_or_labelled_pixels_it_says_so():
    with pytest.raises(ConfigError, match="CONF018"):
        measure(DenseVLM(Drawn([]), None), CLASSES, [])
    with pytest.raises(RegistryError, match="REG003"):
        scores([MAP], [np.full((2, 4), 255, np.uint8)])


def test_a_part_of_the_last_bin_counts_by_its_share():
    counted = tally()
    counted.add(torch.tensor([0.9, 0.9, 0.2, 0.2]), torch.tensor([True, False, False, False]))
    assert counted.best(0.25) == pytest.approx(1 / 2)
    assert counted.best(1.0) == pytest.approx(1 / 4)
    assert tally().best(0.5) is None


def point(scale: float, threshold: float, foreground: float, precision: float | None) -> Confident:
    return Confident(
        scale=scale, threshold=threshold, coverage=1, accuracy=1, foreground=foreground, precision=precision
    )


def test_advice_is_the_lowest_threshold_that_is_right_four_times_in_five():
    good = [point(20, 0.5, 0.4, 0.5), point(20, 0.8, 0.2, 0.81), point(20, 0.9, 0.1, 0.95)]
    assert advised(good) == good[1]
    wider = [point(40, 0.9, 0.3, 0.8)]
    assert advised([*good, *wider]) == wider[0]


def test_advice_without_such_a_threshold_is_the_most_precise_that_covers_enough():
    poor = [point(20, 0.5, 0.4, 0.3), point(20, 0.8, 0.06, 0.5), point(20, 0.9, 0.009, 0.99)]
    assert advised(poor) == poor[1]
    assert advised([point(20, 0.9, 0.0, None)]) is None


def test_tables_hold_every_figure_and_the_advice():
    shown = tables(scores([MAP], [MASK], (1.0, 10.0)))
    assert shown["classes"][1] == {"class": "cat", "IoU": "50.0"}
    assert "threshold=" in shown["advice"][0]["guidance settings"]


def test_a_finished_model_is_counted_by_its_own_probabilities_as_cosines_are_at_scale_1():
    config = EvaluationConfig(window=16, stride=16)  # pyright: ignore[reportCallIssue]
    logits, mask = MAP.repeat_interleave(8, 1).repeat_interleave(4, 2), MASK.repeat(8, 0).repeat(4, 1)
    found = measure_model(lambda images: logits[None], CLASSES, [(np.zeros((16, 16, 3), np.uint8), mask)], config)
    by_cosines = scores([logits], [mask])
    assert found.curve == by_cosines.curve and found.iou == by_cosines.iou
    assert found.top_1 is None  # it embeds no photo
    assert found.naming == by_cosines.naming


def test_the_command_measures_a_finished_model_and_refuses_one_of_other_classes(tmp_path):
    write_scenes(tmp_path / "scenes", seed=0, labelled=1, unlabelled=1, evaluation=2, size=96)
    config = load("demo", {"evaluation": {"window": 48, "stride": 48}})
    vlm = load_vlm(config.vlm, config.classes, config.train.crop)
    model = create(config.method).build(config.classes, vlm, training=False)
    save_bundle(tmp_path / "model", config, model, vlm.student().architecture)
    asked = ["vlm", "eval", str(tmp_path / "model"), "--source", "-s", f"data.source={tmp_path / 'scenes'}"]
    found = CliRunner().invoke(app, [*asked, "--data", "demo"])
    assert found.exit_code == 0, found.output
    assert "coverage" in found.output and "advice" in found.output
    wrong = CliRunner().invoke(app, [*asked, "--data", "voc-subset"])
    assert wrong.exit_code != 0 and "TRAIN014" in f"{wrong.output} {wrong.exception}"
