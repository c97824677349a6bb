"""Two models on the same images: their difference, and bounds of it that a plain bootstrap gives too."""

import random
import statistics

import numpy as np
import pytest

from semivl.evaluation.paired import Counts, class_differences, compared, counts_of, miou_difference
from tests.registry.cases import counts


def plain_difference(challenger: Counts, champion: Counts, images: list[int]) -> float:
    """By the definition, in loops."""
    means = [[], []]
    for c in range(challenger.unions.shape[1]):
        sums = [[sum(float(part[i, c]) for i in images) for part in side] for side in (challenger, champion)]
        if all(union for _, union in sums):
            for mean, (inside, union) in zip(means, sums, strict=True):
                mean.append(100 * inside / union)
    return statistics.mean(means[0]) - statistics.mean(means[1])


def test_bounds_are_those_of_a_bootstrap_in_plain_loops():
    one, other = counts(own=1, images=30), counts((0.55, 0.6, 0.5), own=2, images=30)
    found = miou_difference(one, other, 0.9, seed=3)
    assert found.difference == pytest.approx(plain_difference(one, other, list(range(30))))
    drawing = random.Random(5)
    plain = sorted(plain_difference(one, other, drawing.choices(range(30), k=30)) for _ in range(1500))
    deviation = statistics.stdev(plain)
    assert found.low == pytest.approx(plain[150], abs=0.15 * deviation)
    assert found.high == pytest.approx(plain[1350], abs=0.15 * deviation)


def test_the_same_seed_gives_the_same_bounds():
    one, other = counts(own=1), counts(own=2)
    assert miou_difference(one, other, 0.95, 7) == miou_difference(one, other, 0.95, 7)
    assert miou_difference(one, other, 0.95, 7) != miou_difference(one, other, 0.95, 8)


def test_what_both_find_hard_widens_no_bound():
    one, other = counts(own=1), counts(own=1)
    found = miou_difference(Counts(one.intersections * 1.1, one.unions), other, 0.95, 1)
    unpaired = miou_difference(one, counts(own=1, seed=2), 0.95, 1)
    assert 10 * (found.high - found.low) < unpaired.high - unpaired.low


def test_a_class_that_one_model_alone_sees_is_in_neither_mean():
    one, other = counts(own=1), counts(own=1)
    other.intersections[:, 2] = other.unions[:, 2] = 0
    one.intersections[:, 2] = 0
    first, second = compared(one, other)
    assert np.isnan([first[2], second[2]]).all()
    assert miou_difference(one, other, 0.95, 1) == (0, 0, 0)


def test_error_of_a_class_is_the_spread_of_its_resampled_difference():
    one, other = counts(own=1, images=80), counts(own=2, images=80)
    found = class_differences(one, other)
    drawing = np.random.default_rng(1)
    drawn = []
    for _ in range(2000):
        chosen = drawing.integers(80, size=80)
        drawn.append(np.subtract(*compared(*(Counts(*(part[chosen] for part in side)) for side in (one, other)))))
    assert found.error == pytest.approx(np.std(drawn, axis=0), rel=0.1)


def test_images_count_by_what_they_tell_of_a_class():
    made = counts(images=50)
    made.unions[:, 1] = 0
    made.unions[3, 1] = 1000.0
    made.unions[:, 2] = 500.0
    made.unions[0, 2] = 500.0 * 10
    images = class_differences(made, made).images
    assert images[1] == 1 and 6 < images[2] < 25
    assert class_differences(made, made).error[1] == np.inf


def test_counts_are_read_by_key_whatever_the_order_of_the_rows():
    import pyarrow as pa

    rows = [{"key": key, "intersections": [n, 0], "unions": [2 * n, 3]} for key, n in (("b", 2), ("a", 1))]
    read = counts_of(pa.Table.from_pylist(rows))
    assert read.intersections.tolist() == [[1, 0], [2, 0]] and read.unions.tolist() == [[2, 3], [4, 3]]
