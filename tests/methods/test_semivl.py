"""SemiVL's losses, views and training step (spec semivl.md, 1.3 to 1.6 and 8)."""

import pytest
import torch
from torch.nn import functional as F

from semivl.config import IGNORE, MethodConfig
from semivl.errors import ConfigError
from semivl.methods import create, inference_state
from semivl.methods.parts.guidance import Guidance
from semivl.methods.parts.losses import (
    PseudoLabels,
    consistency_loss,
    guidance_loss,
    pseudo_labels,
    supervised_loss,
)
from semivl.methods.parts.views import cutmix_boxes, mixed, strong_view
from semivl.nets.segmenter import Segmenter
from tests.tiny import CLASSES, SHAPE, SIDE, N, tiny_batches, tiny_vlm


@pytest.fixture
def logits():
    torch.manual_seed(3)
    return torch.randn(2, N, 6, 6, requires_grad=True)


def nothing_ignored():
    return torch.zeros(2, 6, 6, dtype=torch.bool)


def test_supervised_loss_is_the_mean_over_labelled_pixels(logits):
    masks = torch.randint(0, N, (2, 6, 6))
    masks[0, :3] = IGNORE
    torch.testing.assert_close(supervised_loss(logits, masks), F.cross_entropy(logits, masks, ignore_index=IGNORE))


def test_all_ignored_gives_zero_and_not_nan(logits):
    everything = torch.full((2, 6, 6), IGNORE)
    believed = PseudoLabels(torch.zeros_like(everything), torch.ones(2, 6, 6), torch.ones(2, 6, 6, dtype=torch.bool))
    assert supervised_loss(logits, everything) == 0
    assert consistency_loss(logits, believed, 0.5) == 0
    assert guidance_loss(logits, everything) == 0


def test_consistency_counts_confident_pixels_over_all_that_are_not_ignored(logits):
    believed = PseudoLabels(torch.zeros(2, 6, 6, dtype=torch.long), torch.zeros(2, 6, 6), nothing_ignored())
    believed.confidence[0, 0, :4] = 0.99
    believed.ignored[0, 0, 0] = True
    believed.ignored[1] = True
    each = F.cross_entropy(logits, believed.label, reduction="none")
    expected = each[0, 0, 1:4].sum() / 35
    torch.testing.assert_close(consistency_loss(logits, believed, 0.95), expected)


def test_same_view_and_threshold_zero_give_cross_entropy_with_its_own_argmax(logits):
    believed = pseudo_labels(logits, nothing_ignored())
    torch.testing.assert_close(consistency_loss(logits, believed, 0.0), F.cross_entropy(logits, logits.argmax(1)))


def test_no_confident_pixel_gives_exactly_zero(logits):
    believed = pseudo_labels(logits, nothing_ignored())
    assert consistency_loss(logits, believed, 1.01) == 0


def test_pseudo_labels_pass_no_gradient(logits):
    believed = pseudo_labels(logits, nothing_ignored())
    assert not believed.confidence.requires_grad and not believed.label.requires_grad


def test_guidance_is_divided_by_all_pixels(logits):
    hints = torch.full((2, 6, 6), IGNORE)
    hints[0, 0, :3] = 1
    each = F.cross_entropy(logits, torch.ones_like(hints), reduction="none")
    torch.testing.assert_close(guidance_loss(logits, hints), each[0, 0, :3].sum() / 72)


def test_guidance_is_silent_where_unsure_or_padded():
    teacher = Guidance(tiny_vlm(), N, threshold=0.5, scale=100)
    images, padded = torch.rand(2, 3, SIDE, SIDE), torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    padded[:, :, -8:] = True
    labels = teacher(images, padded)
    probability, best = teacher.probabilities(images).max(1)
    assert (labels[padded] == IGNORE).all()
    assert ((labels == IGNORE) == ((probability < 0.5) | padded)).all()
    assert (labels[labels != IGNORE] == best[labels != IGNORE]).all()
    assert (Guidance(tiny_vlm(), N, threshold=1.01, scale=100)(images, padded) == IGNORE).all()


