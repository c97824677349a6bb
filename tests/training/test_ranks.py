"""Two ranks are as one: the same losses and weights as one process that learns from the whole batch.

Sums are added up in another order, so not bit for bit: losses are within 1e-5 of each other relatively, gradients of a
step within 1e-4 of their norm, and each tensor of weights ends within a hundredth of the way that it was moved, since
AdamW makes full steps of gradients that are little more than rounding. Where a gradient is rounding alone, tensors are
left out: softmax does not see what is added to all its logits, so a head's one bias, and the part of attention's biases
that belongs to the keys, do nothing.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.multiprocessing import spawn

from semivl.config import MethodConfig, TrainConfig
from semivl.data import ranks
from semivl.data.stream import Batches, Captioned
from semivl.language.text import ClassText
from semivl.methods import Method, create
from semivl.methods.parts.caption_nouns import read_captions
from semivl.nets.dropout import dropped_channels
from semivl.nets.vlm import DenseVLM
from semivl.training.checkpoint import load_checkpoint, newest_whole, save_checkpoint
from semivl.training.shared import mean_losses, over_ranks
from semivl.training.step import build_optimizer, take_step
from tests.captioned import CAPTIONS, CLASSES, spoken_vlm
from tests.tiny import SHAPE, SIDE, N, noise, tiny_batches, tiny_vlm

STEPS, BROKEN = 5, 3
SINGLE = (1, 4)
"""steps whose gradients are compared: in one a rank has no noun, and methods of two phases are in either"""
CONFIG = TrainConfig(steps=STEPS, batch=4, crop=SIDE, learning_rate=1e-4)
DECODER = {"decoder": SHAPE.model_dump()}
GROUPS = 5
GROUPED = {"groups": {"grouper": "kmeans", "count": GROUPS, "side": None}, "naming": {"templates": ["a {}."]}}
METHODS = {
    "supervised": ("supervised", DECODER),
    "semivl": ("semivl", DECODER | {"confidence": 0.35}),
    "semivl-reversed": ("semivl", DECODER | {"confidence": 0.35, "cutmix_partner": "reversed", "average": True,
                                             "weighting": "pixelavg_batch"}),
    "unimatch_v2": ("unimatch_v2", {"confidence": 0.35}),
    "transfer": ("transfer", DECODER | {
        "label_transfer": {"net": {"head": {"features": 8, "channels": (8, 8, 8, 8)}}, "warm_up": 0.25,
                           "activation": {"scales": [1.0], "untold": 0.25},
                           "labels": {"low": 0.45, "high": 0.55, "diffusion": {"nodes": "cells", "steps": 5}}},
        "adversary": {"strong": 0.01, "weak": 0.01, "start": 0.0}, "self_training": {"start": 0.5}}),
    "co_decomposition": ("co_decomposition", {"context": 3, "prompt_side": 8, "words": {"heads": 2},
                                              "regions": {"stages": 1}, "adapted_from": 0.4}),
    "spatial_grouping": ("spatial_grouping", GROUPED | {"adapt": {"distillation": 0.1, "context": 3}}),
    "spatial_grouping-regions": ("spatial_grouping", GROUPED | {"adapt": {"unit": "region", "two_way": True}}),
}  # fmt: skip


def learner(name: str) -> tuple[Method, nn.Module, torch.optim.Optimizer]:
    method_name, settings = METHODS[name]
    method = create(MethodConfig(name=method_name, settings=settings))
    model = method.build(CLASSES, vlm_for(method), True, tiny_vlm(7)).train()
    return method, model, build_optimizer(model, CONFIG)


def vlm_for(method: Method) -> DenseVLM:
    """One with a text side for a method that reads texts of its own, and not the classes' embeddings."""
    unread = torch.zeros(N, 1)
    spoken = replace(spoken_vlm(), text=ClassText(unread, unread, unread, torch.arange(N)))
    return spoken if method.reads_text else tiny_vlm()


