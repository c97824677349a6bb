"""Boundary IoU is what its definition says, counted pixel by pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion

from semivl.evaluation.boundary import band_counts, band_width, bands


def brute_force(labels: np.ndarray, distance: int) -> np.ndarray:
    """A labelled pixel is in the band if a labelled pixel of another class, or no pixel at all, is within reach."""
    height, width = labels.shape
    found = np.zeros(labels.shape, bool)
    for y, x in np.argwhere(labels != 255):
        for v in range(y - distance, y + distance + 1):
            for u in range(x - distance, x + distance + 1):
                inside = 0 <= v < height and 0 <= u < width
                found[y, x] |= not inside or labels[v, u] not in (labels[y, x], 255)
    return found


def drawn(seed: int, classes: int = 4) -> np.ndarray:
    """Areas of a few pixels, some of them not labelled."""
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 30, 2)
    side = int(random.integers(1, 9))
    small = random.integers(0, classes, (height // side + 1, width // side + 1))
    labels = np.kron(small, np.ones((side, side), int))[:height, :width].astype(np.uint8)
    labels[random.random(labels.shape) < random.choice([0, 0.1])] = 255
    return labels


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), distance=st.integers(1, 7))
def test_bands_are_the_brute_force_ones(seed: int, distance: int) -> None:
    labels = drawn(seed)
    found = bands(torch.from_numpy(labels)[None], distance)[0].numpy()
    assert np.array_equal(found, brute_force(labels, distance))


@pytest.mark.parametrize("seed", range(8))
def test_without_ignored_pixels_bands_are_the_published_ones(seed: int) -> None:
    """Mask minus the mask eroded d times by a square of 3, nothing beyond the border, for each class by itself."""
    labels = drawn(seed)
    labels[labels == 255] = 0
    for distance in (1, 2, 5):
        found = bands(torch.from_numpy(labels)[None], distance)[0].numpy()
        for index in np.unique(labels):
            mask = labels == index
            inner = binary_erosion(mask, np.ones((3, 3)), iterations=distance, border_value=0)
            assert np.array_equal(found & mask, mask & ~inner)


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_intersection_and_union_of_each_classs_bands(seed: int) -> None:
    truth = np.stack([drawn(seed), np.roll(drawn(seed), 1)])
    said = np.stack([np.roll(t, 2, 1) % 4 for t in truth])
    counted = band_counts(torch.from_numpy(truth), torch.from_numpy(said), 4)
    distance = band_width(*truth.shape[1:])
    for image, (t, p) in enumerate(zip(truth, said, strict=True)):
        seen = np.where(t == 255, 255, p).astype(np.uint8)
        of_truth, of_seen = brute_force(t, distance), brute_force(seen, distance)
        for index in range(4):
            a, b = of_truth & (t == index), of_seen & (seen == index)
            assert counted.intersections[image, index] == (a & b).sum()
            assert counted.unions[image, index] == (a | b).sum()


def test_what_is_said_of_ignored_pixels_changes_nothing() -> None:
    truth = torch.zeros(1, 40, 60, dtype=torch.uint8)
    truth[:, 10:30, 20:50] = 1
    truth[:, 8:12], truth[:, :, 48:53] = 255, 255
    right = truth.where(truth != 255, 0)
    for said in (right, truth.where(truth != 255, 1), truth.where(truth != 255, 2)):
        intersections, unions = band_counts(truth, said, 3)
        assert torch.equal(intersections, unions) and unions[0, 1] > 0


def test_the_distance_is_two_hundredths_of_the_diagonal() -> None:
    assert band_width(240, 320) == 8 and band_width(375, 500) == 12 and band_width(4, 4) == 1
