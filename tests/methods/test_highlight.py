"""CoDe's parts against their definitions: nouns and tokens, negatives, highlights, losses on masks."""

import math

import pytest
import torch
from torch.nn import functional as F

from semivl.language.nouns import NOT_VISUAL, Noun
from semivl.language.sentence import load_sentence_encoder
from semivl.language.tower import TextTower, text_tower
from semivl.methods.parts import regions
from semivl.methods.parts.caption_nouns import Read, occurrences, read_captions, token_labels
from semivl.methods.parts.contrast import Contrast, other_items, other_nouns, unmentioned
from semivl.methods.parts.highlight import hard_masks, highlighted_images, highlighted_words
from tests.captioned import CAPTIONS, spoken_vlm
from tests.sentences import write_sentences
from tests.tiny import tiny_vlm

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tower() -> TextTower:
    return spoken_vlm().required_language("a test")


def test_hard_masks_are_binary_with_the_gradient_of_the_soft_ones():
    torch.manual_seed(0)
    logits = torch.randn(50, 50, requires_grad=True)
    masks = hard_masks(logits, torch.rand(50, 50))
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    masks.sum().backward()
    assert logits.grad is not None and (logits.grad > 0).all() and logits.grad.max() <= 0.25


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.8])
def test_hard_masks_are_one_as_often_as_the_soft_one_says(probability: float):
    torch.manual_seed(0)
    drawn = hard_masks(torch.full((100_000,), math.log(probability / (1 - probability))), torch.rand(100_000))
    assert abs(drawn.mean() - probability) < 0.01


def test_a_prompt_of_zero_leaves_the_masked_image_on_the_mean_colour():
    torch.manual_seed(0)
    encoder, images = tiny_vlm().encoder, torch.rand(2, 3, 32, 32)
    masks = (torch.rand(2, 8, 8) > 0.5).float()
    shown = highlighted_images(encoder, images, masks, torch.zeros(3, 5, 5))
    kept = masks.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None].bool()
    expected = (images - encoder.mean) / encoder.std * kept
    torch.testing.assert_close((shown - encoder.mean) / encoder.std, expected, atol=1e-6, rtol=0)


def test_a_prompt_of_the_images_size_fills_what_the_mask_leaves_out():
    torch.manual_seed(0)
    encoder, images, prompt = tiny_vlm().encoder, torch.rand(1, 3, 16, 16), torch.randn(3, 16, 16)
    shown = highlighted_images(encoder, images, torch.zeros(1, 4, 4), prompt)
    torch.testing.assert_close((shown - encoder.mean) / encoder.std, prompt[None], atol=1e-5, rtol=0)


def test_highlighted_words_are_mixed_with_the_prompt_and_the_ends_stay_whole():
    torch.manual_seed(0)
    embedded, prompt = torch.randn(1, 4, 6), torch.randn(9, 6)
    shares, spoken = torch.tensor([[0.1, 0.25, 1.0, 0.1]]), torch.tensor([[False, True, True, False]])
    found = highlighted_words(embedded, shares, spoken, prompt)
    torch.testing.assert_close(found[0, 1], 0.25 * embedded[0, 1] + 0.75 * prompt[1])
    assert torch.equal(found[0, [0, 2, 3]], embedded[0, [0, 2, 3]])


def test_captions_with_too_few_nouns_are_left_out_and_draws_follow_the_seed():
    torch.manual_seed(5)
    read = read_captions(CAPTIONS, 2, frozenset())
    assert read.rows == [0, 1, 3] and read.captions[2] == "a small dog in the water , near a house"
    assert [noun.word for noun in read.nouns[1]] == ["cats", "umbrella"]
    for i, found in enumerate(read.nouns):
        first, second = read.items[i], read.items[i + 3]
        assert first != second and {first, second} <= set(found)
    torch.manual_seed(5)
    assert read_captions(CAPTIONS, 2, frozenset()) == read
    assert read.of(slice(0, 4)) == read
    last = read.of(slice(2, 4))
    assert last == Read([1], read.captions[2:], read.nouns[2:], [read.items[2], read.items[5]], [2, 5])
    assert read.of(slice(2, 3)) == Read([], [], [], [], [])
    others = {tuple(read_captions(CAPTIONS, 2, frozenset()).items) for _ in range(20)}
    assert len(others) > 1


def test_one_of_an_images_captions_is_drawn_and_empty_nouns_can_be_left_out():
    both = ("a cat and a dog\na photo of a fox on the lake",)
    torch.manual_seed(0)
    assert len({tuple(read_captions(both, 2, frozenset()).captions) for _ in range(20)}) == 2
    drawn = [read_captions(both, 2, NOT_VISUAL) for _ in range(20)]
    assert not any(noun.word == "photo" for read in drawn for noun in read.items)


def labels_of(tower: TextTower, caption: str, nouns: list[str], chosen: list[str]) -> list[tuple[int, int]]:
    """Token ids and labels."""
    items = [Noun(word, word) for word in chosen]
    read = Read([0], [caption], [tuple(Noun(word, word) for word in nouns)], items, list(range(len(items))))
    tokens = tower.tokens([caption])
    return list(zip(tokens[0].tolist(), token_labels(tower, tokens, read)[0].tolist(), strict=True))


