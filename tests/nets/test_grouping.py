"""Groups of alike patches: closed-form affinities, orders, bounds, and what refinement makes of them (spec scg.md)."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import timm
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F

from semivl.config import EvaluationConfig, GroupConfig, RefineConfig, check
from semivl.errors import ConfigError
from semivl.nets import grouping_spectral
from semivl.nets.grouping import LONGEST, MOST, grid_size, group_maps, grouped, upsampled
from semivl.nets.grouping_encoder import blank_group_encoder, load_group_encoder
from semivl.nets.grouping_kmeans import kmeans, on_sphere
from semivl.nets.grouping_linkage import agglomerative
from semivl.nets.grouping_parts import connected_parts, numbered, without_specks
from semivl.nets.grouping_spectral import affinities, smallest_eigenvectors, spectral
from semivl.nets.refine import group_means, refined
from tests.tiny import SIDE, tiny_vlm

GROUPERS = ("spectral", "kmeans", "agglomerative")


def config(**settings) -> GroupConfig:
    return GroupConfig(side=None, **settings)


def stripes(widths: tuple[int, ...], rows: int = 6, noise: float = 0.0) -> tuple[Tensor, Tensor]:
    """Unit features (h, w, D) of upright stripes, each along an axis of its own, and the true groups (h, w)."""
    truth = torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths)).expand(rows, -1)
    torch.manual_seed(0)
    features = F.one_hot(truth, len(widths) + 2).float()
    return F.normalize(features + noise * torch.randn_like(features), dim=-1), truth


def same_partition(a: Tensor, b: Tensor) -> bool:
    """Whether two maps divide their places alike, whatever the numbers."""
    pairs = torch.stack([a.flatten(), b.flatten()], 1).unique(dim=0)
    return len(pairs) == len(a.unique()) == len(b.unique())


@pytest.mark.parametrize("grouper", GROUPERS)
def test_stripes_are_found_with_and_without_noise(grouper):
    for noise in (0.0, 0.15):
        features, truth = stripes((5, 3, 7), noise=noise)
        found = grouped(features, torch.zeros(6, 15, 3), config(grouper=grouper, count=3, merge_above=0.3))
        assert same_partition(found, truth)


def test_affinity_of_blocks_has_an_eigenvalue_zero_for_each_and_is_divided_into_them():
    blocks = [np.ones((n, n)) * w for n, w in ((4, 1.0), (7, 0.5), (5, 2.0))]
    affinity = np.asarray(scipy.linalg.block_diag(*blocks))
    values, vectors = smallest_eigenvectors(affinity, 3)
    np.testing.assert_allclose(values, [0, 0, 1], atol=1e-9)
    assert all(np.ptp(vectors[start:stop, :2], axis=0).max() < 1e-9 for start, stop in ((0, 4), (4, 11), (11, 16)))
    truth = torch.repeat_interleave(torch.arange(3), torch.tensor([4, 7, 5]))
    assert same_partition(spectral(affinity, 3, 15), truth)


def test_eigenvectors_solve_the_generalised_problem_and_iteration_finds_those_of_the_dense_solver(monkeypatch):
    rng = np.random.default_rng(0)
    points = F.normalize(torch.from_numpy(rng.normal(size=(5, 8, 4))), dim=-1).float()
    affinity = affinities(points, torch.zeros(5, 8, 3), 0.0)
    degree = np.diag(affinity.sum(1))
    expected = scipy.linalg.eigh(degree - affinity, degree, eigvals_only=True)[1:6]
    for dense in (600, 0):
        monkeypatch.setattr(grouping_spectral, "DENSE", dense)
        values, vectors = smallest_eigenvectors(affinity, 5)
        np.testing.assert_allclose(values, expected, atol=1e-8)
        np.testing.assert_allclose((degree - affinity) @ vectors, degree @ vectors * values, atol=1e-6)


def test_colours_divide_what_features_do_not():
    features, truth = stripes((4, 4))
    alike = features[:, :1].expand(-1, 8, -1)
    colours = F.one_hot(truth, 3).float()
    found = spectral(affinities(alike, colours, 10.0), 2, 3)
    assert same_partition(found, truth.flatten())


@pytest.mark.parametrize("centre", [lambda m: m, on_sphere(4)])
def test_kmeans_clusters_do_not_depend_on_the_order_of_points(centre):
    torch.manual_seed(1)
    points = F.normalize(torch.randn(60, 4), dim=1)
    order = torch.randperm(60)
    assert same_partition(kmeans(points, 5, centre)[order], kmeans(points[order], 5, centre))


def test_every_point_lies_nearest_to_the_mean_of_its_own_cluster():
    torch.manual_seed(2)
    points = torch.randn(200, 3)
    labels = kmeans(points, 6)
    means = torch.stack([points[labels == k].mean(0) for k in range(6)])
    assert torch.equal(torch.cdist(points, means).argmin(1), labels)


def test_kmeans_gives_no_more_clusters_than_there_are_places():
    points = torch.eye(3).repeat(4, 1)
    assert len(kmeans(points, 7).unique()) == 3
    assert len(kmeans(points[:1], 7).unique()) == 1


def test_spectral_groups_do_not_depend_on_the_order_of_patches():
    features, _ = stripes((5, 3, 7), noise=0.3)
    affinity = affinities(features, torch.zeros(6, 15, 3), 0.0)
    order = torch.randperm(len(affinity), generator=torch.Generator().manual_seed(0))
    shuffled = affinity[order][:, order]
    assert same_partition(spectral(affinity, 4, 6)[order], spectral(shuffled, 4, 6))


def test_linkage_merges_neighbours_above_the_threshold_alone():
    features, truth = stripes((2, 2, 2))
    mixed = features.clone()
    mixed[:, 2:4] = F.normalize(features[:, 0] + 0.5 * features[:, 2], dim=-1)[:, None]  # cosine 0.894 with the first
    assert len(agglomerative(mixed, 0.95, 12).unique()) == 3
    assert same_partition(agglomerative(mixed, 0.85, 12), (truth > 1).long().flatten())
    apart = torch.cat([features[:, :2], features[:, 4:], features[:, :2]], 1)
    assert len(agglomerative(apart, 0.5, 12).unique()) == 3, "what does not touch is never merged"
    assert len(agglomerative(features, 0.5, 2).unique()) == 2


@pytest.mark.parametrize("grouper", GROUPERS)
@pytest.mark.parametrize("count", [2, 5, 12])
def test_every_pixel_is_in_one_of_at_most_count_groups_numbered_from_zero_and_the_same_again(grouper, count):
    encoder, images = tiny_vlm().encoder.eval(), torch.rand(2, 3, 40, 52)
    settings = config(grouper=grouper, count=count, merge_above=-1 if count == 2 else 0.9)
    maps = group_maps(encoder, images, settings)
    assert maps.shape == (2, 40, 52) and maps.min() == 0 and maps.max() < count
    assert all(image.unique().tolist() == list(range(int(image.max()) + 1)) for image in maps)
    assert torch.equal(maps, group_maps(encoder, images, settings))
    assert torch.equal(maps[1:], group_maps(encoder, images[1:], settings))


@pytest.mark.parametrize("colour", [0.0, 2.0])
@pytest.mark.parametrize("grouper", GROUPERS)
def test_an_image_of_one_patch_is_one_group(grouper, colour):
    features = F.normalize(torch.randn(1, 1, 4), dim=-1)
    settings = config(grouper=grouper, colour=colour if grouper == "spectral" else 0.0)
    assert grouped(features, torch.zeros(1, 1, 3), settings).tolist() == [[0]]


def test_small_parts_join_the_most_alike_neighbour_and_large_ones_keep_their_group():
    groups = np.array([[0, 0, 0, 1, 1, 1], [0, 2, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1]])
    features = torch.eye(3)[torch.from_numpy(groups)]
    features[1, 1] = torch.tensor([0.6, 0.8, 0.0])  # more like 1, but only 0 touches it
    features[2, 5] = torch.tensor([0.6, 0.8, 0.0])
    expected = np.where(np.arange(6) < 3, 0, 1) * np.ones((4, 1), int)
    np.testing.assert_array_equal(without_specks(groups, features, 0.05), expected)
    np.testing.assert_array_equal(without_specks(groups, features, 0.0), groups * [[1, 1, 1, 1, 1, 1]])


def test_a_speck_between_two_parts_goes_to_the_one_it_is_like():
    groups = np.array([[0, 0, 0, 2, 1, 1, 1]])
    for like, expected in ((0, 0), (1, 1)):
        features = torch.eye(2)[torch.tensor([[0, 0, 0, like, 1, 1, 1]])]
        assert without_specks(groups, features, 0.2)[0, 3] == expected


def test_parts_are_connected_over_sides_and_not_corners():
    parts, owner = connected_parts(np.array([[5, 7], [7, 5]]))
    assert sorted(parts.ravel()) == [0, 1, 2, 3] and sorted(owner) == [5, 5, 7, 7]
    np.testing.assert_array_equal(numbered(np.array([[9, 4], [4, 1]])), [[0, 1], [1, 2]])


def test_upsampled_borders_lie_where_shares_are_equal():
    found = upsampled(torch.tensor([[0, 1]]), (4, 8))
    assert torch.equal(found, (torch.arange(8) >= 4).long().expand(4, -1))


def test_a_photo_is_grouped_in_whole_patches_at_its_short_side():
    assert grid_size((100, 200), 448, 14) == (32, 64)
    assert grid_size((30, 41), None, 8) == (4, 5)
    assert grid_size((3, 3), None, 8) == (1, 1)


@pytest.mark.parametrize("size", [(3000, 100), (100, 3000), (801, 5), (5, 801), (1, 9000), (500, 100)])
@pytest.mark.parametrize(("side", "patch"), [(448, 14), (448, 8), (128, 16), (16, 16)])
def test_a_long_photo_is_grouped_in_no_more_patches_than_one_of_four_to_one(size, side, patch):
    rows, columns = grid_size(size, side, patch)
    assert min(rows, columns) >= 1 and rows * columns <= LONGEST * (side / patch) ** 2
    assert rows * columns >= 0.8 * LONGEST * (side / patch) ** 2 or min(rows, columns) < 8, "and in hardly fewer"


def test_a_photo_of_ordinary_shape_is_grouped_as_before():
    for size in ((100, 400), (400, 100), (333, 500), (1, 1), (1080, 1920), (801, 801)):
        for side, patch in ((448, 14), (448, 8), (460, 14), (224, 16)):
            expected = tuple(max(1, round(length * (side / min(size)) / patch)) for length in size)
            assert grid_size(size, side, patch) == expected
    assert grid_size((1024, 1024), None, 16) == (64, 64)
    rows, columns = grid_size((4000, 3000), None, 8)
    assert 0.95 * MOST < rows * columns <= MOST


@pytest.mark.parametrize("size", [(3000, 100), (801, 5)])
def test_a_long_photo_gets_groups_of_its_own_shape(size):
    maps = group_maps(tiny_vlm().encoder.eval(), torch.rand(1, 3, *size), GroupConfig(side=32, count=4))
    assert maps.shape == (1, *size) and maps.min() == 0 and maps.max() < 4


def test_keys_are_those_that_the_block_attends_with():
    encoder = tiny_vlm().encoder.eval()
    images, seen = torch.rand(1, 3, SIDE, SIDE), []
    encoder.blocks[1].in_proj.register_forward_hook(lambda _m, _i, output: seen.append(output))
    encoder(images)
    expected = seen[0][:, 1:, 16:32].transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(encoder.keys(images, 1), expected)


def test_groups_are_one_step_to_torch_that_can_be_rehearsed_without_being_taken():
    with FakeTensorMode():
        encoder = tiny_vlm().encoder
        maps = group_maps(encoder, torch.rand(2, 3, 40, 52), config())
    assert (maps.shape, maps.dtype) == ((2, 40, 52), torch.int64)


def test_a_block_that_the_encoder_lacks_is_refused():
    with pytest.raises(ConfigError, match="CONF050"):
        group_maps(tiny_vlm().encoder, torch.rand(1, 3, SIDE, SIDE), config(block=3))


def test_a_timm_encoder_groups_from_a_file_and_again_from_a_finished_models_weights(tmp_path: Path):
    torch.manual_seed(0)
    net = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    settings = GroupConfig(encoder="timm:vit_tiny_patch16_224", weights=tmp_path / "weights.pth", side=64, count=4)
    loaded = load_group_encoder(settings)
    (tmp_path / "weights.pth").unlink()
    again = blank_group_encoder(settings)
    again.load_state_dict(loaded.state_dict())
    images = torch.rand(1, 3, 64, 80)
    assert torch.equal(group_maps(loaded, images, settings), group_maps(again, images, settings))
    with pytest.raises(ConfigError, match="weights are a timm encoder's"):
        check(GroupConfig, {"weights": "weights.pth"}, "groups")


def test_refined_logits_mix_a_pixels_own_with_its_groups_mean():
    torch.manual_seed(0)
    logits, groups = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    for weight in (0.0, 0.3, 1.0):
        found = refined(logits, groups, weight)
        for image, y, x in itertools.product(range(2), range(4), range(4)):
            mean = logits[image][:, groups[image] == groups[image, y, x]].mean(1)
            torch.testing.assert_close(found[image, :, y, x], torch.lerp(logits[image, :, y, x], mean, weight))


def test_group_means_do_not_depend_on_the_groups_numbers():
    values, groups = torch.randn(1, 2, 6, 6), torch.randint(0, 4, (1, 6, 6))
    torch.testing.assert_close(group_means(values, groups), group_means(values, 7 - groups))


def test_refinement_is_off_unless_asked_for():
    assert EvaluationConfig().refine is None
    found = check(EvaluationConfig, {"refine": {"groups": {"grouper": "kmeans"}}}, "evaluation").refine
    assert found == RefineConfig(groups=GroupConfig(grouper="kmeans"))
