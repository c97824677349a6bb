"""Adversarial learning (spec transfer.md, 3.2, 3.3): who learns from what, and what 255 hides."""

import pytest
import torch
from torch.nn import functional as F

from semivl.config import IGNORE
from semivl.methods.parts import adversary
from semivl.methods.parts.adversary import AdversarySettings, Side
from semivl.nets.discriminator import LEAST, Discriminator

SIDE, N = 32, 3


def settings(**fields) -> AdversarySettings:
    return AdversarySettings(**({"strong": 0.01, "weak": 0.01} | fields))


def scene(seed=0):
    torch.manual_seed(seed)
    logits = [torch.randn(2, N, SIDE, SIDE, requires_grad=True) for _ in range(2)]
    masks = torch.randint(0, N, (2, SIDE, SIDE))
    masks[:, :8] = IGNORE
    counted = torch.ones(2, SIDE, SIDE, dtype=torch.bool)
    counted[:, :, -8:] = False
    images = [torch.rand(2, 3, SIDE, SIDE) for _ in range(2)]
    return logits, images, masks, counted


def opinions(judge, logits, images, masks, counted, chosen):
    strong = Side(images[0], logits[0].softmax(1), masks != IGNORE)
    return adversary.opinions(judge, strong, Side(images[1], logits[1].softmax(1), counted), masks, 0, chosen)


def judge_for(chosen):
    torch.manual_seed(7)
    return Discriminator(adversary.channels(chosen.sees, N))


@pytest.mark.parametrize("sees", ["cond_fg", "onehot", "product"])
@pytest.mark.parametrize("real", ["gt", "strong_pred"])
def test_each_side_gets_gradient_from_its_own_loss_alone(sees, real):
    chosen = settings(sees=sees, real=real)
    judge, (logits, images, masks, counted) = judge_for(chosen), scene()
    found = opinions(judge, logits, images, masks, counted, chosen)
    of_judge = torch.autograd.grad(found.discriminator, [*judge.parameters()], retain_graph=True)
    assert all(g.abs().sum() > 0 for g in of_judge)
    nothing = torch.autograd.grad(found.discriminator, logits, retain_graph=True, allow_unused=True)
    assert nothing == (None, None)
    passes = found.strong + found.weak
    assert all(
        g is None for g in torch.autograd.grad(passes, [*judge.parameters()], retain_graph=True, allow_unused=True)
    )
    of_weak = torch.autograd.grad(passes, logits, allow_unused=True)
    assert of_weak[1].abs().sum() > 0
    assert (of_weak[0] is None) == (real == "strong_pred")


def test_one_pass_back_gives_both_what_two_would():
    chosen = settings()
    judge, (logits, images, masks, counted) = judge_for(chosen), scene()
    found = opinions(judge, logits, images, masks, counted, chosen)
    (found.discriminator + 0.01 * found.strong + 0.02 * found.weak).backward()
    together = [p.grad.clone() for p in judge.parameters()], [x.grad.clone() for x in logits]

    judge.zero_grad()
    with torch.no_grad():
        real = adversary.drawn(masks, logits[0].softmax(1), chosen.smooth)
        planes = [adversary.seen("cond_fg", images[i], p, 0) for i, p in ((0, real), (0, logits[0].softmax(1)))]
        planes.append(adversary.seen("cond_fg", images[1], logits[1].softmax(1), 0))
    known = (masks != IGNORE).float()

    def entropy(answers, truth, counted):
        each = F.binary_cross_entropy(answers.sigmoid(), torch.full_like(answers, truth), reduction="none")
        return (each * counted).sum() / counted.sum()

    loss = entropy(judge(planes[0]), 1.0, known) + entropy(judge(planes[1]), 0.0, known) / 2
    (loss + entropy(judge(planes[2]), 0.0, counted.float()) / 2).backward()
    for one, other in zip(together[0], judge.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=1e-4, atol=1e-7)
    fresh = [x.detach().requires_grad_() for x in logits]
    passes = [adversary.seen("cond_fg", i, x.softmax(1), 0) for i, x in zip(images, fresh, strict=True)]
    (0.01 * entropy(judge(passes[0]), 1.0, known) + 0.02 * entropy(judge(passes[1]), 1.0, counted.float())).backward()
    for one, other in zip(together[1], fresh, strict=True):
        torch.testing.assert_close(one, other.grad, rtol=1e-4, atol=1e-9)


def test_what_lies_under_255_is_neither_seen_nor_judged():
    """The losses are means over known pixels, and a mask holds what is predicted where it is 255."""
    predicted = torch.rand(1, N, SIDE, SIDE).softmax(1)
    masks = torch.randint(0, N, (1, SIDE, SIDE))
    masks[:, 8:24, 8:24] = IGNORE
    found = adversary.drawn(masks, predicted, 0.9)
    box = F.avg_pool2d(F.pad(predicted, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    torch.testing.assert_close(found[..., 9:23, 9:23], box[..., 9:23, 9:23])

    chosen = settings()
    judge, (logits, images, masks, counted) = judge_for(chosen), scene()
    everything = torch.full_like(masks, IGNORE)
    silent = opinions(judge, logits, images, everything, torch.zeros_like(counted), chosen)
    assert [v.item() for v in silent] == [0.0, 0.0, 0.0]


def test_a_drawn_mask_is_smoothed_to_09_and_blurred_by_a_box():
    masks = torch.zeros(1, 6, 6, dtype=torch.long)
    masks[:, :, 3:] = 2
    found = adversary.drawn(masks, torch.zeros(1, N, 6, 6), 0.9)
    assert found[0, 2, 3, 5] == pytest.approx(0.9) and found[0, 1, 3, 5] == pytest.approx(0.05)
    assert found[0, 2, 3, 3] == pytest.approx((2 * 0.9 + 0.05) / 3)
    torch.testing.assert_close(found.sum(1), torch.ones(1, 6, 6))


def test_the_discriminator_sees_no_class_but_the_foreground():
    images, probability = torch.rand(1, 3, SIDE, SIDE), torch.randn(1, N, SIDE, SIDE).softmax(1)
    swapped = probability[:, [0, 2, 1]]
    for sees in ("cond_fg", "product"):
        torch.testing.assert_close(
            adversary.seen(sees, images, probability, 0), adversary.seen(sees, images, swapped, 0)
        )
    assert not torch.equal(
        adversary.seen("onehot", images, probability, 0), adversary.seen("onehot", images, swapped, 0)
    )


def test_the_answer_has_the_size_of_the_photo():
    assert Discriminator(4)(torch.rand(2, 4, 50, 70)).shape == (2, 50, 70)


def test_the_least_side_is_the_smallest_that_the_discriminator_can_judge():
    assert Discriminator(4)(torch.rand(1, 4, LEAST, LEAST)).shape == (1, LEAST, LEAST)
    with pytest.raises(RuntimeError):
        Discriminator(4)(torch.rand(1, 4, LEAST - 1, LEAST - 1))
