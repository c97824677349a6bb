"""UniMatch's step (spec semivl.md, 1.4, 1.5 and 8)."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from semivl.config import MethodConfig, TrainConfig
from semivl.data.stream import Batches, Labelled, Unlabelled
from semivl.errors import ConfigError
from semivl.methods import as_float, create, unimatch
from semivl.methods.unimatch import UniMatchModel
from semivl.nets.encoder import DenseEncoder
from semivl.nets.vlm import DenseVLM
from semivl.training.checkpoint import load_checkpoint, save_checkpoint
from semivl.training.step import build_optimizer, take_step
from tests.tiny import CLASSES, SIDE, N, tiny_batches, tiny_vlm


def method_and_model(**settings):
    method = create(MethodConfig(name="unimatch", settings=settings))
    torch.manual_seed(3)
    return method, method.build(CLASSES, tiny_vlm(), True)


def step(method, model, batches: Batches, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return method.training_step(model, batches, 0.0)


@pytest.fixture
def undistorted(monkeypatch):
    """Strong views that are the weak ones, and no CutMix."""
    monkeypatch.setattr(unimatch, "strong_view", lambda images: images)
    monkeypatch.setattr(unimatch, "cutmix_boxes", lambda n, side: torch.zeros(n, side, side, dtype=torch.bool))


@pytest.fixture
def replaced(monkeypatch):
    """Strong views that are the partners, whole."""
    monkeypatch.setattr(unimatch, "strong_view", lambda images: images)
    monkeypatch.setattr(unimatch, "cutmix_boxes", lambda n, side: torch.ones(n, side, side, dtype=torch.bool))


def with_weak_views_labelled(batches: Batches) -> Batches:
    """The labelled images are the weak views, so that BatchNorm sees the same statistics in every pass."""
    return Batches(Labelled(batches.unlabelled.images, batches.labelled.masks), batches.unlabelled, batches.partner)


@pytest.mark.parametrize("features", ["normed", "clip"])
@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
def test_logits_have_the_images_size(features, size):
    method, model = method_and_model(features=features)
    assert method.predict(model.eval(), torch.rand(2, 3, *size)).shape == (2, N, *size)


def test_the_head_reads_the_final_norms_output_or_clips_own_features():
    images = torch.rand(2, 3, SIDE, SIDE)
    _, normed = method_and_model(features="normed")
    low, high = normed.features(images)
    assert low.shape == high.shape == (2, 16, 4, 4)
    torch.testing.assert_close(high, normed.encoder.outputs(images, [2])[0])
    _, clip = method_and_model(features="clip")
    low, high = clip.features(images)
    features = clip.encoder(images)
    assert torch.equal(low, features.skips[-1]) and torch.equal(high, features.dense)


def changed(**architecture) -> DenseVLM:
    encoder = DenseEncoder(tiny_vlm().encoder.architecture.model_copy(update=architecture))
    return DenseVLM(encoder, None)


def test_twelve_blocks_are_read_at_the_fifth_and_the_last():
    assert UniMatchModel(changed(layers=12), N, clip=False).blocks == (4, 11)


def test_clips_features_need_a_skip_block_and_normed_ones_do_not():
    UniMatchModel(changed(skip_blocks=()), N, clip=False)
    with pytest.raises(ConfigError, match=r"CONF025.*vlm\.skip_blocks"):
        UniMatchModel(changed(skip_blocks=()), N, clip=True)


def test_an_encoder_without_text_will_do():
    vlm = changed(embedding=0, pre_norm=False, patch_bias=True, layer_scale=True, registers=2)
    for features in ("normed", "clip"):
        model = create(MethodConfig(name="unimatch", settings={"features": features})).build(CLASSES, vlm, True)
        assert model(torch.rand(2, 3, SIDE, SIDE)).shape == (2, N, SIDE, SIDE)


def test_without_distortion_the_loss_is_that_of_the_models_own_labels(undistorted):
    method, model = method_and_model(confidence=0.0, dropout=0.0)
    batches = with_weak_views_labelled(tiny_batches())
    losses = step(method, model, batches)
    with torch.no_grad():
        logits = model(as_float(batches.unlabelled.images))
    expected = F.cross_entropy(logits, logits.argmax(1))
    torch.testing.assert_close(losses["consistency"], expected, atol=1e-5, rtol=1e-4)


def test_perturbed_features_weigh_half(replaced):
    method, model = method_and_model(confidence=0.0, dropout=0.0)
    batches = with_weak_views_labelled(tiny_batches())
    padding = Unlabelled(batches.partner.images, torch.ones_like(batches.partner.ignored))
    losses = step(method, model, Batches(batches.labelled, batches.unlabelled, padding))
    with torch.no_grad():
        logits = model(as_float(batches.unlabelled.images))
    expected = F.cross_entropy(logits, logits.argmax(1)) / 2
    torch.testing.assert_close(losses["consistency"], expected, atol=1e-5, rtol=1e-4)


def test_no_confidence_means_no_consistency_at_all():
    method, model = method_and_model(confidence=1.0)
    losses = step(method, model, tiny_batches())
    assert losses["consistency"] == 0 and losses["confident_share"] == 0
    torch.testing.assert_close(losses["total"], losses["supervised"] / 2)


def test_all_ignored_gives_zero_and_no_nan():
    method, model = method_and_model(confidence=0.0)
    batches = tiny_batches()
    batches.unlabelled.ignored.fill_(True)
    batches.partner.ignored.fill_(True)
    assert step(method, model, batches)["consistency"] == 0


def test_the_total_is_half_the_sum():
    method, model = method_and_model(confidence=0.0)
    losses = step(method, model, tiny_batches())
    assert losses["consistency"] > 0
    torch.testing.assert_close(losses["total"], (losses["supervised"] + losses["consistency"]) / 2)


def test_the_same_seed_gives_the_same_step():
    method, model = method_and_model(confidence=0.0, drop_path=0.5)
    twin = copy.deepcopy(model)
    first, second = (step(method, m, tiny_batches(), seed=5) for m in (model, twin))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), twin.buffers(), strict=True))


def test_the_partners_prediction_leaves_batch_norm_alone_and_the_mode_as_it_was():
    _, model = method_and_model()
    before = copy.deepcopy(dict(model.named_buffers()))
    unimatch._believed_in_eval_mode(model, torch.rand(2, 3, SIDE, SIDE), torch.zeros(2, SIDE, SIDE, dtype=torch.bool))
    assert model.training and model.decoder.training
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())


def test_boxes_are_filled_from_other_crops_or_from_the_reversed_batch(replaced, monkeypatch):
    for choice in ("same_image", "reversed"):
        method, model = method_and_model(cutmix_partner=choice, confidence=0.0)
        assert method.partner == (choice == "same_image")
        batches = tiny_batches()
        batches = batches if method.partner else Batches(batches.labelled, batches.unlabelled)
        partner = batches.partner if method.partner else batches.unlabelled.reversed()
        seen = []
        features = model.features
        monkeypatch.setattr(model, "features", lambda images, f=features, s=seen: (s.append(images), f(images))[1])
        assert torch.isfinite(step(method, model, batches)["total"])
        assert torch.equal(seen[-1], as_float(partner.images).repeat(2, 1, 1, 1))


def test_a_batch_of_one_trains():
    method, model = method_and_model()
    assert torch.isfinite(step(method, model, tiny_batches(batch=1))["total"])


@pytest.mark.parametrize(
    ("settings", "unused"),
    [
        ({}, "encoder.projection"),
        ({"features": "clip"}, "none"),
        ({"features": "clip", "trains": "spatial"}, "none"),
    ],
)
def test_every_trainable_tensor_gets_a_gradient(settings, unused):
    method, model = method_and_model(confidence=0.0, **settings)
    step(method, model, tiny_batches())["total"].backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not [n for n in trained if n.startswith(unused)]
    in_encoder = {n for n in trained if n.startswith("encoder.")}
    spatial = {n for n in in_encoder if "_proj" in n or n == "encoder.position"}
    assert in_encoder and (in_encoder == spatial) == (settings.get("trains") == "spatial")


def test_drop_path_is_of_the_training_alone_and_grows_with_depth():
    _, model = method_and_model(drop_path=0.9)
    assert [block.drop_path for block in model.encoder.blocks] == [0.0, 0.45, 0.9]
    images = torch.rand(2, 3, SIDE, SIDE)
    model.eval()
    assert torch.equal(model(images), model(images))


def test_twenty_steps_on_one_batch_lower_the_supervised_loss():
    method, model = method_and_model()
    config = TrainConfig(steps=20, batch=2, crop=SIDE, learning_rate=1e-3, backbone_multiplier=0.1)
    optimizer = build_optimizer(model, config)
    batches = tiny_batches()
    batches.labelled.masks[:] = torch.arange(SIDE) * N // SIDE
    losses = [take_step(method, model, optimizer, batches, config, done)["supervised"] for done in range(20)]
    assert losses[-1] < 0.8 * losses[0]


def test_resumed_training_equals_an_unbroken_one_batch_norms_statistics_included(tmp_path):
    config = TrainConfig(steps=4, batch=2, crop=SIDE, learning_rate=1e-3)
    method, model = method_and_model(confidence=0.3)
    optimizer = build_optimizer(model, config)
    for done in range(2):
        take_step(method, model, optimizer, tiny_batches(seed=done), config, done)
    path = save_checkpoint(tmp_path, 2, model, optimizer)
    _, other = method_and_model(confidence=0.3)
    other_optimizer = build_optimizer(other, config)
    assert load_checkpoint(path, other, other_optimizer) == 2
    for done in range(2, 4):
        take_step(method, model, optimizer, tiny_batches(seed=done), config, done)
        take_step(method, other, other_optimizer, tiny_batches(seed=done), config, done)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())
