"""The tests of drift are what a plain loop gives, alarm as rarely as they say, and see what has moved."""

import time

import numpy as np
import pytest
from scipy.stats import ks_2samp

from semivl.evaluation.mmd import BANDWIDTHS, gaussian_kernel, ks_test, mmd_test, unbiased_mmd


def looped(first: np.ndarray, second: np.ndarray) -> float:
    """MMD^2 by its definition, pair by pair."""
    rows = [*first, *second]
    apart = [((a - b) ** 2).sum() for i, a in enumerate(rows) for b in rows[:i]]
    median = np.median([d for d in apart if d > 0])

    def mean(left, right, same: bool) -> float:
        values = [
            np.mean([np.exp(-((a - b) ** 2).sum() / (2 * w**2 * median)) for w in BANDWIDTHS])
            for i, a in enumerate(left)
            for j, b in enumerate(right)
            if not (same and i == j)
        ]
        return float(np.mean(values))

    return mean(first, first, True) + mean(second, second, True) - 2 * mean(first, second, False)


@pytest.mark.parametrize("seed", range(3))
def test_mmd_is_the_loop_over_all_pairs(seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = random.normal(size=(11, 4)), random.normal(0.5, 2, size=(7, 4))
    second[0] = first[0]
    assert mmd_test(first, second, 99).statistic == pytest.approx(looped(first, second), abs=1e-12)
    kernel = gaussian_kernel(np.concatenate([first, second]))
    assert kernel is not None
    members = random.permuted(np.tile(np.arange(18) < 11, (5, 1)), axis=1)
    both = np.concatenate([first, second])
    expected = [looped(both[chosen], both[~chosen]) for chosen in members]
    assert unbiased_mmd(kernel, members) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_ks_is_scipys_distance_and_its_exact_p_value(ties: bool) -> None:
    random = np.random.default_rng(3)
    first, second = random.normal(size=40), random.normal(0.4, 1, size=25)
    if ties:
        first, second = first.round(), second.round()
    theirs = ks_2samp(first, second, method="exact")
    ours = ks_test(first, second, 9999)
    assert ours.statistic == pytest.approx(theirs.statistic)
    if ties:  # scipy's formula does not know of ties, and says too much
        assert ours.p_value <= theirs.pvalue
    else:
        assert ours.p_value == pytest.approx(theirs.pvalue, abs=4 * np.sqrt(theirs.pvalue / 9999))


def rate(test, draw, repetitions: int, level: float = 0.1) -> float:
    """Share of repetitions with a p-value of at most `level`."""
    found = [test(*draw(np.random.default_rng(n)), 99, seed=n).p_value <= level for n in range(repetitions)]
    return float(np.mean(found))


def skewed(random: np.random.Generator, count: int) -> np.ndarray:
    return np.exp(random.normal(size=(count, 5)))


@pytest.mark.parametrize(
    ("test", "draw"),
    [
        (mmd_test, lambda r: (skewed(r, 60), skewed(r, 25))),
        (ks_test, lambda r: (skewed(r, 60)[:, 0], skewed(r, 25)[:, 0])),
        (ks_test, lambda r: (r.integers(0, 4, 60), r.integers(0, 4, 25))),
    ],
    ids=["mmd", "ks", "ks with ties"],
)
def test_false_alarms_are_as_rare_as_stated(test, draw) -> None:
    alarms = rate(test, draw, 600)
    assert alarms <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 600)
    assert alarms >= 0.04, "a test that never alarms would see nothing either"


def test_mmd_sees_a_shift_another_spread_and_another_mixture_of_the_same_mean() -> None:
    def shifted(r: np.random.Generator):
        return r.normal(size=(80, 8)), r.normal(0.5, 1, size=(40, 8))

    def spread(r: np.random.Generator):
        return r.normal(size=(80, 8)), r.normal(0, 1.6, size=(40, 8))

    def mixture(r: np.random.Generator):
        return r.normal(size=(80, 2)), r.choice([-1.5, 1.5], size=(40, 1)) + r.normal(0, 0.3, size=(40, 2))

    for draw in (shifted, spread, mixture):
        assert rate(mmd_test, draw, 30, level=0.01) > 0.8, draw.__name__


def test_sets_without_any_difference_are_none() -> None:
    assert mmd_test(np.ones((20, 3)), np.ones((9, 3)), 99) == (0.0, 1.0)
    assert ks_test(np.full(20, 7), np.full(9, 7), 99) == (0.0, 1.0)


def test_the_same_seed_gives_the_same_answer() -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(size=(50, 3)), random.normal(size=(40, 3))
    assert mmd_test(first, second, 99, seed=1, most=30) == mmd_test(first, second, 99, seed=1, most=30)


def test_a_million_rows_take_seconds() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(1_000_000, 16)).astype(np.float32)
    begun = time.perf_counter()
    assert mmd_test(rows, rows[:300_000] + 0.3, 999).p_value == pytest.approx(0.001)
    assert ks_test(rows[:, 0], rows[:300_000, 0] + 0.3, 999).p_value == pytest.approx(0.001)
    assert time.perf_counter() - begun < 20
