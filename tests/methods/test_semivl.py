"""SemiVL's losses, views and training step (spec semivl.md, 1.3 to 1.6 and 8)."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from benchmarks import plain
from semivl.config import IGNORE, MethodConfig, TrainConfig
from semivl.data.stream import Batches, Unlabelled
from semivl.errors import ConfigError
from semivl.methods import as_float, create, inference_state
from semivl.methods.parts.guidance import GuidanceSettings, LanguageGuidance
from semivl.methods.parts.losses import (
    PseudoLabels,
    Target,
    consistency_target,
    cross_entropy_sums,
    guidance_target,
    pseudo_labels,
    supervised_target,
)
from semivl.methods.parts.views import cutmix_boxes, filled, mixed, strong_view
from semivl.nets.segmenter import Segmenter
from semivl.training.step import build_optimizer, take_step
from tests.tiny import CLASSES, SHAPE, SIDE, N, tiny_batches, tiny_vlm


@pytest.fixture
def logits():
    torch.manual_seed(3)
    return torch.randn(2, N, 6, 6, requires_grad=True)


def loss_of(logits, target: Target) -> torch.Tensor:
    [loss] = cross_entropy_sums(logits, [target])
    return loss


def teacher(threshold: float) -> LanguageGuidance:
    return LanguageGuidance(tiny_vlm(), GuidanceSettings(threshold=threshold))  # pyright: ignore[reportCallIssue]


def nothing_ignored():
    return torch.zeros(2, 6, 6, dtype=torch.bool)


def test_losses_of_cells_are_those_of_logits_scaled_up_and_so_are_their_gradients():
    torch.manual_seed(4)
    cells = torch.randn(2, N, 4, 5, requires_grad=True)
    targets = [Target(torch.randint(0, N, (2, 16, 20)), torch.rand(2, 16, 20)) for _ in range(2)]
    full = F.interpolate(cells, size=(16, 20), mode="bilinear", align_corners=False)
    expected = [(F.cross_entropy(full, t.labels, reduction="none") * t.weight).sum() for t in targets]
    found = cross_entropy_sums(cells, targets)
    torch.testing.assert_close(found, expected)
    wanted, got = (torch.autograd.grad(3 * a + b, cells)[0] for a, b in (expected, found))
    torch.testing.assert_close(got, wanted)


def test_supervised_loss_is_the_mean_over_labelled_pixels(logits):
    masks = torch.randint(0, N, (2, 6, 6))
    masks[0, :3] = IGNORE
    torch.testing.assert_close(
        loss_of(logits, supervised_target(masks)), F.cross_entropy(logits, masks, ignore_index=IGNORE)
    )


def test_all_ignored_gives_zero_and_not_nan(logits):
    everything = torch.full((2, 6, 6), IGNORE)
    believed = PseudoLabels(torch.zeros_like(everything), torch.ones(2, 6, 6), torch.ones(2, 6, 6, dtype=torch.bool))
    assert loss_of(logits, supervised_target(everything)) == 0
    assert loss_of(logits, consistency_target(believed, 0.5)) == 0
    assert loss_of(logits, guidance_target(everything)) == 0


def test_consistency_counts_confident_pixels_over_all_that_are_not_ignored(logits):
    believed = PseudoLabels(torch.zeros(2, 6, 6, dtype=torch.long), torch.zeros(2, 6, 6), nothing_ignored())
    believed.confidence[0, 0, :4] = 0.99
    believed.ignored[0, 0, 0] = True
    believed.ignored[1] = True
    each = F.cross_entropy(logits, believed.label, reduction="none")
    expected = each[0, 0, 1:4].sum() / 35
    torch.testing.assert_close(loss_of(logits, consistency_target(believed, 0.95)), expected)


def test_same_view_and_threshold_zero_give_cross_entropy_with_its_own_argmax(logits):
    believed = pseudo_labels(logits, nothing_ignored())
    torch.testing.assert_close(
        loss_of(logits, consistency_target(believed, 0.0)), F.cross_entropy(logits, logits.argmax(1))
    )


def test_no_confident_pixel_gives_exactly_zero(logits):
    believed = pseudo_labels(logits, nothing_ignored())
    assert loss_of(logits, consistency_target(believed, 1.01)) == 0


def test_average_weighting_takes_every_pixel_and_an_images_mean_confidence(logits):
    believed = pseudo_labels(logits, nothing_ignored())
    believed.ignored[1, :2] = True
    each = F.cross_entropy(logits, believed.label, reduction="none").sum((1, 2))
    means = [believed.confidence[0].mean(), believed.confidence[1, 2:].mean()]
    expected = (each[0] * means[0] / 36 + each[1] * means[1] / 24) / 2
    torch.testing.assert_close(loss_of(logits, consistency_target(believed, 0.95, "pixelavg")), expected)


@pytest.mark.parametrize("first, second", [("pixelavg", "pixelavg_batch"), ("pixelratio", "threshold")])
def test_weightings_agree_where_they_mean_the_same(logits, first, second):
    believed = pseudo_labels(logits[:1], nothing_ignored()[:1])
    both = [loss_of(logits[:1], consistency_target(believed, 0.0, w)) for w in (first, second)]
    torch.testing.assert_close(*both)


def test_pseudo_labels_are_those_of_the_full_softmax():
    cells = torch.randn(2, N, 3, 4)
    believed = pseudo_labels(cells, torch.zeros(2, 12, 16, dtype=torch.bool))
    confidence, label = F.interpolate(cells, size=(12, 16), mode="bilinear").softmax(1).max(1)
    torch.testing.assert_close(believed.confidence, confidence)
    assert torch.equal(believed.label, label)


def test_pseudo_labels_pass_no_gradient(logits):
    believed = pseudo_labels(logits, nothing_ignored())
    assert not believed.confidence.requires_grad and not believed.label.requires_grad


def test_guidance_is_divided_by_all_pixels(logits):
    hints = torch.full((2, 6, 6), IGNORE)
    hints[0, 0, :3] = 1
    each = F.cross_entropy(logits, torch.ones_like(hints), reduction="none")
    torch.testing.assert_close(loss_of(logits, guidance_target(hints)), each[0, 0, :3].sum() / 72)


def test_guidance_is_silent_where_unsure_or_padded():
    guide = teacher(0.5)
    images, padded = torch.rand(2, 3, SIDE, SIDE), torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    padded[:, :, -8:] = True
    labels = guide(images, padded)
    probability, best = guide.probabilities(images).max(1)
    assert (labels[padded] == IGNORE).all()
    assert ((labels == IGNORE) == ((probability < 0.5) | padded)).all()
    assert (labels[labels != IGNORE] == best[labels != IGNORE]).all()
    assert (guide.forward(images, torch.ones_like(padded)) == IGNORE).all()


def test_cutmix_boxes_follow_the_recipe():
    torch.manual_seed(0)
    boxes = cutmix_boxes(2000, 64)
    areas = boxes.flatten(1).sum(1) / 64**2
    used = boxes[areas > 0]
    assert abs((areas > 0).float().mean() - 0.5) < 0.04
    assert areas.max() <= 0.4 and areas[areas > 0].min() > 0.012
    heights, widths = used.any(2).sum(1), used.any(1).sum(1)
    assert torch.equal(heights * widths, used.flatten(1).sum(1))
    ratio = heights / widths
    assert ratio.min() > 0.25 and ratio.max() < 4


def test_a_quarter_of_the_images_has_nothing_to_fill():
    torch.manual_seed(0)
    boxes = [cutmix_boxes(2000, 16) for _ in range(2)]
    used = filled(boxes)
    assert abs(len(used) / 2000 - 0.75) < 0.03
    assert torch.equal(used, (boxes[0] | boxes[1]).flatten(1).any(1).nonzero()[:, 0])


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
    model = method.build(CLASSES, tiny_vlm(), True, tiny_vlm())
    for progress in (0.0, 0.5, 1.0):
        torch.manual_seed(9)
        losses = method.training_step(model, tiny_batches(), progress)
        expected = (losses["supervised"] + losses["consistency"]) / 2 + 0.1 * (1 - progress) * losses["guidance"]
        torch.testing.assert_close(losses["total"], expected)
        assert losses["guidance"] > 0


def test_the_teacher_never_changes_and_is_not_part_of_the_trained_model():
    method = create(MethodConfig(name="semivl", settings={"decoder": SHAPE.model_dump()}))
    model = method.build(CLASSES, tiny_vlm(), True, tiny_vlm())
    method.training_step(model, tiny_batches(), 0.0)["total"].backward()
    assert all(p.grad is None and not p.requires_grad for n, p in model.named_parameters() if "teacher" in n)
    plain = method.build(CLASSES, tiny_vlm(seed=5), False)
    plain.load_state_dict(inference_state(model))
    images = torch.rand(1, 3, SIDE, SIDE)
    assert torch.equal(method.predict(plain.eval(), images), method.predict(model.eval(), images))


def semivl(**settings):
    chosen = {"decoder": SHAPE.model_dump(), "guidance": {"threshold": 0.4}, "confidence": 0.3} | settings
    method = create(MethodConfig(name="semivl", settings=chosen))
    return method, method.build(CLASSES, tiny_vlm(), True, tiny_vlm(seed=7)).train()


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_the_step_with_all_savings_is_the_plain_step(chunk):
    method, model = semivl()
    model.decoder.class_chunk = chunk
    found = []
    for step in (method.training_step, partial(plain.training_step, method)):
        torch.manual_seed(11)
        model.zero_grad()
        losses = step(model, tiny_batches(batch=3), 0.25)
        losses["total"].backward()
        found.append((losses, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    (ours, our_gradients), (theirs, their_gradients) = found
    assert ours["consistency"] > 0 and ours["guidance"] > 0
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name].detach() if name != "total" else theirs[name])
    assert our_gradients.keys() == their_gradients.keys()
    whole = torch.stack([g.norm() for g in their_gradients.values()]).norm()
    for name, gradient in their_gradients.items():
        error = (our_gradients[name] - gradient).norm()
        assert error <= 3e-4 * gradient.norm() + 1e-6 * whole, name


def test_few_optimiser_groups_update_as_one_group_a_tensor_does():
    config = TrainConfig(steps=10, weight_decay=0.01)  # pyright: ignore[reportCallIssue]
    after = []
    for build in (build_optimizer, plain.optimizer):
        method, model = semivl()
        optimizer = build(model, config)
        for step in range(2):
            take_step(method, model, optimizer, tiny_batches(), config, step)
        after.append(model.state_dict())
    for name, value in after[0].items():
        torch.testing.assert_close(value, after[1][name], msg=name)


def test_every_trained_tensor_decays_at_its_parts_rate():
    config = TrainConfig(backbone_multiplier=0.01, decoder_multiplier=10)  # pyright: ignore[reportCallIssue]
    _, model = semivl()
    groups = build_optimizer(model, config).param_groups
    names = {id(p): n for n, p in model.named_parameters()}
    of_group = [({names[id(p)] for p in g["params"]}, g["multiplier"], g["weight_decay"]) for g in groups]
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    backbone = {n for n in trained if n.startswith("encoder.")}
    assert of_group == [(backbone, 0.01, 0.01), (trained - backbone, 10, 0.01)]
    assert any("norm" in n or n.endswith("1.weight") for n in trained - backbone)


def test_a_reversed_partner_fills_the_boxes_with_its_own_labels(monkeypatch):
    monkeypatch.setattr("semivl.methods.semivl.strong_view", lambda images: images)
    everywhere = torch.ones(2, SIDE, SIDE, dtype=torch.bool)
    monkeypatch.setattr("semivl.methods.semivl.cutmix_boxes", lambda *_: everywhere)
    method, model = semivl(cutmix_partner="reversed", confidence=0.0, dropout=0.0)
    assert not method.partner
    losses = method.training_step(model, tiny_batches(), 0.0)
    images = as_float(tiny_batches().unlabelled.images)
    cells = model.cells(model.features(images))
    own = loss_of(cells, consistency_target(pseudo_labels(cells, torch.zeros_like(everywhere)), 0.0))
    torch.testing.assert_close(losses["consistency"], own.detach())


def test_label_maps_take_the_teachers_place():
    method, model = semivl()
    hinted = tiny_batches()
    hints = torch.randint(0, N, (2, SIDE, SIDE))
    views = [Unlabelled(u.images, u.ignored, hints) for u in (hinted.unlabelled, hinted.partner)]
    torch.manual_seed(0)
    with_maps = method.training_step(model, Batches(hinted.labelled, *views), 0.0)
    del model.teacher
    torch.manual_seed(0)
    assert torch.equal(method.training_step(model, Batches(hinted.labelled, *views), 0.0)["total"], with_maps["total"])
    torch.manual_seed(0)
    without = method.training_step(model, hinted, 0.0)
    assert without["guidance"] == 0 and with_maps["guidance"] > 0


def test_the_average_believes_and_takes_the_models_place():
    method, model = semivl(average=True)
    config = TrainConfig(steps=10, learning_rate=0.01)  # pyright: ignore[reportCallIssue]
    optimizer = build_optimizer(model, config)
    for step in range(3):
        take_step(method, model, optimizer, tiny_batches(), config, step)
    finished = method.build(CLASSES, tiny_vlm(seed=5), False)
    finished.load_state_dict(inference_state(model))
    assert torch.equal(finished.decoder.head.weight, model.average.decoder.head.weight)
    assert not torch.equal(finished.decoder.head.weight, model.decoder.head.weight)
    images = torch.rand(1, 3, SIDE, SIDE)
    torch.testing.assert_close(method.predict(finished.eval(), images), method.predict(model.eval(), images))


def test_bfloat16_keeps_weights_and_losses_in_float32():
    method, model = semivl()
    config = TrainConfig(steps=10)  # pyright: ignore[reportCallIssue]
    optimizer = build_optimizer(model, config)
    full = take_step(method, model, optimizer, tiny_batches(), config, 0)
    method, model = semivl()
    half = take_step(method, model, build_optimizer(model, config), tiny_batches(), config, 0, "bf16")
    assert {p.dtype for p in model.parameters()} == {torch.float32} == {v.dtype for v in half.values()}
    torch.testing.assert_close(half["supervised"], full["supervised"], rtol=0.02, atol=0.02)


def test_every_trainable_tensor_gets_a_gradient():
    method = create(MethodConfig(name="semivl", settings={"decoder": SHAPE.model_dump(), "guidance": {"threshold": 0}}))
    model = method.build(CLASSES, tiny_vlm(), True, tiny_vlm())
    method.training_step(model, tiny_batches(), 0.0)["total"].backward()
    assert isinstance(model, Segmenter)
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


def test_unknown_method_and_unknown_setting_are_named():
    with pytest.raises(ConfigError, match=r"CONF006.*semi-vl.*Known: co_decomposition, semivl"):
        create(MethodConfig(name="semi-vl"))
    with pytest.raises(ConfigError, match=r"CONF003.*confidense is not a setting \(did you mean confidence"):
        create(MethodConfig(name="semivl", settings={"confidense": 0.9}))
