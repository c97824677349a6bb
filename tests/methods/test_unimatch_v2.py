"""UniMatch V2's step: the average, complementary dropout, the losses (spec semivl.md, 4.3 and 8)."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import IGNORE, MethodConfig, TrainConfig
from semivl.data.stream import Batches
from semivl.methods import as_float, create, inference_state, unimatch_v2
from semivl.methods.parts.average import add_average, decay, update
from semivl.methods.unimatch_v2 import complementary_masks, ohem_target
from semivl.training.checkpoint import load_checkpoint, save_checkpoint
from semivl.training.step import build_optimizer, take_step
from tests.tiny import CLASSES, SIDE, N, tiny_batches, tiny_vlm

HEAD = {"features": 8, "channels": [4, 4, 8, 8]}


def method_and_model(**settings):
    method = create(MethodConfig(name="unimatch_v2", settings={"head": HEAD, **settings}))
    torch.manual_seed(3)
    return method, method.build(CLASSES, tiny_vlm(), True)


def step(method, model, batches: Batches, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return method.training_step(model, batches, 0.0)


@pytest.fixture
def undistorted(monkeypatch):
    """Strong views that are the weak ones, no CutMix, no dropout."""
    monkeypatch.setattr(unimatch_v2, "strong_view", lambda images: images)
    monkeypatch.setattr(unimatch_v2, "cutmix_boxes", lambda n, side: torch.zeros(n, side, side, dtype=torch.bool))
    monkeypatch.setattr(unimatch_v2, "complementary_masks", lambda pairs, c, device: torch.ones(2 * pairs, c, 1, 1))


@pytest.mark.parametrize("pairs", [1, 2, 5, 8])
def test_what_one_view_loses_the_other_keeps_doubled(pairs):
    torch.manual_seed(0)
    first, second = complementary_masks(pairs, 64, torch.device("cpu")).split(pairs)
    assert torch.equal(first + second, torch.full_like(first, 2))
    untouched = (first == 1).flatten(1).all(1)
    assert untouched.sum() == pairs // 2
    assert set(first[~untouched].unique().tolist()) == {0.0, 2.0}


def test_masks_drop_half_of_the_channels_and_any_pair_may_stay_whole():
    torch.manual_seed(0)
    drawn = [complementary_masks(2, 16, torch.device("cpu"))[:2] for _ in range(300)]
    whole = torch.stack([(m == 1).flatten(1).all(1) for m in drawn]).float().mean(0)
    torch.testing.assert_close(whole, torch.full((2,), 0.5), atol=0.1, rtol=0)
    dropped = torch.cat([m[(m != 1).flatten(1).any(1)] for m in drawn])
    assert abs(float((dropped == 0).float().mean()) - 0.5) < 0.03


def test_all_four_layers_lose_the_same_channels(monkeypatch):
    method, model = method_and_model(confidence=0.0)
    seen: list[tuple[Tensor, ...]] = []
    monkeypatch.setattr(model, "cells", lambda maps: (seen.append(tuple(maps)), type(model).cells(model, maps))[1])
    step(method, model, tiny_batches(batch=4))
    plain, strong = seen
    assert len(plain[0]) == 4 and len(strong[0]) == 8
    lost = [(m == 0).flatten(2).all(2) for m in strong]
    assert all(torch.equal(lost[0], other) for other in lost)
    first, second = lost[0].split(4)
    assert first.any() and torch.equal(first.any(1), second.any(1)) and not (first & second).any()
    assert (~lost[0].any(1)).sum() == 4


def test_the_average_follows_the_closed_form_and_gets_no_gradient():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    add_average(model)
    average = model.get_submodule("average")
    expected: dict[str, Tensor] = {}
    for done in range(3):
        kept = min(1 - 1 / (done + 1), 0.996)
        assert decay(done) == kept
        with torch.no_grad():
            model[0].weight.add_(torch.randn(2, 3))
        nn.Sequential(*model[:2])(torch.randn(8, 3)).sum().backward()
        state = {n: t.clone() for n, t in model.state_dict().items() if not n.startswith("average.")}
        expected = {n: t if not done else kept * expected[n] + (1 - kept) * t for n, t in state.items()}
        update(model, done)
        if not done:
            assert all(torch.equal(average.state_dict()[n], t) for n, t in state.items())
    for name, tensor in average.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, expected[name])
    assert average.state_dict()["1.num_batches_tracked"] == 3
    assert all(p.grad is None and not p.requires_grad for p in average.parameters())
    assert decay(10_000) == 0.996


def test_the_average_labels_in_eval_mode_and_is_not_moved_by_gradients():
    method, model = method_and_model(confidence=0.0)
    average = model.get_submodule("average")
    model.encoder.set_drop_path(0.9)
    average.encoder.set_drop_path(0.9)
    model.train()
    before = copy.deepcopy(average.state_dict())
    images, ignored = torch.rand(2, 3, SIDE, SIDE), torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    first, second = (unimatch_v2._believed(model, images, ignored) for _ in range(2))
    assert torch.equal(first.confidence, second.confidence)
    assert model.training and not average.training
    step(method, model, tiny_batches())["total"].backward()
    assert all(p.grad is None for p in average.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in average.state_dict().items())


def test_the_labels_are_the_averages_not_the_students(undistorted):
    method, model = method_and_model(confidence=0.0)
    with torch.no_grad():
        model.get_submodule("average").decoder.head[2].bias.copy_(torch.tensor([0.0, 50.0, 0.0]))
    batches = tiny_batches()
    losses = step(method, model, batches)
    logits = model(as_float(batches.unlabelled.images))
    expected = F.cross_entropy(logits, torch.ones(2, SIDE, SIDE, dtype=torch.int64))
    torch.testing.assert_close(losses["consistency"], expected.detach(), atol=1e-5, rtol=1e-4)


def test_without_distortion_the_loss_is_that_of_the_models_own_labels(undistorted):
    method, model = method_and_model(confidence=0.0)
    batches = tiny_batches()
    losses = step(method, model, batches)
    with torch.no_grad():
        logits = model(as_float(batches.unlabelled.images))
    torch.testing.assert_close(losses["consistency"], F.cross_entropy(logits, logits.argmax(1)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(losses["total"], (losses["supervised"] + losses["consistency"]) / 2)


def test_boxes_are_filled_from_the_reversed_batch_labels_included(undistorted, monkeypatch):
    method, model = method_and_model(confidence=0.0)
    batches = tiny_batches()
    plain = step(method, model, batches)["consistency"]
    monkeypatch.setattr(unimatch_v2, "cutmix_boxes", lambda n, side: torch.ones(n, side, side) > 0)
    seen, features = [], model.features
    monkeypatch.setattr(model, "features", lambda images: (seen.append(images), features(images))[1])
    mixed = step(method, model, batches)["consistency"]
    assert torch.equal(seen[-1], as_float(batches.unlabelled.images).flip(0).repeat(2, 1, 1, 1))
    torch.testing.assert_close(mixed, plain)


def test_no_confidence_means_no_consistency_at_all():
    method, model = method_and_model(confidence=1.0)
    losses = step(method, model, tiny_batches())
    assert losses["consistency"] == 0
    torch.testing.assert_close(losses["total"], losses["supervised"] / 2)


def test_the_same_seed_gives_the_same_step_and_no_partner_is_read():
    method, model = method_and_model(confidence=0.0)
    batches = tiny_batches(batch=3)
    alone = Batches(batches.labelled, batches.unlabelled)
    assert not method.partner
    first, second = step(method, model, batches, seed=5), step(method, copy.deepcopy(model), alone, seed=5)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(step(method, model, batches, seed=6)["total"], first["total"])


def test_a_batch_of_one_trains():
    method, model = method_and_model(confidence=0.0)
    assert torch.isfinite(step(method, model, tiny_batches(batch=1))["total"])


@pytest.mark.parametrize("trains", ["all", "spatial", "none"])
def test_every_trainable_tensor_gets_a_gradient_and_the_encoder_may_be_locked(trains):
    method, model = method_and_model(confidence=0.0, trains=trains)
    step(method, model, tiny_batches())["total"].backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert not [n for n, p in trained.items() if p.grad is None]
    assert any(n.startswith("encoder.") for n in trained) == (trains != "none")
    assert not any(n.startswith(("average.", "encoder.projection")) for n in trained)


def test_prediction_is_the_averages_except_while_training():
    method, model = method_and_model()
    with torch.no_grad():
        model.decoder.head[2].bias.add_(1.0)
    images = torch.rand(2, 3, 33, 47)
    average = model.get_submodule("average")
    torch.testing.assert_close(method.predict(model, images), model(images))
    model.eval()
    assert torch.equal(method.predict(model, images), average(images))
    assert not torch.equal(model(images), average(images))
    plain = method.build(CLASSES, tiny_vlm(seed=5), False)
    plain.load_state_dict(inference_state(model))
    assert torch.equal(method.predict(plain.eval(), images), average(images))


def test_ohem_is_the_mean_over_the_hardest_pixels():
    torch.manual_seed(0)
    logits, masks = 3 * torch.randn(2, N, 8, 8), torch.randint(0, N, (2, 8, 8))
    masks[0, :4] = IGNORE
    labelled = masks != IGNORE
    probability = logits.softmax(1).gather(1, masks.masked_fill(~labelled, 0)[:, None])[:, 0]
    each = F.cross_entropy(logits, masks, ignore_index=IGNORE, reduction="none")

    def loss(threshold: float, kept: int) -> Tensor:
        target = ohem_target(logits, masks, threshold, kept)
        assert target.weight.dtype == torch.float32 and (target.weight[~labelled] == 0).all()
        return (each * target.weight).sum()

    torch.testing.assert_close(loss(0.7, 1), each[labelled & (probability <= 0.7)].mean())
    hardest = each[labelled].sort(descending=True).values
    torch.testing.assert_close(loss(0.0, 10), hardest[:10].mean())
    torch.testing.assert_close(loss(0.7, 10_000), F.cross_entropy(logits, masks, ignore_index=IGNORE))
    assert ohem_target(logits, torch.full_like(masks, IGNORE)).weight.sum() == 0


def test_ohem_with_few_pixels_is_plain_cross_entropy_in_the_step():
    plain, hard = (step(*method_and_model(ohem=ohem), tiny_batches())["supervised"] for ohem in (False, True))
    torch.testing.assert_close(plain, hard)


def test_twenty_steps_on_one_batch_lower_the_supervised_loss_and_move_the_average():
    method, model = method_and_model()
    config = TrainConfig(steps=20, batch=2, crop=SIDE, learning_rate=1e-3, backbone_multiplier=0.1)
    optimizer = build_optimizer(model, config)
    before = copy.deepcopy(model.get_submodule("average").state_dict())
    batches = tiny_batches()
    batches.labelled.masks[:] = torch.arange(SIDE) * N // SIDE
    losses = [take_step(method, model, optimizer, batches, config, done)["supervised"] for done in range(20)]
    assert losses[-1] < 0.8 * losses[0]
    after = model.get_submodule("average").state_dict()
    assert not torch.equal(before["decoder.head.0.weight"], after["decoder.head.0.weight"])


def test_resumed_training_equals_an_unbroken_one_its_average_and_a_locked_encoder_included(tmp_path):
    config = TrainConfig(steps=4, batch=2, crop=SIDE, learning_rate=1e-3)
    method, model = method_and_model(confidence=0.3, trains="none")
    optimizer = build_optimizer(model, config)
    for done in range(2):
        take_step(method, model, optimizer, tiny_batches(seed=done), config, done)
    path = save_checkpoint(tmp_path, 2, model, optimizer)
    _, other = method_and_model(confidence=0.3, trains="none")
    other_optimizer = build_optimizer(other, config)
    assert load_checkpoint(path, other, other_optimizer) == 2
    for done in range(2, 4):
        take_step(method, model, optimizer, tiny_batches(seed=done), config, done)
        take_step(method, other, other_optimizer, tiny_batches(seed=done), config, done)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())