def whole_batch(step: int) -> Batches:
    """Four images a pool, of which the first two have far fewer pixels, tags and nouns that count than the others."""
    made = tiny_batches(batch=4, seed=step)
    assert made.labelled and made.unlabelled and made.partner
    made.labelled.masks[0, 4:] = 255
    made.unlabelled.ignored[1, :, 5:] = True
    made.partner.ignored[3, 20:] = True
    tags = torch.tensor([[-1, -1, 1], [-1, 1, -1], [-1, 1, 1], [-1, 1, 1]], dtype=torch.int8)
    captions = (CAPTIONS[2], "", *CAPTIONS[:2]) if step == 1 else CAPTIONS[step % 4 :] + CAPTIONS[: step % 4]
    groups = torch.randint(0, GROUPS, (4, SIDE // 8, SIDE // 8)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    return Batches(
        replace(made.labelled, tags=tags),
        replace(made.unlabelled, tags=tags),
        made.partner,
        Captioned(noise(4), made.unlabelled.ignored, captions, groups),
    )


def batch_for(method: Method, step: int) -> Batches:
    """Where tags count no mask shows the last class before step 3, and then those of the last two images alone."""
    batches = whole_batch(step)
    if "tags" not in method.needs:
        return batches
    assert batches.labelled
    masks = batches.labelled.masks.clone()
    without = masks[: 2 if step > 2 else 4]
    without[without == N - 1] = 0
    return replace(batches, labelled=replace(batches.labelled, masks=masks))


def own_part(batches: Batches) -> Batches:
    return batches._each(lambda tensor: tensor[ranks.part(len(tensor) // ranks.world())])


def learned(name: str, start: int, stop: int, folder: Path) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """Losses and weights of the steps, from the folder's checkpoint on; one is left there at the end."""
    method, model, optimizer = learner(name)
    if start:
        found = newest_whole(folder)
        assert found and load_checkpoint(found, model, optimizer) == start
    shared = over_ranks(method, model)
    losses = [
        mean_losses(take_step(shared, model, optimizer, own_part(batch_for(method, step)), CONFIG, step))
        for step in range(start, stop)
    ]
    if ranks.rank() == 0:
        save_checkpoint(folder, stop, model, optimizer)
    return losses, {k: v.detach().clone() for k, v in model.state_dict().items()}


def gradients(name: str, step: int) -> dict[str, Tensor]:
    """Of a single step from the start; AdamW would hide that they are all too large or too small alike."""
    method, model, optimizer = learner(name)
    take_step(over_ranks(method, model), model, optimizer, own_part(batch_for(method, step)), CONFIG, step)
    return {key: p.grad.contiguous() for key, p in model.named_parameters() if p.grad is not None}


def as_rank(rank: int, folder: Path) -> None:
    """One of two ranks: all methods unbroken, the first half, and the second half of what one process began."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for name in METHODS:
        told = {"unbroken": learned(name, 0, STEPS, folder / name / "unbroken")}
        told["first"] = learned(name, 0, BROKEN, folder / name / "of-two")
        told["second"] = learned(name, BROKEN, STEPS, folder / name / "of-one")
        for step in SINGLE:
            save_file(gradients(name, step), folder / name / f"gradients-{step}-{rank}.safetensors")
        for part, (losses, weights) in told.items():
            (folder / name / f"{part}-{rank}.json").write_text(json.dumps(losses))
            save_file({k: v.contiguous() for k, v in weights.items()}, folder / name / f"{part}-{rank}.safetensors")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> tuple[Path, dict]:
    """What one process gives, and a folder where two ranks have done all of it too."""
    torch.set_num_threads(1)
    folder, found = tmp_path_factory.mktemp("ranks"), {}
    for name in METHODS:
        found[name] = learned(name, 0, STEPS, folder / name / "alone")
        learned(name, 0, BROKEN, folder / name / "of-one")
    spawn(as_rank, (folder,), nprocs=2)
    return folder, found


def of_two(folder: Path, name: str, part: str, rank: int = 0) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    place = folder / name / f"{part}-{rank}"
    return json.loads(place.with_suffix(".json").read_text()), load_file(place.with_suffix(".safetensors"))


def assert_near(name: str, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Each tensor ends within a hundredth of the way that the training moved it."""
    begun = learner(name)[1].state_dict()
    for key, tensor in expected.items():
        if not tensor.is_floating_point():
            assert torch.equal(found[key], tensor), key
            continue
        if key.endswith(("in_proj.bias", "in_proj_bias", "decoder.head.bias")):
            continue
        moved, apart = (tensor - begun[key]).norm(), (found[key] - tensor).norm()
        assert apart <= 1e-2 * moved + 1e-6, f"{key}: {apart:.1e} apart, moved by {moved:.1e}"


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_learn_what_one_process_learns(alone, name):
    folder, found = alone
    losses, weights = of_two(folder, name, "unbroken")
    pairs = [(two[k], v) for two, one in zip(losses, found[name][0], strict=True) for k, v in one.items()]
    print(
        f"{name}: losses within {max(abs(two - one) / max(abs(one), 1e-2) for two, one in pairs):.0e} of one process's"
    )
    for got, wanted in zip(losses, found[name][0], strict=True):
        assert got == pytest.approx(wanted, rel=1e-5, abs=1e-7)
    assert_near(name, weights, found[name][1])


@pytest.mark.slow
@pytest.mark.parametrize("step", SINGLE)
@pytest.mark.parametrize("name", METHODS)
def test_gradients_of_two_ranks_are_those_of_one_process(alone, name, step):
    found, expected = load_file(alone[0] / name / f"gradients-{step}-0.safetensors"), gradients(name, step)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        apart = (found[key] - tensor).norm()
        assert apart <= 1e-4 * tensor.norm() + 1e-7, f"{key}: {apart:.1e} apart of {tensor.norm():.1e}"


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_ranks_keep_the_same_weights_to_the_last_bit(alone, name):
    first, second = (of_two(alone[0], name, "unbroken", rank)[1] for rank in range(2))
    assert all(torch.equal(v, second[k]) for k, v in first.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_training_goes_on_on_another_number_of_ranks(alone, name):
    folder, found = alone
    losses, weights = of_two(folder, name, "second")
    one = learned(name, BROKEN, STEPS, folder / name / "of-two")
    for got, wanted in zip(losses + one[0], found[name][0][BROKEN:] * 2, strict=True):
        assert got == pytest.approx(wanted, rel=1e-5, abs=1e-7)
    assert_near(name, weights, found[name][1])
    assert_near(name, one[1], found[name][1])


def gather_as_rank(rank: int, folder: Path) -> None:
    """One rank has no rows, the other three; each learns the sum of squares of all."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    rows = torch.arange(3.0, requires_grad=True) if rank else torch.zeros(0)
    found = ranks.gathered(rows)
    found.square().sum().backward()
    told = {"rows": found.detach(), "there": ranks.gathered(torch.tensor([True] * (1 + rank)))}
    told |= {"sum": ranks.summed(torch.tensor([1.0, rank])), "mean": ranks.mean_of_all(torch.ones(2 * rank))}
    told["chunk"] = torch.arange(3)[ranks.chunk(3)]
    save_file(told | ({} if rows.grad is None else {"gradient": rows.grad}), folder / f"{rank}.safetensors")
    dist.destroy_process_group()


@pytest.mark.slow
def test_rows_of_unequally_many_on_each_rank_are_gathered_and_their_gradients_come_back(tmp_path):
    spawn(gather_as_rank, (tmp_path,), nprocs=2)
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    for told in (first, second):
        assert told["rows"].tolist() == [0, 1, 2] and told["there"].tolist() == [True] * 3
        assert told["sum"].tolist() == [2, 1]
    # the mean over the ranks of what each rank's parameters get is the gradient of the whole
    assert (second["gradient"] / 2).tolist() == [0, 2, 4] and "gradient" not in first
    assert (first["mean"] + second["mean"]) / 2 == 1
    assert first["chunk"].tolist() + second["chunk"].tolist() == [0, 1, 2]


def test_the_tolerance_would_show_a_loss_that_each_rank_divides_by_its_own_pixels():
    """The batches are such that counts of the ranks differ: means of means are not the mean."""
    masks = whole_batch(0).labelled.masks
    counts = (masks != 255).flatten(1).sum(1)
    assert abs(int(counts[:2].sum()) / int(counts[2:].sum()) - 1) > 0.3


def test_a_step_is_among_them_in_which_one_rank_has_no_noun_and_one_in_which_all_ranks_have():
    in_step = [read_captions(whole_batch(step).captioned.captions, 2, frozenset()) for step in range(STEPS)]
    usable = [[len(read.of(slice(first, first + 2)).rows) for first in (0, 2)] for read in in_step]
    assert usable == [[2, 1], [0, 2], [1, 2], [2, 1], [2, 1]]


def test_alone_dropped_channels_are_those_of_torch_bit_for_bit():
    maps = noise(2).float()
    torch.manual_seed(3)
    expected = nn.functional.dropout2d(maps, 0.5)
    torch.manual_seed(3)
    assert torch.equal(dropped_channels(maps, 0.5), expected)


def test_alone_every_function_of_the_ranks_gives_what_one_process_has():
    assert (ranks.world(), ranks.rank(), ranks.part(N)) == (1, 0, slice(0, N))
    assert ranks.counted(torch.tensor(0)) == 1 and ranks.counted(torch.tensor(7)) == 7
    assert ranks.counted(torch.tensor(0.0), least=0.5) == 0.5 and ranks.chunk(N) == slice(0, N)
    assert ranks.anyone(True) and not ranks.anyone(False) and ranks.of_first(5) == 5
    values = torch.randn(3, 2)
    assert ranks.gathered(values) is values and torch.equal(ranks.summed(values), values)
    assert ranks.mean_of_all(values) == values.mean() and torch.equal(ranks.either(values > 0), values > 0)
