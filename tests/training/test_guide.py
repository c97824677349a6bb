"""A finished model as teacher: all that its prediction reads goes where the student goes, and none of it is kept."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from semivl.config import MethodConfig, TrainConfig, load
from semivl.methods import create, evolving_state, inference_state
from semivl.training.bundle import save_bundle
from semivl.training.guide import chosen_guide
from semivl.training.step import build_optimizer, take_step
from tests.tiny import CLASSES, SHAPE, SIDE, tiny_batches, tiny_vlm

STUDENT = MethodConfig(name="semivl", settings={"decoder": SHAPE.model_dump(), "guidance": {"threshold": 0.0}})
TEACHER = MethodConfig(name="supervised", settings={"decoder": SHAPE.model_dump()})
TRAIN = TrainConfig(steps=2, crop=SIDE)  # pyright: ignore[reportCallIssue]


class Reading(TorchDispatchMode):
    """Notes where the tensors lie that operations read and none of them made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: set[int] = set()
        self.found: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is not torch.ops.aten.lift_fresh.default:  # which gets a number that Python has just made a tensor of
            self.found |= places(tree_leaves((args, kwargs))) - self.made
        self.made |= places(tree_leaves(result))
        return result


def places(values: Iterable[Any]) -> set[int]:
    return {v.untyped_storage().data_ptr() for v in values if isinstance(v, Tensor) and v.numel()}


def tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


@pytest.fixture(params=["alone", "own keys", "timm"])
def teacher(request: pytest.FixtureRequest, tmp_path: Path) -> nn.Module:
    """A finished model with a language-guided decoder, of which a CPU runs a quicker copy; refined or not."""
    torch.manual_seed(0)
    groups: dict[str, Any] = {"count": 3, "side": None}
    if request.param == "timm":
        torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict(), tmp_path / "dino.pth")
        groups |= {"encoder": "timm:vit_tiny_patch16_224", "weights": str(tmp_path / "dino.pth"), "side": 64}
    refine = None if request.param == "alone" else {"groups": groups}
    config = load("demo", {"evaluation": {"refine": refine}, "compute": {"device": "cpu"}})
    config = config.model_copy(update={"classes": CLASSES, "method": TEACHER})
    vlm = tiny_vlm(seed=3)
    model = create(TEACHER).build(CLASSES, vlm, training=False)
    save_bundle(tmp_path / "model", config, model, vlm.student().architecture)
    guided = config.guidance.model_copy(update={"model": "taught/1"})
    config = config.model_copy(update={"method": STUDENT, "guidance": guided})
    guide = chosen_guide(config, tiny_vlm(), finished=tmp_path / "model")
    assert isinstance(guide, nn.Module)
    return guide


def student_of(teacher: nn.Module) -> nn.Module:
    return create(STUDENT).build(CLASSES, tiny_vlm(), True, teacher).train()


def test_all_that_a_teachers_prediction_reads_moves_with_its_student(teacher: nn.Module) -> None:
    images = torch.rand(2, 3, SIDE, SIDE)
    with Reading() as read:
        teacher(images)
    student = student_of(teacher)
    own = tensors(student.get_submodule("teacher"))
    assert len(read.found) > 20 and read.found <= places([images, *own])
    student.to("meta")
    assert all(t.is_meta for t in tensors(student.get_submodule("teacher")))


def test_nothing_of_a_teacher_is_kept_and_a_step_that_it_guides_changes_none_of_it(teacher: nn.Module) -> None:
    student = student_of(teacher)
    optimizer, held = build_optimizer(student, TRAIN), tensors(teacher)
    learned = [p for group in optimizer.param_groups for p in group["params"]]
    for kept in (inference_state(student), evolving_state(student)):
        assert kept and not [name for name in kept if name.startswith("teacher.")]
        assert not places(held) & places([*kept.values(), *learned])
    before = [t.clone() for t in held]
    assert take_step(create(STUDENT), student, optimizer, tiny_batches(), TRAIN, 0)["guidance"] > 0
    assert all(map(torch.equal, before, held))
