"""What a training says of its own speed, its profiler's trace, and the way of a batch to its device."""

import gzip
import json
import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from semivl.config import ComputeConfig, load
from semivl.data.stream import Batches
from semivl.methods import create
from semivl.training.compute import apply_compute
from semivl.training.feed import on_device
from semivl.training.meter import Meter, peak_tflops
from semivl.training.observe import Unobserved
from semivl.training.step import build_optimizer, take_step
from semivl.training.trainer import Run
from tests.tiny import CLASSES, SHAPE, SIDE, tiny_batches, tiny_vlm

CPU = torch.device("cpu")
STEPS = 5


class Notes(Unobserved):
    def __init__(self) -> None:
        self.values: dict[int, dict[str, float]] = {}
        self.kept: list = []

    def metrics(self, step, values) -> None:
        self.values[step] = values

    def artifact(self, path) -> None:
        self.kept.append(path)


def run(folder, store, **compute) -> Notes:
    """Five steps of SemiVL on batches in memory, each a point of the curves."""
    train = {"steps": STEPS, "batch": 2, "crop": SIDE, "log_every": 1, "preview_every": 1000}
    settings = {"decoder": SHAPE.model_dump()}
    config = load("demo", {"train": train, "compute": compute, "method": {"settings": settings}})
    method = create(config.method)
    model = method.build(CLASSES, tiny_vlm(), True, tiny_vlm()).train()
    apply_compute(model, config.compute)
    told = Notes()
    kept = Run(config, method, model, build_optimizer(model, config.train), CPU, told, folder, store, "key")
    kept.steps(0, [tiny_batches(seed=s) for s in range(STEPS)], {})
    return told


def compute(**settings) -> ComputeConfig:
    return ComputeConfig(**settings)


def test_every_point_tells_speed_and_waiting(tmp_path, store):
    told = run(tmp_path, store)
    for values in told.values.values():
        assert values["train/images_per_second"] == pytest.approx(4 / values["train/seconds_per_step"])
        assert 0 <= values["train/data_wait_share"] < 1
        assert "train/flops_utilisation" not in values  # nobody knows the peak of a CPU


def test_utilisation_is_the_steps_operations_over_time_and_peak(tmp_path, store):
    values = run(tmp_path, store, peak_tflops=0.5).values
    whole = load("demo", {"method": {"settings": {"decoder": SHAPE.model_dump()}}})
    method, config = create(whole.method), whole.train
    model = method.build(CLASSES, tiny_vlm(), True, tiny_vlm()).train()
    apply_compute(model, whole.compute)
    with FlopCounterMode(display=False) as counter:
        take_step(method, model, build_optimizer(model, config), tiny_batches(seed=0), config, 0)
    for point in values.values():
        expected = counter.get_total_flops() / point["train/seconds_per_step"] / 0.5e12
        assert point["train/flops_utilisation"] == pytest.approx(expected, rel=0.05)


def test_counting_operations_changes_no_loss(tmp_path, store):
    for folder in ("plain", "counted"):
        (tmp_path / folder).mkdir()
    plain = run(tmp_path / "plain", store).values
    counted = run(tmp_path / "counted", store, peak_tflops=0.5).values
    assert [v["train/total"] for v in plain.values()] == [v["train/total"] for v in counted.values()]


def test_channels_last_computes_the_same_within_rounding(tmp_path, store):
    for folder in ("plain", "last"):
        (tmp_path / folder).mkdir()
    plain = run(tmp_path / "plain", store).values
    last = run(tmp_path / "last", store, channels_last=True).values
    for step, values in plain.items():
        assert last[step]["train/total"] == pytest.approx(values["train/total"], rel=1e-5)


def test_profiled_steps_leave_their_trace(tmp_path, store):
    told = run(tmp_path, store, profile="1-3")
    (path,) = told.kept
    assert path.name == "trace-1-3.json.gz"
    with gzip.open(path, "rt") as file:
        names = [event["name"] for event in json.load(file)["traceEvents"] if "name" in event]
    assert sum(name.startswith("Optimizer.step#AdamW") for name in names) == 2


def test_waiting_for_data_is_told_apart_from_work():
    def slow():
        for seed in range(3):
            time.sleep(0.2)
            yield tiny_batches(seed=seed)

    meter = Meter(compute(), CPU)
    for _ in meter.timed(slow()):
        time.sleep(0.1)
    values = meter.read()
    assert 0.5 < values["data_wait_share"] < 0.8 and values["images_per_second"] < 4 * 3 / 0.9


def test_known_devices_have_a_peak_and_others_the_one_that_is_set():
    assert peak_tflops(compute(), CPU) is None
    assert peak_tflops(compute(peak_tflops=3.5), CPU) == 3.5


def test_on_a_cpu_batches_come_as_they_are():
    made = [tiny_batches(seed=s) for s in range(3)]
    for before, after in zip(made, on_device(made, CPU), strict=True):
        assert before.labelled and after.labelled and torch.equal(before.labelled.images, after.labelled.images)
    assert Batches(labelled=made[0].labelled).images == 2 and made[0].images == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_are_pinned_and_copied_to_the_gpu():
    made = [tiny_batches(seed=s).pin_memory() for s in range(3)]
    assert made[0].labelled and made[0].labelled.images.is_pinned()
    for before, after in zip(made, on_device(made, torch.device("cuda")), strict=True):
        assert before.labelled and after.labelled and torch.equal(before.labelled.images, after.labelled.images.cpu())
