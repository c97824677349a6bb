"""The learned context, the text segmenter and the image segmenter of CoDe."""

import pytest
import torch
from torch.nn import functional as F

from semivl.errors import ConfigError
from semivl.language.tower import TextTower
from semivl.nets.learned_context import LearnedContext
from semivl.nets.region_segmenter import RegionSegmenter, RegionShape
from semivl.nets.word_segmenter import WordSegmenter, WordShape, behind_the_end
from tests.captioned import spoken_vlm
from tests.tiny import tiny_vlm


@pytest.fixture(scope="module")
def tower() -> TextTower:
    return spoken_vlm().required_language("a test")


def test_a_context_starts_as_the_words_that_it_stands_for(tower: TextTower):
    found = LearnedContext(tower, 3)(tower, ["cat", "wild fox"])
    expected = tower.encode(["a photo of cat", "a photo of wild fox"])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    longer = LearnedContext(tower, 5).baked(tower, ["cat"])
    torch.testing.assert_close(longer, tower.encode(["a photo of x x cat"]), atol=1e-6, rtol=0)


def test_only_the_context_learns(tower: TextTower):
    context = LearnedContext(tower, 4)
    context(tower, ["cat", "dog"]).sum().backward()
    assert [name for name, _ in context.named_parameters()] == ["vectors"]
    assert context.vectors.grad is not None and (context.vectors.grad.norm(dim=1) > 0).all()


def test_a_context_that_leaves_no_room_is_refused(tower: TextTower):
    with pytest.raises(ConfigError, match="CONF042"):
        LearnedContext(tower, 14)


def test_heads_that_do_not_divide_the_width_are_refused(tower: TextTower):
    with pytest.raises(ConfigError, match="CONF043"):
        WordSegmenter(tower, WordShape(heads=3))  # pyright: ignore[reportCallIssue]


def test_filling_begins_behind_the_token_after_the_last_word():
    spoken = torch.tensor([[0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 0]], dtype=torch.bool)
    assert behind_the_end(spoken).int().tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]]


def test_no_captions_have_no_features_and_reach_every_layer(tower: TextTower):
    """As on a rank of several whose captions have no noun."""
    words, tokens = WordSegmenter(tower, WordShape(heads=2)), tower.tokens([])  # pyright: ignore[reportCallIssue]
    found = words.features(tower.hidden(tower.embedded(tokens), tokens), tower.spoken(tokens))
    assert found.shape == (0, tokens.shape[1], tower.embedding)
    found.sum().backward()
    assert all(p.grad is not None for p in words.layers.parameters())


def test_token_features_do_not_depend_on_the_rest_of_the_batch(tower: TextTower):
    torch.manual_seed(0)
    words = WordSegmenter(tower, WordShape(heads=2)).eval()  # pyright: ignore[reportCallIssue]

    def features(texts: list[str]) -> torch.Tensor:
        tokens = tower.tokens(texts)
        return words.features(tower.hidden(tower.embedded(tokens), tokens), tower.spoken(tokens))

    alone, together = features(["a cat"]), features(["a cat", "a dog on the wide green grass"])
    torch.testing.assert_close(together[:1, : alone.shape[1]], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone.norm(dim=-1), torch.ones(1, alone.shape[1]))


def test_token_logits_are_scaled_cosines_beside_a_zero_for_none(tower: TextTower):
    words = WordSegmenter(tower, WordShape(heads=2, scale=4.0, shift=0.5))  # pyright: ignore[reportCallIssue]
    torch.manual_seed(0)
    features, nouns = F.normalize(torch.randn(2, 5, 16), dim=-1), F.normalize(torch.randn(3, 2, 16), dim=-1)
    logits = words.logits(features, nouns)
    assert logits.shape == (2, 4, 5) and not logits[:, 0].any()
    torch.testing.assert_close(logits[1, 2, 4], 4 * (features[1, 4] * nouns[1, 1]).sum() + 0.5)


@pytest.mark.parametrize("changes", [{}, {"dense": "ordinary", "head": 8, "registers": 2}])
def test_the_image_segmenter_starts_as_the_frozen_encoders_dense_map(changes):
    encoder = tiny_vlm().encoder
    encoder = type(encoder)(encoder.architecture.model_copy(update=changes)).eval()
    regions = RegionSegmenter(encoder, RegionShape(stages=1))  # pyright: ignore[reportCallIssue]
    images = torch.rand(2, 3, 32, 40)
    tokens, grid = encoder.before_last(images)
    found = regions.features(regions.backbone(tokens, grid))
    expected = F.interpolate(encoder(images).dense, scale_factor=2, mode="nearest")
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_masks_are_scaled_and_shifted_cosines():
    regions = RegionSegmenter(tiny_vlm().encoder, RegionShape())  # pyright: ignore[reportCallIssue]
    torch.manual_seed(0)
    features, text = F.normalize(torch.randn(2, 8, 3, 3), dim=1), F.normalize(torch.randn(4, 8), dim=1)
    cosines = regions.cosines(features, text)
    torch.testing.assert_close(cosines[1, 3, 2, 0], (features[1, :, 2, 0] * text[3]).sum())
    torch.testing.assert_close(regions.logits(cosines), 10 * cosines - 2.5)
