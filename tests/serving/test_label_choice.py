"""The choice follows its law, is the same for a seed, and takes no picture twice."""

import tracemalloc

import numpy as np
import pytest
import torch

from semivl.serving.label_choice import NEAR_BITS, Images, choose, nearest_of
from semivl.serving.label_scoring import REGIONS, uncertainty

NOTHING = Images(np.zeros((0, 8), np.float32), np.zeros(0, np.uint64))


def images(count: int, seed: int = 0, width: int = 8) -> Images:
    """Unit vectors, and hashes of which no two are near."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, width)).astype(np.float32)
    hashes = random.integers(0, 2**64, count, dtype=np.uint64) | np.uint64(0x00000000FFFFFFFF)
    hashes ^= random.permutation(count).astype(np.uint64) << np.uint64(3)
    return Images(features / np.linalg.norm(features, axis=1, keepdims=True), hashes)


def unhashed(count: int, seed: int, width: int = 8) -> Images:
    """The same without hashes: looking near-duplicates up costs more than all the rest of a small choice."""
    return Images(images(count, seed, width).features, NOTHING.hashes)


def places(choice) -> list[int]:
    return [one.place for one in choice.chosen]


def test_a_seed_gives_one_choice_and_another_seed_another():
    pool, labelled, unsure = images(200), images(20, 1), np.linspace(0.1, 1, 200)
    first = choose(30, pool, unsure, labelled, 7)
    assert choose(30, pool, unsure, labelled, 7) == first
    assert places(choose(30, pool, unsure, labelled, 8)) != places(first)
    assert len(set(places(first))) == 30


def test_the_first_draw_is_in_proportion_to_uncertainty_times_squared_distance():
    pool, labelled = images(4, 3), unhashed(2, 4)
    unsure = np.array([0.1, 0.4, 0.2, 0.3])
    law = unsure * np.array([min(np.sum((f - c) ** 2) for c in labelled.features) for f in pool.features])
    drawn = np.bincount([places(choose(1, pool, unsure, labelled, seed))[0] for seed in range(3000)], minlength=4)
    assert drawn / 3000 == pytest.approx(law / law.sum(), abs=0.04)  # more than four deviations of a draw


def test_the_second_draw_keeps_away_from_the_first():
    features = np.array([[1, 0], [0.9999, 0.0141], [0, 1]], np.float32)
    pool = Images(features / np.linalg.norm(features, axis=1, keepdims=True), images(3).hashes)
    labelled = Images(np.array([[-1, 0]], np.float32), NOTHING.hashes)
    for seed in range(50):
        chosen = places(choose(2, pool, np.ones(3), labelled, seed))
        assert 2 in chosen, "the two that are nearly one are not both taken"


def test_distance_and_nearest_are_told_of_the_labelled_images():
    pool, labelled = images(300), images(40, 1)
    distances = np.linalg.norm(pool.features[:, None] - labelled.features[None], axis=2)
    found, nearest = nearest_of(pool.features, labelled.features)
    assert found == pytest.approx(distances.min(1), abs=1e-3)
    assert nearest.tolist() == distances.argmin(1).tolist()
    for one in choose(10, pool, np.ones(300), labelled, 0).chosen:
        assert one.nearest == distances[one.place].argmin()
        assert one.distance == pytest.approx(distances[one.place].min(), abs=1e-3)


def test_near_duplicates_of_labelled_and_of_chosen_pictures_are_left_out_and_counted():
    pool, labelled = images(40), images(5, 1)
    hashes = pool.hashes.copy()
    hashes[0] = labelled.hashes[2] ^ np.uint64(2**NEAR_BITS - 1)  # NEAR_BITS bits
    hashes[1] = labelled.hashes[2] ^ np.uint64(2 ** (NEAR_BITS + 1) - 1)  # one more
    hashes[3] = hashes[4] = hashes[5]
    choice = choose(40, Images(pool.features, hashes), np.ones(40), labelled, 0)
    chosen = places(choice)
    assert 0 not in chosen
    assert 1 in chosen
    assert len({3, 4, 5} & set(chosen)) == 1
    assert (choice.near_labelled, choice.near_chosen, len(chosen)) == (1, 2, 37)


def test_flat_pictures_whose_hash_tells_nothing_are_not_taken_for_duplicates():
    pool, flat = images(6), np.zeros(6, np.uint64)
    choice = choose(6, Images(pool.features, flat), np.ones(6), Images(images(2, 1).features, flat[:2]), 0)
    assert (sorted(places(choice)), choice.near_labelled, choice.near_chosen) == (list(range(6)), 0, 0)


def test_nothing_labelled_and_nothing_uncertain_still_gives_a_choice():
    choice = choose(5, images(9), np.zeros(9), NOTHING, 0)
    assert len(set(places(choice))) == 5
    assert all(np.isnan(one.distance) and one.nearest is None for one in choice.chosen)
    assert len(choose(50, images(9), np.ones(9), NOTHING, 0).chosen) == 9
    assert choose(3, NOTHING, np.zeros(0), NOTHING, 0).chosen == ()


def test_an_image_of_which_the_model_is_sure_is_taken_last():
    unsure = np.ones(10)
    unsure[4] = 0.0
    for seed in range(20):
        assert places(choose(10, images(10), unsure, unhashed(2, 1), seed))[-1] == 4


def test_a_hundred_thousand_images_need_little_more_memory_than_their_features():
    pool, labelled = images(100_000, width=64), images(2_000, 1, 64)
    tracemalloc.start()
    try:
        assert len(choose(20, pool, np.ones(100_000), labelled, 0).chosen) == 20
        assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    finally:
        tracemalloc.stop()


def test_uncertainty_is_none_for_a_sure_model_and_all_for_one_that_knows_nothing():
    sure = torch.zeros(5, 40, 56)
    sure[2] = 1
    assert uncertainty(sure) == 0
    assert uncertainty(torch.full((5, 40, 56), 0.2)) == pytest.approx(1, abs=1e-5)


def test_an_easy_background_does_not_hide_what_the_model_does_not_know():
    def with_unsure_square(side: int) -> torch.Tensor:
        probabilities = torch.zeros(2, 8 * REGIONS, 8 * REGIONS)
        probabilities[0] = 1
        probabilities[:, :side, :side] = 0.5
        return probabilities

    quarter, half = 4 * REGIONS, 8 * REGIONS
    assert uncertainty(with_unsure_square(quarter)) == pytest.approx(1, abs=1e-5)
    assert uncertainty(with_unsure_square(half)) == pytest.approx(1, abs=1e-5)
    outline = torch.zeros(2, 64, 64)
    outline[0] = 1
    outline[:, :, 31] = 0.5
    assert uncertainty(outline) < 0.1, "a thin outline is unsure in every image"
