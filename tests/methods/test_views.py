"""Strong views and CutMix boxes are drawn as the reference draws them: two-sample tests against its own transforms.

Each view is made of the same picture, whose patches tell what was done to it. A recipe with a wrong number has to be
told apart by the same test, so that none here passes because it sees nothing.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as reference
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter
from scipy.stats import ks_2samp
from torch import Tensor

from benchmarks.recipe import Recipe, seed
from semivl.methods.parts import views
from semivl.methods.parts.views import blurred, cutmix_boxes, distorted, draw_distortion, hue_turned, strong_view

RECIPE, VIEWS, SIDE, PATCH = Recipe(crop=64), 2000, 48, 24
STATISTICS = ("brightness", "contrast", "saturation", "hue", "is grey", "is coloured anew", "sharpness")
"""what is measured of a view, in that order"""
LEVEL = 0.001
"""of significance, for each of the few statistics; draws are fixed"""
WRONG = [
    ("brightness", replace(RECIPE, colours=(0.4, 0.5, 0.5, 0.25))),
    ("contrast", replace(RECIPE, colours=(0.5, 0.35, 0.5, 0.25))),
    ("saturation", replace(RECIPE, colours=(0.5, 0.5, 0.3, 0.25))),
    ("hue", replace(RECIPE, colours=(0.5, 0.5, 0.5, 0.2))),
    ("is coloured anew", replace(RECIPE, coloured=0.7)),
    ("is grey", replace(RECIPE, grey=0.3)),
    ("sharpness", replace(RECIPE, blurred=0.6)),
    ("sharpness", replace(RECIPE, blur=(0.1, 1.5))),
]
WRONG_BOXES = [
    ("is there", replace(RECIPE, boxed=0.6)),
    ("area", replace(RECIPE, areas=(0.06, 0.4))),
    ("area", replace(RECIPE, areas=(0.02, 0.35))),
    ("aspect", replace(RECIPE, ratios=(0.5, 2.0))),
]


def picture() -> np.ndarray:
    """(48, 48, 3) uint8: two greys side by side, above a colour and the first grey."""
    pixels = np.full((SIDE, SIDE, 3), 90, np.uint8)
    pixels[:PATCH, PATCH:] = 140
    pixels[PATCH:, :PATCH] = (140, 90, 100)
    return pixels


def measured(view: np.ndarray) -> list[float]:
    """The statistics of a view (3, S, S) in [0, 1]; greyness and sharpness do not depend on the colours."""
    dark, light, colour = (view[:, y, x] for y, x in ((8, 8), (8, 40), (40, 8)))
    step = (light - dark).mean()
    sharpness = np.abs(np.diff(view[:, 8].mean(0))).max() / step if step > 0.01 else 1.0
    high, low = colour.max(), colour.min()
    angle = np.angle(colour @ np.exp(2j * np.pi * np.arange(3) / 3)) / (2 * np.pi) if high - low > 0.01 else -1
    is_grey = float(np.abs(view - view[:1]).max() < 0.004)
    is_other = float(np.abs(dark - 90 / 255).max() > 0.004)
    return [view.mean(), step / dark.mean(), (high - low) / max(step, 0.01), angle, is_grey, is_other, sharpness]


def ours() -> np.ndarray:
    """(views, statistics)"""
    torch.manual_seed(0)
    image = torch.from_numpy(picture()).permute(2, 0, 1).float() / 255
    return np.array([measured(distorted(image, draw_distortion(2.0)).clamp(0, 1).numpy()) for _ in range(VIEWS)])


def theirs(recipe: Recipe) -> np.ndarray:
    """(views, statistics)"""
    seed(1)
    image = Image.fromarray(picture())
    views = (np.asarray(recipe.strong(image)).transpose(2, 0, 1) / 255 for _ in range(VIEWS))
    return np.array([measured(view) for view in views])


def told_apart(first: np.ndarray, second: np.ndarray, names: tuple[str, ...]) -> list[str]:
    """The statistics whose distributions differ; differences below one level of 255 are rounding."""
    grid = 0.012
    pairs = zip(names, np.round(first / grid).T, np.round(second / grid).T, strict=True)
    return [name for name, one, other in pairs if ks_2samp(one, other, method="asymp").pvalue < LEVEL]


@pytest.fixture(scope="module")
def our_views() -> np.ndarray:
    return ours()


def test_strong_views_are_distributed_as_the_references(our_views):
    assert not told_apart(our_views, theirs(RECIPE), STATISTICS)


@pytest.mark.parametrize(("by", "wrong"), WRONG)
def test_another_recipe_for_strong_views_is_told_apart(our_views, by, wrong):
    assert by in told_apart(our_views, theirs(wrong), STATISTICS)


def box_statistics(boxes: np.ndarray) -> np.ndarray:
    """(boxes, 5): area, aspect, top, left, whether there is one; all but the last 0 where there is none."""
    found = np.zeros((len(boxes), 5))
    for row, box in zip(found, boxes, strict=True):
        ys, xs = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
        if len(ys):
            row[:] = box.mean(), np.log(len(ys) / len(xs)), ys[0] / len(box), xs[0] / len(box), 1
    return found


BOX_STATISTICS, BOXES = ("area", "aspect", "top", "left", "is there"), 8000


@pytest.fixture(scope="module")
def our_boxes() -> np.ndarray:
    torch.manual_seed(0)
    return box_statistics(cutmix_boxes(BOXES, RECIPE.crop).numpy())


def their_boxes(recipe: Recipe) -> np.ndarray:
    seed(1)
    return box_statistics(np.array([recipe.box() for _ in range(BOXES)]))


def test_cutmix_boxes_are_distributed_as_the_references(our_boxes):
    assert not told_apart(our_boxes, their_boxes(RECIPE), BOX_STATISTICS)


@pytest.mark.parametrize(("by", "wrong"), WRONG_BOXES)
def test_other_boxes_are_told_apart(our_boxes, by, wrong):
    assert by in told_apart(our_boxes, their_boxes(wrong), BOX_STATISTICS)


@pytest.mark.parametrize("change", [-0.5, -0.2, 0.0, 0.3, 0.5])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (views.brightened, reference.adjust_brightness),
        (views.contrasted, reference.adjust_contrast),
        (views.saturated, reference.adjust_saturation),
    ],
)
def test_each_adjustment_is_torchvisions(ours: Callable, theirs: Callable, change: float):
    image = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(image, change), theirs(image, 1 + change), atol=1e-4, rtol=0)


@pytest.mark.parametrize("turn", [-0.25, -0.1, 0.0, 0.17, 0.25])
def test_hue_is_turned_as_torchvision_turns_it(turn):
    image = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(1))
    image[:, :3], image[:, 3], image[:, 4], image[1:, 5] = image[:1, :3], 0, 1, 0
    torch.testing.assert_close(hue_turned(image, turn), reference.adjust_hue(image, turn), atol=2e-6, rtol=0)


@pytest.mark.parametrize("deviation", [0.1, 0.6, 1.3, 2.0])
def test_a_blur_is_gaussian_and_near_pillows(deviation):
    image = torch.rand(3, 40, 30, generator=torch.Generator().manual_seed(1))
    got = blurred(image, deviation).numpy()
    radius = int(np.ceil(3 * deviation))
    expected = gaussian_filter(image.numpy(), (0, deviation, deviation), mode="nearest", radius=(0, radius, radius))
    np.testing.assert_allclose(got, expected, atol=1e-6)
    pixels = Image.fromarray((image.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    theirs = np.asarray(pixels.filter(ImageFilter.GaussianBlur(deviation))).transpose(2, 0, 1) / 255
    assert np.abs(got - theirs).mean() < 0.015, "of noise"


def impulse_deviation(view: Tensor) -> float:
    """Of the blur that spread a single bright column."""
    columns = (view - view.min()).mean((0, 1))
    places = torch.arange(len(columns)) - len(columns) // 2
    return float((columns * places**2).sum() / columns.sum()) ** 0.5


@pytest.mark.parametrize(("side", "widest"), [(512, 2.0), (640, 2.0), (256, 1.0), (128, 0.5)])
def test_the_blur_is_as_wide_as_the_crop_bears(side, widest):
    torch.manual_seed(0)
    images = torch.full((40, 3, 24, side), 0.3)
    images[..., side // 2] = 0.5
    widths = [impulse_deviation(view) for view in strong_view(images)]
    assert 0.8 * widest < max(widths) <= widest


def test_each_view_has_draws_of_its_own_and_they_follow_from_the_seed():
    images = torch.rand(1, 3, 32, 32).expand(16, -1, -1, -1)
    torch.manual_seed(3)
    first = strong_view(images)
    torch.manual_seed(3)
    assert torch.equal(first, strong_view(images))
    assert len({float(view.sum()) for view in first}) > 10
