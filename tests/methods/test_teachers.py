"""SemiVL taught by other models than its own, and bound by tags: what is hinted at and believed."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from semivl.config import IGNORE, GuidanceConfig, MethodConfig
from semivl.methods import create, evolving_state, inference_state
from semivl.methods.parts.guidance import GuidanceSettings, LanguageGuidance, ModelGuidance, guidance
from semivl.methods.parts.losses import Target, cross_entropy_sums, guidance_target, hardest, soft_cross_entropy_sum
from semivl.methods.parts.tags import allowed_labels, nothing_left, ruled_out
from semivl.methods.semivl import bounded
from tests.tiny import CLASSES, SHAPE, SIDE, N, tiny_batches, tiny_vlm


class Corners(nn.Module):
    """A finished model that is sure of class 1 in the left half of an image and of nothing in the right."""

    def __init__(self) -> None:
        super().__init__()
        self.sharp = nn.Parameter(torch.tensor(9.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = images.new_zeros(len(images), N, *images.shape[-2:])
        logits[:, 1, :, : images.shape[-1] // 2] = self.sharp
        return logits


def settings(**changed) -> GuidanceSettings:
    return GuidanceSettings(**{"threshold": 0.9} | changed)


def ignored(batch: int = 2) -> torch.Tensor:
    return torch.zeros(batch, SIDE, SIDE, dtype=torch.bool)


def method(**changed):
    shape = SHAPE.model_dump()
    return create(MethodConfig(name="semivl", settings={"decoder": shape} | changed))


def step(model, batches, **changed):
    torch.manual_seed(0)
    return method(**changed).training_step(model, batches, 0.0)


def test_finished_model_hints_where_it_is_sure_and_nowhere_else():
    hint = ModelGuidance(Corners(), settings())(torch.zeros(2, 3, SIDE, SIDE), ignored())
    assert hint[:, :, : SIDE // 2].unique().tolist() == [1]
    assert hint[:, :, SIDE // 2 :].unique().tolist() == [IGNORE]


def test_probabilities_sum_to_one_where_the_guide_is_sure_and_to_zero_elsewhere():
    unsure = ignored()
    unsure[0] = True
    hint = ModelGuidance(Corners(), settings(form="probabilities"))(torch.zeros(2, 3, SIDE, SIDE), unsure)
    sums = hint.sum(1)
    assert sums[0].unique().tolist() == [0]
    torch.testing.assert_close(sums[1, :, : SIDE // 2], torch.ones(SIDE, SIDE // 2))
    assert sums[1, :, SIDE // 2 :].unique().tolist() == [0]
    assert torch.equal(hardest(hint)[1], ModelGuidance(Corners(), settings())(torch.zeros(2, 3, SIDE, SIDE), unsure)[1])


def test_cross_entropy_with_certain_probabilities_is_that_with_labels_and_so_is_its_gradient():
    torch.manual_seed(0)
    cells = torch.randn(2, N, 4, 4, requires_grad=True)
    labels = torch.randint(0, N, (2, 8, 8))
    labels[0, :3] = IGNORE
    sure = F.one_hot(labels.where(labels != IGNORE, 0), N).permute(0, 3, 1, 2) * (labels != IGNORE)[:, None]
    [hard], soft = cross_entropy_sums(cells, [guidance_target(labels)]), soft_cross_entropy_sum(cells, sure.float())
    torch.testing.assert_close(soft, hard)
    torch.testing.assert_close(*(torch.autograd.grad(loss, cells)[0] for loss in (soft, hard)))


def test_cross_entropy_with_probabilities_is_the_textbooks():
    torch.manual_seed(0)
    cells, probabilities = torch.randn(2, N, 4, 4), torch.rand(2, N, 8, 8).softmax(1)
    full = F.interpolate(cells, size=(8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(soft_cross_entropy_sum(cells, probabilities), F.cross_entropy(full, probabilities))


@pytest.mark.parametrize("form", ["labels", "probabilities"])
def test_semivl_learns_from_a_finished_model_and_keeps_nothing_of_it(form):
    model = method(guidance={"form": form}).build(CLASSES, tiny_vlm(), True, Corners())
    losses = step(model, tiny_batches(), guidance={"form": form})
    assert losses["guidance"] > 0 and losses["total"].requires_grad
    losses["total"].backward()
    assert model.teacher.model.sharp.grad is None
    kept = {*inference_state(model), *evolving_state(model)}
    assert not [name for name in kept if name.startswith("teacher")]


def test_complete_tags_leave_only_what_they_name_to_win():
    torch.manual_seed(0)
    logits = torch.randn(2, N, 5, 5)
    tags = torch.tensor([[-1, 0, 1], [-1, -1, -1]], dtype=torch.int8)
    found = ruled_out(logits, tags).argmax(1)
    assert 1 not in found[0].unique().tolist()
    assert torch.equal(found[1], logits[1].argmax(0))
    assert torch.equal(ruled_out(logits, None), logits)
    assert F.interpolate(ruled_out(logits, tags), scale_factor=4, mode="bilinear").isfinite().all()


def test_labels_that_tags_exclude_are_ignored():
    labels = torch.tensor([[[0, 1, 2, IGNORE]], [[0, 1, 2, IGNORE]]])
    tags = torch.tensor([[-1, 0, 1], [-1, -1, 1]], dtype=torch.int8)
    assert allowed_labels(labels, tags).tolist() == [[[0, IGNORE, 2, IGNORE]], [[0, 1, 2, IGNORE]]]
    assert torch.equal(allowed_labels(labels, None), labels)


def test_nothing_is_hinted_at_in_an_image_whose_tags_exclude_every_class():
    tags = torch.tensor([[-1, 0, -1], [0, 0, 0]], dtype=torch.int8)
    images, unsure = torch.zeros(2, 3, SIDE, SIDE), ignored()
    labels = ModelGuidance(Corners(), settings(threshold=0.0))(images, unsure, tags)
    assert labels[1].unique().tolist() == [IGNORE] and IGNORE not in labels[0].unique().tolist()
    shares = ModelGuidance(Corners(), settings(threshold=0.0, form="probabilities"))(images, unsure, tags)
    assert shares[1].unique().tolist() == [0]
    torch.testing.assert_close(shares[0].sum(0), torch.ones(SIDE, SIDE))


def test_an_image_whose_tags_exclude_every_class_is_not_believed():
    cells, tags = torch.randn(2, N, 4, 4), torch.tensor([[-1, 0, -1], [0, 0, 0]], dtype=torch.int8)
    believed = bounded(cells, torch.zeros(2, 8, 8, dtype=torch.bool), tags)
    assert believed.ignored[1].all() and not believed.ignored[0].any()
    untold = torch.zeros(2, 8, 8, dtype=torch.bool)
    assert nothing_left(None, untold) is untold


def test_positive_only_tags_change_nothing():
    batches = tiny_batches()
    some = torch.tensor([[-1, 1, -1], [-1, -1, -1]], dtype=torch.int8)
    told = replace(
        batches,
        unlabelled=replace(batches.unlabelled, tags=some),
        partner=replace(batches.partner, tags=some),
    )
    model = method(confidence=0.0).build(CLASSES, tiny_vlm(), True, Corners())
    first, second = (step(model, b, confidence=0.0)["total"] for b in (batches, told))
    assert torch.equal(first, second)


def test_semivl_believes_and_hints_nothing_that_complete_tags_exclude(monkeypatch):
    batches = tiny_batches()
    absent = torch.tensor([[-1, 0, -1], [-1, 0, 1]], dtype=torch.int8)
    told = replace(
        batches,
        unlabelled=replace(batches.unlabelled, tags=absent),
        partner=replace(batches.partner, tags=absent),
    )
    model = method(confidence=0.0).build(CLASSES, tiny_vlm(), True, Corners())
    seen: list[Target] = []

    def watched(cells, targets):
        seen.extend(targets)
        return cross_entropy_sums(cells, targets)

    monkeypatch.setattr("semivl.methods.semivl.cross_entropy_sums", watched)
    for tags, excluded in ((True, True), (False, False)):
        seen.clear()
        step(model, told, confidence=0.0, tags=tags)
        of_unlabelled = seen[1:]  # the first is the masks' own
        taught = torch.cat([t.labels[t.weight > 0] for t in of_unlabelled])
        assert (1 not in taught.unique().tolist()) == excluded


def test_a_finished_model_and_a_language_model_guide_each_in_its_way():
    assert isinstance(guidance(Corners(), settings()), ModelGuidance)
    assert isinstance(guidance(tiny_vlm(), settings()), LanguageGuidance)


def test_one_guide_at_most_is_named():
    with pytest.raises(ValueError, match="one of them guides"):
        GuidanceConfig(model="a/1", labels="maps")  # pyright: ignore[reportCallIssue, reportArgumentType]