def test_tokens_of_chosen_nouns_bear_their_number_those_of_other_nouns_zero(tower: TextTower):
    found = labels_of(tower, "a cat , a dog and a cat on grass", ["cat", "dog", "grass"], ["grass", "cat"])
    assert [label for _, label in found] == [-1, -1, 2, -1, -1, 0, -1, -1, 2, -1, 1, -1]


def test_a_noun_of_several_tokens_is_found_whole_and_not_in_part(tower: TextTower):
    word = "snowfieldish"
    spelled = tower.tokens([word])[0]
    parts = int(tower.spoken(spelled[None]).sum())
    assert parts > 1
    found = [label for _, label in labels_of(tower, f"a {word} snow", [word, "snow"], ["snow", word])]
    assert found == [-1, -1, *[2] * parts, 1, -1]


def test_nouns_are_found_in_a_sentence_encoders_tokens(tmp_path):
    tower = text_tower(*load_sentence_encoder(write_sentences(tmp_path / "sentences")))
    found = labels_of(tower, "a red cat of the dog", ["cat", "dog"], ["dog", "cat"])
    assert [label for _, label in found] == [-1, -1, -1, 2, -1, -1, 1, -1]


def test_occurrences_are_all_places_where_tokens_follow_one_another():
    assert occurrences([1, 2, 1, 2, 1], [1, 2, 1]) == [0, 2]
    assert occurrences([1, 2], [1, 2, 3]) == occurrences([1, 2], []) == []


def test_contrast_is_infonce_by_hand():
    contrast = Contrast()
    with torch.no_grad():
        contrast.log_scale.fill_(math.log(2.0))
    c = [[0.9, 0.1, -0.2], [0.3, 0.5, 0.4], [0.0, -0.1, 0.7]]
    rows = sum(math.log(sum(math.exp(2 * c[i][j]) for j in range(3))) - 2 * c[i][i] for i in range(3)) / 3
    columns = sum(math.log(sum(math.exp(2 * c[i][j]) for i in range(3))) - 2 * c[j][j] for j in range(3)) / 3
    found = contrast(torch.tensor(c), other_items(3, CPU))
    assert found.item() == pytest.approx((rows + columns) / 2, abs=1e-6)


def test_the_temperature_starts_at_007_and_never_falls_below_a_hundredth():
    contrast, cosines = Contrast(), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert contrast.log_scale.exp().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        contrast.log_scale.fill_(20.0)
    torch.testing.assert_close(contrast(0.01 * cosines, other_items(2, CPU)), F.softplus(torch.tensor(-1.0)))


def test_the_same_noun_elsewhere_is_no_negative():
    negatives = other_nouns(["cat", "dog", "cat"], CPU)
    assert negatives.int().tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    torch.manual_seed(0)
    cosines, contrast = torch.rand(3, 3), Contrast()
    changed = cosines.clone()
    changed[0, 2] = changed[2, 0] = 5.0
    assert contrast(changed, negatives) == contrast(cosines, negatives)
    assert contrast(changed, other_items(3, CPU)) > contrast(cosines, other_items(3, CPU)) + 1


def test_an_image_whose_caption_has_the_noun_is_no_negative_of_it():
    mentioned = [frozenset({"cat", "grass"}), frozenset({"dog"})]
    assert unmentioned(["cat", "dog"], mentioned, CPU).tolist() == [[False, True], [True, False]]
    assert unmentioned(["grass", "dog"], mentioned, CPU).tolist() == [[False, True], [True, False]]
    assert unmentioned(["dog", "grass"], mentioned, CPU).tolist() == [[True, False], [False, True]]


def test_pooled_cosines_are_of_the_normalised_mean_feature_under_the_mask():
    torch.manual_seed(0)
    features, nouns = F.normalize(torch.randn(2, 8, 3, 3), dim=1), F.normalize(torch.randn(4, 8), dim=1)
    masks = torch.rand(2, 4, 3, 3)
    pooled = (features[1] * masks[1, 2]).sum((1, 2)) / masks[1, 2].sum()
    found = regions.pooled_cosines(features, masks, nouns)
    torch.testing.assert_close(found[1, 2], F.cosine_similarity(pooled, nouns[2], dim=0))


def test_items_are_noun_major_and_own_masks_are_their_own_images():
    per_image = torch.arange(8.0).view(2, 4)
    assert regions.of_items(per_image).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]] * 2
    masks = torch.arange(8.0).view(2, 4, 1, 1)
    assert regions.own_masks(masks, torch.arange(4)).flatten().tolist() == [0, 5, 2, 7]
    # two nouns of three images, of which this rank has the last two
    of_three = torch.arange(12.0).view(2, 6, 1, 1)
    assert regions.own_masks(of_three, torch.tensor([1, 2, 4, 5])).flatten().tolist() == [1, 8, 4, 11]


def test_areas_count_what_is_no_padding_and_variation_is_the_mean_step():
    valid = torch.tensor([[1.0, 1.0, 0.0, 0.0]]).view(1, 1, 1, 4)
    masks = torch.tensor([[0.5, 1.0, 0.0, 0.0]]).view(1, 1, 1, 4)
    assert regions.shares(masks, valid).item() == pytest.approx(0.75)
    steps = torch.tensor([[0.0, 1.0], [4.0, 3.0]]).view(1, 1, 2, 2)
    assert regions.total_variation(steps).item() == pytest.approx((1 + 1) / 2 + (4 + 2) / 2)
    assert regions.mean_of(torch.tensor([1.0, 5.0]), torch.tensor([False, False])) == 0
