"""Method transfer (spec transfer.md): its phases, what each learns from, and what it never reads."""

import io
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from semivl.config import IGNORE, ClassDefinition, Classes, Config, MethodConfig, TrainConfig, load
from semivl.data import stream
from semivl.data.headers import DamagedError
from semivl.data.stream import Batches, Labelled, Unlabelled
from semivl.data.tags import UNKNOWN, TagReader
from semivl.errors import ConfigError
from semivl.language.text import ClassText
from semivl.methods import create, evolving_state
from semivl.methods.parts import label_transfer
from semivl.methods.parts.tag_losses import (
    UNSURE,
    crop_tags,
    doubtful,
    object_loss,
    pooled_logits,
    tag_loss,
)
from semivl.nets.discriminator import LEAST
from semivl.nets.vlm import DenseVLM
from semivl.training.bundle import load_bundle, save_bundle
from semivl.training.checkpoint import load_checkpoint, save_checkpoint
from semivl.training.step import build_optimizer, take_step
from semivl.training.summary import summary
from tests.tiny import SHAPE, SIDE, noise, tiny_vlm

NAMES = ("background", "cat", "duck", "fox", "hen")
CLASSES = Classes(classes=tuple(ClassDefinition(name=name) for name in NAMES))
N, STEPS = len(NAMES), 10
TRAIN = TrainConfig(steps=STEPS, batch=2, crop=SIDE, learning_rate=1e-3)  # pyright: ignore[reportCallIssue]
HEAD = {"features": 8, "channels": (8, 8, 8, 8)}
SMALL = {
    "decoder": SHAPE.model_dump(),
    "label_transfer": {"net": {"head": HEAD}, "activation": {"scales": [1.0]},
                       "labels": {"low": 0.45, "high": 0.55, "diffusion": {"nodes": "cells", "steps": 5}}},
}  # fmt: skip
UNET = {"label_transfer": SMALL["label_transfer"] | {"net": {"foreground": "unet", "unet": {"width": 4, "levels": 3}}}}
ADVERSARY = {"adversary": {"strong": 0.01, "weak": 0.01, "start": 0.0}}


def vlm(seed: int = 0) -> DenseVLM:
    encoder = tiny_vlm(seed).encoder
    text = F.normalize(torch.randn(N, 8), dim=1)
    return DenseVLM(encoder, ClassText(text, text, text, torch.arange(N)))


