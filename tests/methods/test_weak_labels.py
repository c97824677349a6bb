"""Labels of tagged photos (spec transfer.md, 2.4): what they may and may not say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semivl.config import IGNORE
from semivl.methods.parts.activation import ActivationSettings, counted_tags, of_hints
from semivl.methods.parts.diffusion import DiffusionSettings
from semivl.methods.parts.weak_labels import WeakLabelSettings, weak_labels, with_every_class

SIDE, N = 24, 5


def labels(foreground, activation, present, source="diffusion", low=0.3, high=0.7, seed=0):
    torch.manual_seed(seed)
    chosen = WeakLabelSettings(source=source, low=low, high=high, diffusion=DiffusionSettings(nodes="cells"))
    count = len(foreground)
    images, features = torch.rand(count, 3, SIDE, SIDE), torch.rand(count, 4, 6, 6)
    return weak_labels(images, foreground, activation, features, present, 0, chosen)


def threshold(foreground, given, low=0.3, high=0.7):
    found = torch.full_like(foreground, IGNORE, dtype=torch.long)
    found[foreground < low] = 0
    found[foreground > high] = given
    return found


@given(seed=st.integers(0, 10_000), source=st.sampled_from(["diffusion", "product", "activation"]))
@settings(max_examples=30, deadline=None)
def test_untagged_classes_never_appear(seed, source):
    torch.manual_seed(seed)
    present = torch.rand(2, N) < 0.5
    present[:, 0] = False
    found = labels(torch.rand(2, SIDE, SIDE), torch.rand(2, N, SIDE, SIDE), present, source, seed=seed)
    for label, allowed in zip(found, present, strict=True):
        assert set(label.unique().tolist()) <= {0, IGNORE, *allowed.nonzero()[:, 0].tolist()}


@pytest.mark.parametrize("source", ["diffusion", "product"])
def test_a_single_tag_reduces_to_the_foregrounds_thresholds(source):
    torch.manual_seed(1)
    foreground, present = torch.rand(1, SIDE, SIDE), torch.zeros(1, N, dtype=torch.bool)
    present[0, 3] = True
    found = labels(foreground, torch.rand(1, N, SIDE, SIDE), present, source)
    assert torch.equal(found, threshold(foreground, 3))


def test_a_photo_without_tags_gets_background_and_255_alone():
    foreground, none = torch.rand(1, SIDE, SIDE), torch.zeros(1, N, dtype=torch.bool)
    found = labels(foreground, torch.rand(1, N, SIDE, SIDE), none)
    assert torch.equal(found, threshold(foreground, IGNORE))


def test_without_a_band_every_pixel_has_a_label():
    foreground, present = torch.rand(1, SIDE, SIDE), torch.ones(1, N, dtype=torch.bool)
    present[0, 0] = False
    found = labels(foreground, torch.rand(1, N, SIDE, SIDE), present, low=0.5, high=0.5)
    assert not (found == IGNORE).any()


def test_a_seed_in_a_corner_of_an_object_names_all_of_it():
    """Two objects of one colour each: activation is a spot in each, diffusion fills the object to its edge."""
    image = torch.full((1, 3, SIDE, SIDE), 0.1)
    image[0, 0, 4:20, 0:8], image[0, 2, 4:20, 12:20] = 0.9, 0.9
    foreground = (image.amax(1) > 0.5).float()
    activation = torch.full((1, N, SIDE, SIDE), 0.01)
    activation[0, 1, 4:8, 0:4] = 1.0
    activation[0, 2, 4:8, 12:16] = 1.0
    activation[0, 2, 8:20, 0:8] = 0.02  # what a noisy map says of the rest of the first object
    present = torch.tensor([[False, True, True, False, False]])
    chosen = WeakLabelSettings(diffusion=DiffusionSettings(nodes="cells"))  # pyright: ignore
    made = [
        weak_labels(image, foreground, activation, image, present, 0, chosen.model_copy(update={"source": source}))[0]
        for source in ("diffusion", "product")
    ]
    truth = torch.zeros(SIDE, SIDE, dtype=torch.long)
    truth[4:20, 0:8], truth[4:20, 12:20] = 1, 2
    right = [(found == truth).float().mean() for found in made]
    assert right[0] > 0.97 and right[1] < 0.85


def test_a_class_that_wins_nothing_gets_the_component_where_it_is_most_active():
    sure = np.zeros((6, 12), bool)
    sure[1:4, 1:3] = sure[1:4, 5:7] = sure[1:4, 9:11] = True
    winner = np.zeros((6, 12), int)
    maps = np.zeros((2, 6, 12))
    maps[1, 1:4, 5:7], maps[1, 1:4, 9:11] = 0.2, 0.4
    found = with_every_class(winner, sure, maps)
    assert (found[1:4, 9:11] == 1).all() and (found[1:4, 1:7] == 0).all()
    assert (winner == 0).all(), "what was given is left as it is"


def test_a_class_takes_no_component_that_is_all_another_has_and_none_where_it_is_not_active():
    sure = np.zeros((6, 6), bool)
    sure[1:4, 1:4] = True
    winner = np.zeros((6, 6), int)
    assert (with_every_class(winner, sure, np.ones((2, 6, 6))) == 0).all()
    sure[5, 5] = True
    assert (with_every_class(winner, sure, np.zeros((2, 6, 6))) == 0).all()


def test_a_tag_counts_in_a_crop_where_its_class_is_likely_and_the_likeliest_always_does():
    tagged = torch.tensor([[False, True, True, False], [False, True, True, False], [False, False, False, False]])
    probability = torch.tensor([[0.9, 0.5, 0.05, 0.9], [0.0, 0.01, 0.02, 0.9], [0.9, 0.9, 0.9, 0.9]])
    found = counted_tags(tagged, probability, 0.1)
    assert found.tolist() == [[False, True, False, False], [False, False, True, False], [False] * 4]


@pytest.mark.parametrize("likely", [0.0, 0.1])
def test_of_several_tags_none_counts_where_nothing_speaks_for_any_and_one_alone_does(likely):
    tagged = torch.tensor([[False, False, False, True, True], [False, False, False, True, False]])
    hints = torch.full((2, SIDE, SIDE), IGNORE)
    found = of_hints(hints, tagged, ActivationSettings(likely=likely))  # pyright: ignore[reportCallIssue]
    assert found.present.tolist() == [[False] * 5, [False, False, False, True, False]]
    foreground = torch.rand(2, SIDE, SIDE)
    made = labels(foreground, found.maps, found.present)
    assert torch.equal(made[0], threshold(foreground[0], IGNORE)) and torch.equal(made[1], threshold(foreground[1], 3))


def test_label_maps_count_as_far_as_a_tag_is_there():
    hints = torch.full((1, 4, 4), IGNORE)
    hints[0, 0], hints[0, 1] = 1, 2
    found = of_hints(hints, torch.tensor([[False, True, False, True]]), ActivationSettings())  # pyright: ignore
    assert found.maps[0, 1, 0].tolist() == [1.0] * 4 and found.maps[0, 2].sum() == 0 and found.maps[0, 3].sum() == 0
    assert found.present.tolist() == [[False, True, False, False]]
