"""Nouns against regions: the formulas written out in loops, and what one way means (spec scg.md, 2.4)."""

import pytest
import torch
from torch.nn import functional as F

from semivl.methods.parts.caption_draws import draw, in_templates
from semivl.methods.parts.region_contrast import (
    image_scores,
    nouns_to_images,
    nouns_to_regions,
    regions_to_nouns,
    whole_contrast,
)

SCALE = torch.tensor(5.0)
OWNER = torch.tensor([0, 0, 1, 2])
"""of four nouns; the last image has none"""


@pytest.fixture
def regions():
    torch.manual_seed(0)
    return F.normalize(torch.randn(4, 3, 8), dim=-1).requires_grad_()


@pytest.fixture
def nouns():
    torch.manual_seed(1)
    return F.normalize(torch.randn(4, 8), dim=-1)


def present():
    there = torch.ones(4, 3, dtype=torch.bool)
    there[1, 2] = False
    return there


def counted():
    """The second image has the first noun too."""
    every = torch.ones(4, 4, dtype=torch.bool)
    every[0, 1] = False
    return every


def of_image(regions, image: int):
    return regions[image][present()[image]]


def test_scores_of_images_are_those_of_the_formulas(regions, nouns):
    t = 0.2
    for pooling in ("attention", "max", "logsumexp"):
        found = image_scores(regions, present(), nouns, pooling, t)
        for i, noun in enumerate(nouns):
            for image in range(4):
                seen = of_image(regions, image)
                cosines = seen @ noun
                if pooling == "attention":
                    expected = F.normalize(((cosines / t).softmax(0)[:, None] * seen).sum(0), dim=0) @ noun
                elif pooling == "max":
                    expected = cosines.max()
                else:
                    expected = t * (cosines / t).exp().mean().log()
                torch.testing.assert_close(found[i, image], expected)


@pytest.mark.parametrize("pooling", ["attention", "max", "logsumexp"])
def test_an_image_of_one_region_scores_its_cosine_however_it_is_pooled(regions, nouns, pooling):
    one = torch.zeros(4, 3, dtype=torch.bool)
    one[:, 1] = True
    torch.testing.assert_close(image_scores(regions, one, nouns, pooling, 0.07), nouns @ regions[:, 1].T)


def test_every_noun_is_told_from_images_that_lack_it(nouns):
    scores = torch.rand(4, 4)
    each = []
    for noun, owner in enumerate(OWNER.tolist()):
        among = [image for image in range(4) if counted()[noun, image]]
        each.append(-(SCALE * scores[noun, owner] - (SCALE * scores[noun, among]).logsumexp(0)))
    torch.testing.assert_close(nouns_to_images(scores, OWNER, counted(), SCALE), torch.stack(each).mean())


def test_among_all_regions_a_noun_is_to_find_those_of_its_image(regions, nouns):
    each = []
    for noun, owner in enumerate(OWNER.tolist()):
        exp = [(SCALE * of_image(regions, image) @ nouns[noun]).exp().sum() for image in range(4)]
        among = sum(value for image, value in enumerate(exp) if counted()[noun, image])
        each.append(-(exp[owner] / among).log())
    found = nouns_to_regions(regions, present(), nouns, OWNER, counted(), SCALE)
    torch.testing.assert_close(found, torch.stack(each).mean())


def test_the_other_way_every_region_of_an_image_with_nouns_chooses_one(regions, nouns):
    each = []
    for image in range(3):
        for region in of_image(regions, image):
            exp = (SCALE * nouns @ region).exp()
            among = sum(exp[noun] for noun in range(4) if counted()[noun, image])
            each.append(-(sum(exp[noun] for noun in range(4) if OWNER[noun] == image) / among).log())
    found = regions_to_nouns(regions, present(), nouns, OWNER, counted(), SCALE)
    torch.testing.assert_close(found, torch.stack(each).mean())


def test_one_way_leaves_alone_a_region_that_no_noun_found_and_two_ways_do_not(regions, nouns):
    scores = image_scores(regions, present(), nouns, "max", 0.07)
    [one_way] = torch.autograd.grad(nouns_to_images(scores, OWNER, counted(), SCALE), regions)
    found = {(image, (of_image(regions, image) @ noun).argmax().item()) for noun in nouns for image in range(4)}
    lost = [(i, k) for i in range(3) for k in range(len(of_image(regions, i))) if (i, k) not in found]
    assert lost and all(one_way[place].abs().max() == 0 for place in lost)
    [other] = torch.autograd.grad(regions_to_nouns(regions, present(), nouns, OWNER, counted(), SCALE), regions)
    assert all(other[place].abs().max() > 0 for place in lost)


def test_regions_that_are_not_there_change_nothing(regions, nouns):
    other = regions.detach().clone()
    other[1, 2] = -other[1, 2]
    for loss in (nouns_to_regions, regions_to_nouns):
        torch.testing.assert_close(
            *(loss(r, present(), nouns, OWNER, counted(), SCALE) for r in (regions.detach(), other))
        )


def test_equal_captions_are_no_negatives(nouns):
    whole, captions = F.normalize(torch.randn(4, 8), dim=-1), nouns.clone()
    captions[1] = captions[0]
    nothing = torch.eye(4, dtype=torch.bool)
    same = nothing.clone()
    same[0, 1] = same[1, 0] = True
    logits = SCALE * whole @ captions.T
    expected = (F.cross_entropy(logits, torch.arange(4)) + F.cross_entropy(logits.T, torch.arange(4))) / 2
    torch.testing.assert_close(whole_contrast(whole, captions, nothing, SCALE), expected)
    without = [
        logits[i][[j for j in range(4) if not same[i, j] or i == j]].logsumexp(0) - logits[i, i] for i in range(4)
    ]
    across = [
        logits[[j for j in range(4) if not same[i, j] or i == j], i].logsumexp(0) - logits[i, i] for i in range(4)
    ]
    expected = (torch.stack(without).mean() + torch.stack(across).mean()) / 2
    torch.testing.assert_close(whole_contrast(whole, captions, same, SCALE), expected)


def test_nouns_are_drawn_of_one_caption_and_images_that_have_them_do_not_count():
    torch.manual_seed(0)
    captions = ("a photo of a red car\ntwo foxes", "a fox beside a car and a tree", "something", "")
    drawn = draw(captions, 2)
    assert drawn.captions[0] in captions[0].splitlines() and drawn.captions[1:] == [captions[1], "something", ""]
    assert all(noun.lemma in {"car", "fox", "tree"} for noun in drawn.nouns)
    assert [i for i in drawn.owner.tolist() if i == 1] == [1, 1], "no more than two of a caption"
    assert set(drawn.owner.tolist()) == {0, 1}
    for noun, owner, row in zip(drawn.nouns, drawn.owner.tolist(), drawn.counted.tolist(), strict=True):
        others = {"car": {0, 1}, "fox": {0, 1}, "tree": {1}}[noun.lemma]
        assert row == [i == owner or i not in others for i in range(4)]


def test_a_batch_without_nouns_draws_none():
    drawn = draw(("a photo", ""), 4)
    assert drawn.nouns == [] and drawn.owner.shape == (0,) and drawn.counted.shape == (0, 2)


def test_nouns_are_read_in_templates_as_they_are_written():
    drawn = draw(("three foxes",), 4)
    assert in_templates(drawn.nouns, ("a {}.",)) == ["a foxes."]