def batches(seed: int = 1, count: int = 2) -> Batches:
    """Masks of background, cat and duck with 255 between; tags of all."""
    torch.manual_seed(seed)
    masks = torch.randint(0, 3, (count, SIDE // 4, SIDE // 4)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    masks[:, :4] = IGNORE
    tags = torch.tensor([[-1, 1, 1, 0, 0], [-1, 1, 1, 1, 0]], dtype=torch.int8)
    weak = torch.tensor([[-1, 0, 1, 1, 0], [-1, 0, 0, 1, 1]], dtype=torch.int8)
    padded = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    padded[:, -4:] = True
    return Batches(Labelled(noise(count), masks, tags[:count]), Unlabelled(noise(count), padded, None, weak[:count]))


def method_of(**changes):
    return create(MethodConfig(name="transfer", settings=SMALL | changes))


def built(seed: int = 0, **changes):
    method = method_of(**changes)
    return method, method.build(CLASSES, vlm(seed), True, vlm(seed)).train()


def learned(method, model, start: int, stop: int):
    optimizer = build_optimizer(model, TRAIN)
    return [take_step(method, model, optimizer, batches(s), TRAIN, s) for s in range(start, stop)]


def state_of(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before, after) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("changes", [{}, UNET, {"network": "deeplab"}, ADVERSARY])
def test_the_first_phase_changes_the_learner_alone_and_the_second_nothing_of_it_but_the_discriminator(changes):
    method, model = built(**changes)
    start = state_of(model)
    learned(method, model, 0, 4)
    between = state_of(model)
    assert all(name.startswith("learner.labels.") for name in changed(start, between))
    learned(method, model, 4, STEPS)
    moved = changed(between, state_of(model))
    assert {n for n in moved if n.startswith("learner.")} == {n for n in between if "discriminator" in n}
    assert any(n.startswith("encoder.") for n in moved) and any(n.startswith("decoder.") for n in moved)


@pytest.mark.parametrize("changes", [{}, UNET, {"network": "deeplab"}, ADVERSARY | {"self_training": {"start": 0.2}}])
@pytest.mark.parametrize("killed", [2, 4, 7])
def test_killed_and_resumed_equals_unbroken_bit_for_bit(tmp_path, changes, killed):
    method, model = built(**changes)
    optimizer = build_optimizer(model, TRAIN)
    for step in range(STEPS):
        if step == killed:
            path = save_checkpoint(tmp_path, step, model, optimizer)
        take_step(method, model, optimizer, batches(step), TRAIN, step)
    torch.manual_seed(99)
    _, other = built(**changes)
    again = build_optimizer(other, TRAIN)
    for step in range(load_checkpoint(path, other, again), STEPS):
        take_step(method, other, again, batches(step), TRAIN, step)
    assert not changed(state_of(model), state_of(other))
    assert evolving_state(model).keys() >= {"learner.labels.drawn"}


@pytest.mark.parametrize("network", ["language", "deeplab"])
def test_a_finished_bundle_holds_no_learner_and_predicts_alike(tmp_path, network):
    method, model = built(network=network, **ADVERSARY)
    learned(method, model, 0, STEPS)
    config: Config = load("demo", {"method": {"name": "transfer"}})
    config = config.model_copy(update={
        "classes": CLASSES, "method": MethodConfig(name="transfer", settings=SMALL | ADVERSARY | {"network": network})
    })  # fmt: skip
    save_bundle(tmp_path, config, model, model.encoder.architecture)
    predictor = load_bundle(tmp_path)
    assert not [name for name in predictor.model.state_dict() if name.startswith(("learner", "teacher"))]
    images = torch.rand(1, 3, SIDE, SIDE)
    torch.testing.assert_close(
        predictor.logits(images), method.predict(model.eval(), images).detach(), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("progress", [0.0, 0.39, 0.4, 0.9])
def test_every_part_that_learns_in_a_phase_gets_a_gradient(progress):
    method, model = built(**ADVERSARY)
    method.training_step(model, batches(), progress)["total"].backward()
    got = {n for n, p in model.named_parameters() if p.grad is not None}
    wanted = {n for n, p in model.named_parameters() if p.requires_grad}
    first = {n for n in wanted if n.startswith("learner.labels.")}
    assert got == (first if progress < 0.4 else wanted - first)


def test_masks_of_tagged_photos_are_never_read(monkeypatch):
    """Poisoned: what lies where a mask would is no PNG, and reading it would raise."""
    photo = io.BytesIO()
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(photo, "JPEG")
    row = SimpleNamespace(height=40, width=40, tags=("fox",), tags_complete=True, shard="")
    monkeypatch.setattr(stream, "read_sample", lambda *_: (photo.getvalue(), b"poison"))
    steps = stream.Steps(None, [], [row], TRAIN, partner=False, tags=TagReader(CLASSES))
    [crops] = steps.views(0)
    assert crops.images.shape == (2, 3, SIDE, SIDE) and crops.tags.tolist() == [[-1, 0, 0, 1, 0]] * 2
    assert set(vars(crops)) == {"images", "ignored", "hints", "tags"}
    with pytest.raises(DamagedError):
        stream.Steps(None, [row], [], TRAIN)[0]


def test_masks_of_255_alone_teach_nothing():
    guided = SMALL["label_transfer"] | {"activation": {"source": "guide"}, "dice": 0}
    method, model = built(label_transfer=guided)
    step = batches()
    blank = replace(step, labelled=replace(step.labelled, masks=torch.full_like(step.labelled.masks, IGNORE)))
    assert method.training_step(model, blank, 0.0)["total"] == 0
    second = method.training_step(model, blank, 0.9)
    assert second["supervised"] == 0 and second["tags"] > 0
    assert not model.learner["labels"].drawn.any()


def test_background_where_a_tag_names_an_undrawn_class_is_left_out_once_an_object_may_be_there():
    masks = torch.tensor([[[0, 0, 1, IGNORE]], [[0, 0, 1, IGNORE]]])
    foreground = torch.tensor([[[0.2, 0.4, 0.9, 0.9]]]).repeat(2, 1, 1)
    tags = torch.tensor([[-1, 1, 0, 1, 0], [-1, 1, 0, -1, 0]], dtype=torch.int8)
    drawn = torch.tensor([True, True, True, False, False])
    found = doubtful(masks, tags, drawn, foreground, 0, 0.3)
    assert found.tolist() == [[[False, True, False, False]], [[False] * 4]]
    assert not doubtful(masks, None, drawn, foreground, 0, 0.3).any()


def test_the_object_loss_is_cross_entropy_and_dice_of_the_known_pixels():
    logits = torch.randn(1, 6, 6, requires_grad=True)
    target = torch.randint(0, 2, (1, 6, 6))
    target[:, 0] = IGNORE
    known = target != IGNORE
    p, t = logits.sigmoid()[known], (target == 1).float()[known]
    entropy = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
    dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    torch.testing.assert_close(object_loss(logits, target, 0.5), entropy + 0.5 * dice)
    [gradient] = torch.autograd.grad(object_loss(logits, target, 0.5), logits)
    assert (gradient[:, 0] == 0).all() and (gradient[:, 1:] != 0).all()
    assert object_loss(logits, torch.full_like(target, IGNORE), 0.0) == 0


def test_masks_tell_of_the_classes_that_they_show_and_tags_of_the_others():
    masks = torch.tensor([[[0, 1, 1, IGNORE]]])
    drawn = torch.tensor([True, True, True, False, False])
    tags = torch.tensor([[-1, 0, -1, 1, 0]], dtype=torch.int8)
    assert crop_tags(masks, tags, drawn).tolist() == [[1, 1, 0, 1, 0]]
    assert crop_tags(masks, None, drawn).tolist() == [[1, 1, 0, -1, -1]]


def test_a_tagged_class_that_the_pixels_of_255_may_be_is_neither_absent_from_the_crop_nor_there():
    tags = torch.tensor([[-1, 1, 1, 1, 0]], dtype=torch.int8).repeat(3, 1)
    drawn = torch.tensor([True, True, True, False, True])
    masks = torch.tensor([[[0, 1, 1, IGNORE]], [[0, 1, 1, 0]], [[IGNORE] * 4]])
    found = crop_tags(masks, tags, drawn)
    assert found.tolist() == [[1, 1, UNSURE, 1, 0], [1, 1, 0, 1, 0], [-1, UNSURE, UNSURE, 1, 0]]
    logits = torch.randn(3, N)
    counted = (found != UNSURE).index_fill(1, torch.tensor([0]), False)
    each = F.binary_cross_entropy_with_logits(logits, (found == 1).float(), reduction="none")
    torch.testing.assert_close(tag_loss(logits, found, 0, 0.25), each[counted].mean())


def test_a_crop_of_255_alone_calls_no_class_absent_that_its_tags_do_not():
    drawn = torch.tensor([True, True, True, False, False])
    blank = torch.full((1, 2, 2), IGNORE)
    assert crop_tags(blank, None, drawn).tolist() == [[UNKNOWN] * 5]
    tags = torch.tensor([[-1, -1, 0, -1, 0]], dtype=torch.int8)
    assert crop_tags(blank, tags, drawn).tolist() == tags.tolist()


def test_untold_classes_weigh_as_they_are_told_to_and_the_background_never_counts():
    logits = torch.randn(2, N)
    tags = torch.tensor([[-1, 1, 0, -1, -1], [1, 0, 0, 1, -1]], dtype=torch.int8)
    told = [(0, 1, 1.0), (0, 2, 0.0), (1, 1, 0.0), (1, 2, 0.0), (1, 3, 1.0)]
    each = [F.binary_cross_entropy_with_logits(logits[b, c], torch.tensor(t)) for b, c, t in told]
    torch.testing.assert_close(tag_loss(logits, tags, 0), torch.stack(each).mean())
    absent = [F.softplus(logits[b, c]) for b, c in ((0, 3), (0, 4), (1, 4))]
    expected = (sum(each) + 0.25 * sum(absent)) / (len(each) + 0.25 * 3)
    torch.testing.assert_close(tag_loss(logits, tags, 0, 0.25), expected)


def test_pooled_logits_lie_between_the_mean_and_the_largest_and_ignore_a_shift_of_all_classes():
    cells = torch.randn(2, N, 3, 4)
    probability = cells.softmax(1)
    against = (probability / (1 - probability)).log().flatten(2)
    found = pooled_logits(cells)
    assert (found >= against.mean(2)).all() and (found <= against.amax(2)).all()
    torch.testing.assert_close(found, (5 * against).exp().mean(2).log() / 5, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pooled_logits(cells + 7), found, rtol=1e-4, atol=1e-4)


def test_weak_labels_of_a_step_hold_no_untagged_class_and_are_255_in_padding():
    method, model = built()
    learned(method, model, 0, 4)
    step = batches()
    made = label_transfer.labelled_by(model.learner["labels"], None, step.unlabelled, method.settings.label_transfer)
    assert (made.labels[:, -4:] == IGNORE).all()
    for label, tags in zip(made.labels, step.unlabelled.tags, strict=True):
        assert set(label.unique().tolist()) <= {0, IGNORE, *(tags == 1).nonzero()[:, 0].tolist()}


def test_a_guide_or_label_maps_take_the_classifiers_place():
    guided = {"label_transfer": SMALL["label_transfer"] | {"activation": {"source": "guide"}}}
    method, model = built(**guided)
    assert method.takes_guide and model.learner["labels"].classifier is None
    learned(method, model, 0, 4)
    step = batches()
    by_guide = method.training_step(model, step, 0.9)
    assert by_guide["total"].isfinite()
    del model.teacher
    hints = torch.full((2, SIDE, SIDE), 3)
    hinted = replace(step, unlabelled=replace(step.unlabelled, hints=hints))
    made = label_transfer.labelled_by(model.learner["labels"], None, hinted.unlabelled, method.settings.label_transfer)
    assert set(made.labels.unique().tolist()) <= {0, 3, 2, IGNORE} and (made.labels == 3).any()


@pytest.mark.parametrize("source", ["diffusion", "product", "activation"])
def test_a_photo_without_a_label_map_is_255_where_its_tags_may_be_either(source):
    band = {"low": 0.3, "high": 0.3} if source == "activation" else {"low": 0.0, "high": 0.0}
    labels = SMALL["label_transfer"]["labels"] | {"source": source} | band
    how = SMALL["label_transfer"] | {"activation": {"source": "guide"}, "labels": labels}
    method, model = built(label_transfer=how)
    step = batches()  # tags duck and fox, fox and hen
    hints = torch.full((2, SIDE, SIDE), IGNORE)
    hints[0, :8] = 3
    given = replace(step.unlabelled, hints=hints)
    made = label_transfer.labelled_by(model.learner["labels"], None, given, method.settings.label_transfer)
    assert (made.labels[0, :8] == 3).all()
    assert (made.labels[1] == IGNORE).all() and not made.activation.present[1].any()


@pytest.mark.parametrize("changes", [{"adversary": {"strong": 0.01}}, {"adversary": {"weak": 0.01}}])
def test_a_crop_that_the_discriminator_cannot_judge_is_refused_before_the_training(changes):
    small, least = (replace(vlm(), side=side) for side in (LEAST - 1, LEAST))
    method = method_of(**changes)
    with pytest.raises(ConfigError, match=r"CONF063.*train\.crop is 31.*adversary\..*32"):
        method.build(CLASSES, small, True)
    method.build(CLASSES, small, False)
    method.build(CLASSES, least, True)
    method_of().build(CLASSES, small, True)
    shown = {"method": {"settings": changes}, "train": {"crop": 24}}
    with pytest.raises(ConfigError, match=r"CONF063.*train\.crop is 24"):
        summary(load("scenes-transfer", shown))


def test_a_class_map_without_a_background_and_self_training_without_a_judge_are_refused():
    method = method_of()
    objects = Classes(classes=CLASSES.classes[1:])
    with pytest.raises(ConfigError, match=r"CONF060.*background"):
        method.build(objects, vlm(), True)
    with pytest.raises(ConfigError, match=r"CONF061.*adversary\.weak"):
        method_of(self_training={"start": 0.5})


def test_the_label_nets_encoder_and_the_discriminator_have_rates_of_their_own():
    _, model = built(**ADVERSARY)
    config = TRAIN.model_copy(update={"backbone_multiplier": 0.01, "discriminator_multiplier": 0.5})
    names = {id(p): n for n, p in model.named_parameters()}
    found = defaultdict(set)
    for group in build_optimizer(model, config).param_groups:
        found[group["multiplier"]] |= {names[id(p)] for p in group["params"]}
    assert found[0.5] == {n for n in names.values() if n.startswith("learner.discriminator.")}
    assert {n.split(".")[0] for n in found[0.01]} == {"encoder", "learner"}
    assert all(".encoder." in n for n in found[0.01] if n.startswith("learner"))


@pytest.mark.parametrize("step", [0, 9])
def test_bfloat16_keeps_weights_and_losses_in_float32(step):
    found = []
    for precision in ("fp32", "bf16"):
        method, model = built(**ADVERSARY)
        found.append(take_step(method, model, build_optimizer(model, TRAIN), batches(), TRAIN, step, precision))
    full, half = found
    assert {p.dtype for p in model.parameters()} == {torch.float32} == {v.dtype for v in half.values()}
    name = "supervised" if step else "objects"
    torch.testing.assert_close(half[name], full[name], rtol=0.05, atol=0.05)


def test_a_tag_is_held_against_the_model_only_where_its_class_is_likely_in_the_crop():
    settings = SMALL["label_transfer"]
    one = {"label_transfer": settings | {"activation": settings["activation"] | {"likely": 1.0}}}
    method, model = built(**one)
    step = batches()
    found = method.training_step(model, step, 0.9)["tags"]
    made = label_transfer.labelled_by(model.learner["labels"], None, step.unlabelled, method.settings.label_transfer)
    assert made.activation.present.sum(1).tolist() == [1, 1], "the likeliest of two tags"
    seen = step.unlabelled.tags.masked_fill((step.unlabelled.tags == 1) & ~made.activation.present, -1)
    images = torch.cat([step.labelled.images, step.unlabelled.images]) / 255
    pooled = pooled_logits(model.cells(model.features(images))[2:])
    torch.testing.assert_close(found, tag_loss(pooled, seen, 0))
    assert not torch.equal(found, tag_loss(pooled, step.unlabelled.tags, 0))
