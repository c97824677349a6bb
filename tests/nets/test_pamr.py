"""PAMR against loops over pixels, and what it must and must not change."""

import math

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from semivl.nets.pamr import affinity, neighbours, pamr

CPU = torch.device("cpu")
DILATIONS = (1, 2, 4)
AROUND = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


def by_loops(image: torch.Tensor, scores: torch.Tensor, iterations: int) -> torch.Tensor:
    """One image (C, h, w) and scores (N, h, w), by the formulas, pixel after pixel."""
    channels, h, w = image.shape

    def place(i: int, j: int, d: int, di: int, dj: int) -> tuple[int, int]:
        return min(max(i + d * di, 0), h - 1), min(max(j + d * dj, 0), w - 1)

    for _ in range(iterations):
        refined = torch.zeros_like(scores)
        for i in range(h):
            for j in range(w):
                places = [place(i, j, d, *step) for d in DILATIONS for step in AROUND]
                unlike = [0.0] * len(places)
                for c in range(channels):
                    own = image[c, i, j].item()
                    values = [image[c, y, x].item() for y, x in places]
                    every = [*values, *[own] * len(DILATIONS)]
                    mean = sum(every) / len(every)
                    deviation = math.sqrt(sum((v - mean) ** 2 for v in every) / (len(every) - 1))
                    for k, value in enumerate(values):
                        unlike[k] += abs(value - own) / (1e-8 + 0.1 * deviation) / channels
                weights = [math.exp(min(unlike) - u) for u in unlike]
                for k, (y, x) in enumerate(places):
                    refined[:, i, j] += scores[:, y, x] * weights[k] / sum(weights)
        scores = refined
    return scores


def test_it_is_the_loop_over_pixels():
    torch.manual_seed(0)
    images, scores = torch.rand(2, 3, 5, 6), torch.rand(2, 4, 5, 6)
    expected = torch.stack([by_loops(i, s, 2) for i, s in zip(images.double(), scores.double(), strict=True)])
    torch.testing.assert_close(pamr(images, scores, 2, DILATIONS).double(), expected, atol=1e-5, rtol=1e-5)


def test_neighbours_come_row_by_row_and_the_border_goes_on():
    near, far = neighbours(3, 3, (1, 24), CPU).split(8)
    assert near[:, 4].tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert far[:, 0].tolist() == [0, 0, 2, 0, 2, 6, 6, 8]


def test_weights_sum_to_one_and_a_flat_image_gives_the_plain_mean():
    torch.manual_seed(0)
    places = neighbours(8, 8, DILATIONS, CPU)
    torch.testing.assert_close(affinity(torch.rand(1, 3, 8, 8), places, 3).sum(1), torch.ones(1, 64))
    flat = affinity(torch.full((1, 3, 8, 8), 0.5), places, 3)
    torch.testing.assert_close(flat, torch.full_like(flat, 1 / 24))


def test_brightness_and_contrast_of_the_image_do_not_matter():
    torch.manual_seed(0)
    images, scores = torch.rand(1, 3, 12, 12), torch.rand(1, 2, 12, 12)
    torch.testing.assert_close(pamr(3 * images - 1, scores), pamr(images, scores), atol=1e-4, rtol=1e-4)


def test_scores_stop_at_an_edge_and_fill_up_to_it():
    images = torch.zeros(1, 3, 16, 16)
    images[..., 8:] = 1
    scores = torch.zeros(1, 1, 16, 16)
    scores[..., 2:6] = 1
    refined = pamr(images, scores)[0, 0]
    assert refined[:, 8:].max() < 1e-3
    assert refined[:, :8].min() > 0.1


class Largest(TorchDispatchMode):
    """The size of the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.elements = max(self.elements, made.numel())
        return made


def test_many_classes_take_no_more_memory_than_a_few_and_come_out_as_each_by_itself():
    torch.manual_seed(0)
    images, scores = torch.rand(2, 3, 16, 20), torch.rand(2, 21, 16, 20)
    with Largest() as largest:
        found = pamr(images, scores, 2)
    neighbours_of_a_class = 2 * 48 * 16 * 20
    assert largest.elements <= 6 * neighbours_of_a_class
    alone = [pamr(images, one, 2) for one in scores.split(1, dim=1)]
    assert torch.equal(found, torch.cat(alone, dim=1))
