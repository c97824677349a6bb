"""What memory is expected, and what happens when there is not enough."""

import pytest
import torch
from torch import nn

from semivl.config import ComputeConfig, MethodConfig, load
from semivl.data.stream import Batches, Labelled
from semivl.errors import TrainingError
from semivl.methods import create
from semivl.training.checkpoint import newest_whole
from semivl.training.memory import MIB, LiveBytes, expected
from semivl.training.observe import Unobserved
from semivl.training.step import build_optimizer, take_step
from semivl.training.trainer import Run, apply_compute, memory_advice
from tests.tiny import CLASSES, SHAPE, SIDE, tiny_batches, tiny_vlm

CONFIG = load("demo", {"train": {"steps": 9, "batch": 2, "crop": SIDE}, "evaluation": {"window": SIDE, "batch": 2}})


def semivl():
    method = create(MethodConfig(name="semivl", settings={"decoder": SHAPE.model_dump()}))
    return method, method.build(CLASSES, tiny_vlm(), True, tiny_vlm()).train()


def test_live_bytes_are_those_of_the_tensors_that_are_alive():
    with LiveBytes([]) as live:
        first = torch.zeros(1000)
        second = first.view(10, 100)
        third = torch.zeros(500) + 1
        assert live.now == 4000 + 2000
        assert live.peak == 4000 + 2 * 2000
        del first, third
        assert live.now == 4000
        del second
        assert live.now == 0


def test_weights_that_were_there_before_do_not_count():
    layer = nn.Linear(100, 100)
    with LiveBytes(layer.parameters()) as live:
        layer(torch.zeros(1, 100))
        assert live.peak < 2000


@pytest.mark.parametrize("name", ["supervised", "semivl", "unimatch", "unimatch_v2"])
def test_the_rehearsed_peak_is_near_that_of_a_real_step(name):
    settings = {"decoder": SHAPE.model_dump()} if name in ("supervised", "semivl") else {}
    method = create(MethodConfig(name=name, settings=settings))
    model = method.build(CLASSES, tiny_vlm(), True, tiny_vlm()).train()
    needs = expected(CONFIG, method, model)
    optimizer = build_optimizer(model, CONFIG.train)
    with LiveBytes([*model.parameters(), *model.buffers()]) as live:
        take_step(method, model, optimizer, tiny_batches(), CONFIG.train, 0)
    weights = sum(t.nbytes for t in model.state_dict().values())
    real = (weights + live.peak) / MIB
    assert needs.weights == pytest.approx(weights / MIB)
    assert 0.6 < needs.training / real < 1.4


def test_decoding_few_classes_at_once_is_expected_to_need_less():
    method, model = semivl()
    needs = []
    for chunk in (None, 1):
        apply_compute(model, ComputeConfig(class_chunk=chunk))  # pyright: ignore[reportCallIssue]
        needs.append(expected(CONFIG, method, model).training)
    assert needs[1] < needs[0]


def test_out_of_memory_keeps_the_last_step_and_advises(tmp_path, store):
    method, model = semivl()
    run = Run(
        CONFIG,
        method,
        model,
        build_optimizer(model, CONFIG.train),
        torch.device("cpu"),
        Unobserved(),
        tmp_path,
        store,
        "key",
    )
    normal = tiny_batches()
    far_too_large = torch.zeros(1, 3, 1, 1, dtype=torch.uint8).expand(1, 3, 2**20, 2**20)
    huge = Batches(Labelled(far_too_large, normal.labelled.masks), normal.unlabelled, normal.partner)
    with pytest.raises(
        TrainingError, match=r"TRAIN006 after step 2, cpu had too little memory.*2 steps are kept in step-00000002"
    ) as caught:
        run.steps(0, [normal, normal, huge], {})
    assert caught.value.remedy.startswith("Set compute.class_chunk=5 and run again: it goes on")
    assert "another training with compute.precision=bf16, or train.batch=1" in caught.value.remedy
    kept = newest_whole(tmp_path)
    assert kept and kept.name == "step-00000002"
    assert any(key.endswith("step-00000002/state.json") for key in store.list("checkpoints/key/"))


def test_advice_names_only_what_can_still_be_lowered():
    lowest = {"compute": {"class_chunk": 1, "precision": "bf16"}, "train": {"batch": 1, "crop": 64}}
    assert memory_advice(load("demo", lowest)).startswith("Or start another training with train.crop=48.")