def test_cutmix_boxes_follow_the_recipe():
    torch.manual_seed(0)
    boxes = cutmix_boxes(2000, 64, torch.device("cpu"))
    areas = boxes.flatten(1).sum(1) / 64**2
    used = boxes[areas > 0]
    assert abs((areas > 0).float().mean() - 0.5) < 0.04
    assert areas.max() <= 0.4 and areas[areas > 0].min() > 0.012
    heights, widths = used.any(2).sum(1), used.any(1).sum(1)
    assert torch.equal(heights * widths, used.flatten(1).sum(1))
    ratio = heights / widths
    assert ratio.min() > 0.25 and ratio.max() < 4


def test_mixing_takes_the_boxes_from_the_second():
    boxes = torch.zeros(1, 4, 4, dtype=torch.bool)
    boxes[0, 1:3, 1:3] = True
    image = mixed(torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4), boxes)
    assert image.sum() == 12 and torch.equal(image[0, 0] == 1, boxes[0])


def test_strong_views_keep_the_geometry_and_differ_from_image_to_image():
    torch.manual_seed(0)
    image = torch.zeros(1, 3, 64, 64)
    image[..., 32:] = 0.8
    views = strong_view(image.repeat(64, 1, 1, 1))
    left, right = views[..., :24].mean((1, 2, 3)), views[..., 40:].mean((1, 2, 3))
    assert views.min() >= 0 and views.max() <= 1
    assert (right > left).float().mean() > 0.95
    assert right.std() > 0.05


def test_guidance_weight_falls_to_zero_and_the_total_is_the_papers_sum():
    method = create(MethodConfig(name="semivl", settings={"decoder": SHAPE.model_dump(), "guidance": {"threshold": 0}}))
    model = method.build(CLASSES, tiny_vlm(), training=True)
    for progress in (0.0, 0.5, 1.0):
        torch.manual_seed(9)
        losses = method.training_step(model, tiny_batches(), progress)
        expected = (losses["supervised"] + losses["consistency"]) / 2 + 0.1 * (1 - progress) * losses["guidance"]
        torch.testing.assert_close(losses["total"], expected)
        assert losses["guidance"] > 0


def test_the_teacher_never_changes_and_is_not_part_of_the_trained_model():
    method = create(MethodConfig(name="semivl", settings={"decoder": SHAPE.model_dump()}))
    model = method.build(CLASSES, tiny_vlm(), training=True)
    method.training_step(model, tiny_batches(), 0.0)["total"].backward()
    assert all(p.grad is None and not p.requires_grad for n, p in model.named_parameters() if "teacher" in n)
    plain = method.build(CLASSES, tiny_vlm(seed=5), training=False)
    plain.load_state_dict(inference_state(model))
    images = torch.rand(1, 3, SIDE, SIDE)
    assert torch.equal(method.predict(plain.eval(), images), method.predict(model.eval(), images))


def test_every_trainable_tensor_gets_a_gradient():
    method = create(MethodConfig(name="semivl", settings={"decoder": SHAPE.model_dump(), "guidance": {"threshold": 0}}))
    model = method.build(CLASSES, tiny_vlm(), training=True)
    method.training_step(model, tiny_batches(), 0.0)["total"].backward()
    assert isinstance(model, Segmenter)
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


def test_unknown_method_and_unknown_setting_are_named():
    with pytest.raises(ConfigError, match=r"CONF006.*semi-vl.*Known: semivl, supervised"):
        create(MethodConfig(name="semi-vl"))
    with pytest.raises(ConfigError, match=r"CONF003.*confidense is not a setting \(did you mean confidence"):
        create(MethodConfig(name="semivl", settings={"confidense": 0.9}))
