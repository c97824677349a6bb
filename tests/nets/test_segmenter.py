"""The language-guided decoder's invariants (spec semivl.md, 8)."""

import pytest
import torch

from semivl.nets.encoder import Features
from semivl.nets.segmenter import Segmenter, perturbed
from semivl.nets.vlm import concept_cosines
from tests.tiny import SHAPE, SIDE, N, tiny_vlm


@pytest.fixture
def segmenter() -> Segmenter:
    return Segmenter(tiny_vlm(), SHAPE).eval()


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (40, 64)])
def test_logits_have_the_images_size(segmenter, size):
    assert segmenter(torch.rand(2, 3, *size)).shape == (2, N, *size)


def test_permuting_the_classes_permutes_the_logits(segmenter):
    images = torch.rand(1, 3, SIDE, SIDE)
    before = segmenter(images)
    order = torch.tensor([2, 0, 1])
    segmenter.text = segmenter.text[order]
    torch.testing.assert_close(segmenter(images), before[:, order], atol=1e-5, rtol=1e-4)


def test_an_image_is_segmented_the_same_in_any_company(segmenter):
    images = torch.rand(3, 3, SIDE, SIDE)
    torch.testing.assert_close(segmenter(images)[1:2], segmenter(images[1:2]), atol=1e-5, rtol=1e-4)


def test_scaling_dense_features_leaves_the_logits(segmenter):
    features = segmenter.encoder(torch.rand(1, 3, SIDE, SIDE))
    scaled = Features(7 * features.dense, features.skips)
    before, after = (segmenter.decode(f, (SIDE, SIDE)) for f in (features, scaled))
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-4)


def test_perturbation_drops_whole_channels_and_doubles_the_kept():
    features = Features(torch.ones(2, 64, 3, 3), (torch.ones(2, 64, 3, 3),))
    assert torch.equal(perturbed(features, 0.0).dense, features.dense)
    dense = perturbed(features, 0.5).dense
    per_channel = dense.flatten(2)
    assert set(per_channel.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(per_channel.amin(2), per_channel.amax(2))
    assert not torch.equal(dense[0], dense[1])


def test_a_class_is_as_near_as_its_nearest_phrase():
    features = tiny_vlm().encoder(torch.rand(1, 3, SIDE, SIDE))
    phrases = torch.nn.functional.normalize(torch.randn(5, 8), dim=1)
    owner = torch.tensor([0, 0, 1, 2, 2])
    each = torch.einsum("bdhw,md->bmhw", features.dense, phrases)
    expected = torch.stack([each[:, owner == c].amax(1) for c in range(N)], dim=1)
    torch.testing.assert_close(concept_cosines(features, phrases, owner, N), expected)
