"""Self-diffusion on a photo's graph (spec transfer.md, 2.4), against closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from semivl.methods.parts.diffusion import (
    DiffusionSettings,
    cells,
    diffused,
    graph,
    neighbours,
    node_means,
    superpixels,
)


def chosen(**fields) -> DiffusionSettings:
    return DiffusionSettings(**fields)


def random_weights(seed: int, nodes: int = 12) -> sparse.csr_array:
    rng = np.random.default_rng(seed)
    half = np.triu(rng.random((nodes, nodes)) * (rng.random((nodes, nodes)) < 0.4), 1)
    return sparse.csr_array(half + half.T)


def transition(weights: sparse.csr_array) -> np.ndarray:
    dense = weights.toarray()
    degrees = dense.sum(1, keepdims=True)
    return dense / np.where(degrees > 0, degrees, 1)


@given(seed=st.integers(0, 10_000), form=st.sampled_from(["restart", "series"]), alpha=st.floats(0.01, 0.99))
@settings(max_examples=40, deadline=None)
def test_scores_of_seeds_that_are_not_negative_are_not_negative(seed, form, alpha):
    seeds = np.random.default_rng(seed).random((12, 3))
    found = diffused(random_weights(seed), seeds, chosen(form=form, alpha=alpha, steps=15))
    assert (found >= 0).all() and np.isfinite(found).all()


@pytest.mark.parametrize("alpha", [0.5, 0.9])
def test_restart_ends_at_the_closed_forms_fixed_point(alpha):
    weights, seeds = random_weights(3), np.random.default_rng(4).random((12, 2))
    found = diffused(weights, seeds, chosen(alpha=alpha, steps=400))
    expected = (1 - alpha) * np.linalg.solve(np.eye(12) - alpha * transition(weights), seeds)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_self_diffusion_proper_is_the_truncated_geometric_series(steps):
    weights, seeds = random_weights(5), np.random.default_rng(6).random((12, 2))
    p, degrees = transition(weights), np.asarray(weights.sum(axis=1)).ravel()
    # as it is published: W <- W P + 1, then W* = W D^-1
    walked = np.eye(12)
    for _ in range(steps):
        walked = walked @ p + np.eye(12)
    series = sum(np.linalg.matrix_power(p, k) for k in range(steps + 1))
    np.testing.assert_allclose(walked, series)
    first = seeds / np.where(degrees > 0, degrees, 1)[:, None]
    np.testing.assert_allclose(diffused(weights, seeds, chosen(form="series", steps=steps)), series @ first)


def test_a_constant_stays_a_constant_under_restart():
    weights = random_weights(7)
    lonely = np.asarray(weights.sum(axis=1)).ravel() == 0
    found = diffused(weights, np.ones((12, 1)), chosen(steps=30))
    np.testing.assert_allclose(found[~lonely], 1)


def test_affinities_follow_the_formula_on_two_cells():
    image, foreground, features = np.zeros((4, 8, 3)), np.zeros((4, 8)), np.zeros((4, 8, 2))
    image[:, 4:] = 0.02
    foreground[:, 4:] = 0.3
    features[:, 4:] = 5.0
    made = graph(image, foreground, features, chosen(nodes="cells"))
    from skimage.color import rgb2lab

    lab = rgb2lab(image)
    colour = ((lab[0, 0] - lab[0, 7]) ** 2).sum()
    expected = np.exp(-0.3 / 0.15 - colour / (2 * 10.0**2) - 0.5)  # the only distance of features is the median
    np.testing.assert_allclose(made.weights.toarray(), [[0, expected], [expected, 0]])


def test_neighbours_touch_and_reach_two_adds_theirs():
    node = cells(12, 8)
    near = {tuple(pair) for pair in neighbours(node, 1).T.tolist()}
    assert near == {(0, 1), (2, 3), (4, 5), (0, 2), (1, 3), (2, 4), (3, 5)}
    far = {tuple(pair) for pair in neighbours(node, 2).T.tolist()}
    assert far == near | {(0, 3), (1, 2), (0, 4), (1, 5), (2, 5), (3, 4)}


def test_cells_at_the_border_are_cut_short_and_means_are_of_their_pixels():
    node = cells(5, 6)
    assert node.tolist()[0] == [0, 0, 0, 0, 1, 1] and node.tolist()[4] == [2, 2, 2, 2, 3, 3]
    values = np.arange(30.0).reshape(5, 6, 1)
    expected = [values[node == k].mean() for k in range(4)]
    np.testing.assert_allclose(node_means(values, node)[:, 0], expected)


@pytest.mark.parametrize("area", [600, 300, 100])
def test_superpixels_are_numbered_without_gaps_and_have_about_the_area_asked_for(area):
    down, across = np.mgrid[:96, :96] / 96
    found = superpixels(np.stack([down, across, (down + across) / 2], -1), area)
    count = int(found.max()) + 1
    assert set(np.unique(found)) == set(range(count))
    assert 0.7 < 96 * 96 / count / area < 1.3


def test_scores_do_not_cross_an_edge_of_the_foreground():
    """A class seeded in one half stays there where a step in the foreground parts the halves."""
    image, features = np.full((16, 16, 3), 0.5), np.zeros((16, 16, 1))
    foreground = np.zeros((16, 16))
    foreground[:, 8:] = 1.0
    made = graph(image, foreground, features, chosen(nodes="cells"))
    seeds = np.zeros((16, 1))
    seeds[2:4] = 1.0
    seeds[3] = 0
    found = diffused(made.weights, seeds, chosen(steps=100))[made.node][..., 0]
    assert found[:, 8:].min() > 20 * found[:, :8].max()
