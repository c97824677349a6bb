"""The language-guided decoder's invariants (spec semivl.md, 8)."""

import pytest
import torch

from benchmarks import plain
from semivl.errors import ConfigError
from semivl.nets.encoder import Features
from semivl.nets.segmenter import Segmenter, perturbed
from semivl.nets.vlm import concept_cosines
from tests.tiny import SHAPE, SIDE, N, tiny_vlm


@pytest.fixture
def segmenter() -> Segmenter:
    vlm = tiny_vlm()
    return Segmenter(vlm, vlm.required_text("test").names, SHAPE).eval()


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
    before, after = (segmenter.cells(f) for f in (features, scaled))
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_decoding_classes_in_chunks_changes_nothing(segmenter, chunk):
    images = torch.rand(2, 3, SIDE, SIDE)
    whole = segmenter(images)
    segmenter.decoder.class_chunk = chunk
    torch.testing.assert_close(segmenter(images), whole, atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(segmenter(images), whole, atol=1e-6, rtol=1e-5)


def test_encoder_and_decoder_compute_what_the_plain_ones_do(segmenter):
    images = torch.rand(2, 3, 40, 56)
    seen, plainly = segmenter.encoder(images), plain.features(segmenter.encoder, images)
    torch.testing.assert_close(seen.dense, plainly.dense, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(seen.skips, plainly.skips, atol=6e-6, rtol=1e-5)
    expected = plain.cells(segmenter.decoder, plainly, segmenter.text)
    torch.testing.assert_close(segmenter.cells(seen), expected, atol=1e-6, rtol=1e-5)


def test_a_canvas_of_the_images_size_changes_nothing_and_another_is_gone_through(segmenter):
    square, wide = torch.rand(1, 3, SIDE, SIDE), torch.rand(1, 3, SIDE, 24)
    before, before_wide = segmenter(square), segmenter(wide)
    segmenter.canvas = SIDE
    assert torch.equal(segmenter(square), before)
    assert segmenter(wide).shape == before_wide.shape and not torch.equal(segmenter(wide), before_wide)


def test_an_encoder_with_one_skip_feature_is_refused():
    vlm = tiny_vlm()
    vlm.encoder.architecture = vlm.encoder.architecture.model_copy(update={"skip_blocks": (1,)})
    with pytest.raises(ConfigError, match=r"CONF025.*needs two skip features, and vlm gives 1"):
        Segmenter(vlm, vlm.required_text("test").names, SHAPE)


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
