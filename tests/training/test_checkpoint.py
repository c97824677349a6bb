"""Checkpoints and steps: a resumed training takes the very steps of an unbroken one."""

import pytest
import torch

from semivl.config import MethodConfig, TrainConfig, load
from semivl.methods import create
from semivl.training.bundle import train_key
from semivl.training.checkpoint import checkpoints, keep_newest, load_checkpoint, newest_whole, save_checkpoint
from semivl.training.step import build_optimizer, learning_rate, take_step
from tests.tiny import CLASSES, SHAPE, tiny_batches, tiny_vlm

CONFIG = TrainConfig(steps=6, batch=2, crop=32, learning_rate=1e-3)
METHOD = create(MethodConfig(name="semivl", settings={"decoder": SHAPE.model_dump(), "confidence": 0.3}))


def fresh():
    model = METHOD.build(CLASSES, tiny_vlm(), True)
    return model, build_optimizer(model, CONFIG)


def losses_of(model, optimizer, steps):
    return [take_step(METHOD, model, optimizer, tiny_batches(seed=s), CONFIG, s)["total"].item() for s in steps]


@pytest.mark.parametrize("method", ["semivl", "supervised"])
def test_the_same_step_gives_the_same_loss_to_the_last_bit(method):
    chosen = create(MethodConfig(name=method, settings={"decoder": SHAPE.model_dump()}))
    totals = set()
    for _ in range(2):
        model = chosen.build(CLASSES, tiny_vlm(), True)
        totals.add(take_step(chosen, model, build_optimizer(model, CONFIG), tiny_batches(), CONFIG, 4)["total"].item())
    assert len(totals) == 1


def test_resumed_training_equals_an_unbroken_one_bit_for_bit(tmp_path):
    torch.manual_seed(0)
    model, optimizer = fresh()
    before = losses_of(model, optimizer, range(3))
    path = save_checkpoint(tmp_path, 3, model, optimizer)
    after = losses_of(model, optimizer, range(3, 6))
    assert len(set(before + after)) == 6

    torch.manual_seed(99)
    other, other_optimizer = fresh()
    assert load_checkpoint(path, other, other_optimizer) == 3
    assert losses_of(other, other_optimizer, range(3, 6)) == after
    assert all(torch.equal(p, dict(other.named_parameters())[n]) for n, p in model.named_parameters())


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "no state"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, damage):
    model, optimizer = fresh()
    losses_of(model, optimizer, range(1))
    good = save_checkpoint(tmp_path, 1, model, optimizer)
    bad = save_checkpoint(tmp_path, 2, model, optimizer)
    assert newest_whole(tmp_path) == bad
    file = bad / "model.safetensors"
    body = bytearray(file.read_bytes())
    match damage:
        case "cut":
            file.write_bytes(body[: len(body) // 2])
        case "flipped":
            body[-1] ^= 1
            file.write_bytes(body)
        case "missing":
            file.unlink()
        case "no state":
            (bad / "state.json").unlink()
    assert newest_whole(tmp_path) == good


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    model, optimizer = fresh()
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, model, optimizer)
    keep_newest(tmp_path, 2)
    assert [c.name for c in checkpoints(tmp_path)] == ["step-00000003", "step-00000002"]


def test_learning_rate_follows_the_polynomial_of_the_paper():
    config = TrainConfig(steps=100, learning_rate=1e-4)
    assert learning_rate(config, 0) == learning_rate(config, 1) == 1e-4
    assert learning_rate(config, 51) == pytest.approx(1e-4 * 0.5**0.9)
    assert learning_rate(config, 99) == pytest.approx(1e-4 * 0.02**0.9)


def test_two_groups_with_the_papers_multipliers_hold_all_that_trains():
    model, optimizer = fresh()
    take_step(METHOD, model, optimizer, tiny_batches(), TrainConfig(crop=32), 0)
    backbone, rest = optimizer.param_groups
    assert (backbone["lr"], rest["lr"]) == pytest.approx((1e-6, 1e-3))
    assert backbone["weight_decay"] == rest["weight_decay"] == 0.01
    held = {id(p) for group in (backbone, rest) for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}


def test_other_weights_of_the_encoder_make_another_training(tmp_path):
    weights = tmp_path / "open_clip_model.safetensors"
    config = load("demo", {"vlm": {"model": f"local-dir:{tmp_path}"}})
    keys = []
    for body in (b"first", b"second", b"first"):
        weights.write_bytes(body)
        keys.append(train_key(config, "v1"))
    assert keys[0] == keys[2] != keys[1]
    assert train_key(config, "v2") != train_key(config, "v1")


def test_the_train_key_names_precision_guide_and_label_maps(tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / "a.png").write_bytes(b"one")
    keys = [
        train_key(load("demo", changes), "v1")
        for changes in (
            {},
            {"compute": {"precision": "bf16"}},
            {"guidance": {"vlm": "clip-vit-b16"}},
            {"guidance": {"labels": str(maps)}},
        )
    ]
    (maps / "a.png").write_bytes(b"two")
    keys.append(train_key(load("demo", {"guidance": {"labels": str(maps)}}), "v1"))
    assert len(set(keys)) == 5
    assert train_key(load("demo", {"compute": {"class_chunk": 3}}), "v1") == keys[0]


@pytest.mark.parametrize(
    ("name", "settings"),
    [("semivl", {"decoder": SHAPE.model_dump(), "average": True}), ("unimatch", {}), ("unimatch_v2", {})],
)
def test_running_statistics_and_averages_go_on_too(tmp_path, name, settings):
    method = create(MethodConfig(name=name, settings=settings))

    def run(model, optimizer, steps):
        return [take_step(method, model, optimizer, tiny_batches(seed=s), CONFIG, s)["total"].item() for s in steps]

    unbroken, resumed = (method.build(CLASSES, tiny_vlm(), True).train() for _ in range(2))
    optimizer = build_optimizer(unbroken, CONFIG)
    run(unbroken, optimizer, range(2))
    path = save_checkpoint(tmp_path, 2, unbroken, optimizer)
    expected = run(unbroken, optimizer, range(2, 4))
    other = build_optimizer(resumed, CONFIG)
    load_checkpoint(path, resumed, other)
    assert run(resumed, other, range(2, 4)) == expected
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in unbroken.state_dict().items())


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_each_phase_has_the_schedule_of_a_training_of_its_length(schedule: str):
    own = {"learning_rate": 1e-3, "schedule": schedule, "warmup": 3}
    whole = TrainConfig(steps=50, **own)  # pyright: ignore[reportArgumentType]
    first, second = (TrainConfig(steps=steps, **own) for steps in (30, 20))  # pyright: ignore[reportArgumentType]
    found = [learning_rate(whole, step, restarts=(0.6,)) for step in range(50)]
    assert found[:30] == [learning_rate(first, step) for step in range(30)]
    assert found[30:] == [learning_rate(second, step) for step in range(20)]
