"""Regions in one pass: exactness, independence, and the plain twin with one mask over all tokens (spec scg.md, 4.5)."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from semivl.nets.encoder import DenseEncoder
from semivl.nets.regions import LEAST_SHARE, RegionSettings, own_patches, read, shares
from tests.tiny import PATCH, SIDE, tiny_vlm


def encoder(registers: int = 0, pool: str = "class", dense: str = "value") -> DenseEncoder:
    made = tiny_vlm().encoder
    assert isinstance(made, DenseEncoder)
    changes = {"registers": registers, "pool": pool, "dense": dense}
    other = DenseEncoder(made.architecture.model_copy(update=changes))
    other.load_state_dict(made.state_dict(), strict=False)
    if other.registers is not None:
        torch.nn.init.normal_(other.registers, std=0.5)
    return other.eval()


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def quarters() -> Tensor:
    """(2, SIDE, SIDE) four squares, the second photo's in another order."""
    half = torch.arange(SIDE) >= SIDE // 2
    groups = 2 * half[:, None].long() + half
    return torch.stack([groups, 3 - groups])


def settings(**chosen) -> RegionSettings:
    return RegionSettings(**chosen)


def twin(net: DenseEncoder, photos: Tensor, weights: Tensor, blocks: int) -> Tensor:
    """(B, K, D) regions by one attention mask over class token, registers, patches and regions together."""
    tokens, _ = net.tokens(photos)
    layers, length, count = net.layers(), tokens.shape[1], weights.shape[1]
    for block in layers[: len(layers) - blocks]:
        tokens = block(tokens)
    joint = torch.cat([tokens, tokens[:, :1].expand(-1, count, -1)], 1)
    bias = torch.zeros(len(photos), length + count, length + count)
    bias[:, :, length:] = -torch.inf
    bias[:, length:, 0] = -torch.inf
    bias[:, length:, net.before_patches : length] = weights.log()
    bias[:, range(length, length + count), range(length, length + count)] = 0
    for block in layers[len(layers) - blocks :]:
        joint = block.finished(joint, block.attended(block.projected(joint), bias))
    return F.normalize(net.shared(joint[:, length:]), dim=-1)


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("how", ["masked", "attn_soft"])
def test_regions_are_those_of_one_mask_over_all_tokens(registers, blocks, how):
    net, groups = encoder(registers), quarters()
    share = shares(groups, 4, PATCH)
    weights = own_patches(share) if how == "masked" else share + LEAST_SHARE
    found = read(net, images(), groups, 4, settings(how=how, blocks=blocks)).regions
    torch.testing.assert_close(found, twin(net, images(), weights, blocks))


@pytest.mark.parametrize("registers", [0, 2])
@torch.inference_mode()
def test_a_region_that_is_the_whole_photo_is_the_class_token_bit_for_bit(registers):
    net = encoder(registers)
    found = read(net, images(), torch.zeros(2, SIDE, SIDE, dtype=torch.long), 1, settings())
    assert torch.equal(found.regions[:, 0], found.whole)
    torch.testing.assert_close(found.whole, net.whole(images()))


@pytest.mark.parametrize("pool", ["mean", "dense"])
@torch.inference_mode()
def test_a_region_that_is_the_whole_photo_is_the_mean_of_its_patches(pool):
    net = encoder(pool=pool)
    found = read(net, images(), torch.zeros(2, SIDE, SIDE, dtype=torch.long), 1, settings())
    torch.testing.assert_close(found.regions[:, 0], found.whole)
    torch.testing.assert_close(found.whole, net.whole(images()))


@pytest.mark.parametrize("pool", ["class", "mean", "dense"])
@pytest.mark.parametrize("how", ["masked", "input_dim", "pool"])
@torch.inference_mode()
def test_a_region_depends_neither_on_the_order_nor_on_the_number_of_others(pool, how):
    net, groups, photos = encoder(pool=pool), quarters(), images()
    found = read(net, photos, groups, 4, settings(how=how)).regions
    turned = read(net, photos, (groups + 1) % 4, 4, settings(how=how)).regions
    torch.testing.assert_close(turned, found.roll(1, 1))
    divided = torch.where((groups == 3) & (torch.arange(SIDE) % 16 < 8), 4, groups)
    torch.testing.assert_close(read(net, photos, divided, 5, settings(how=how)).regions[:, :3], found[:, :3])


@pytest.mark.parametrize("dense", ["value", "ordinary"])
@pytest.mark.parametrize("pool", ["class", "mean", "dense"])
@torch.inference_mode()
def test_patches_and_whole_are_not_changed_by_regions(dense, pool):
    net, photos = encoder(pool=pool, dense=dense), images()
    found = read(net, photos, quarters(), 4, settings())
    alone = read(net, photos, torch.zeros(2, SIDE, SIDE, dtype=torch.long), 1, settings(how="pool"))
    assert torch.equal(found.dense, alone.dense)
    torch.testing.assert_close(found.whole, alone.whole)
    torch.testing.assert_close(found.dense, net(photos).dense)


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("blocks", [1, 2, 3])
@torch.inference_mode()
def test_means_are_those_of_a_regions_patches_run_by_themselves(registers, blocks):
    net, groups = encoder(registers, pool="mean"), quarters()
    found = read(net, images(), groups, 4, settings(blocks=blocks)).regions
    tokens, _ = net.tokens(images())
    layers, others = net.layers(), net.before_patches
    for block in layers[: 3 - blocks]:
        tokens = block(tokens)
    for photo, region in ((0, 0), (1, 2)):
        inside = (groups[photo, ::PATCH, ::PATCH] == region).flatten()
        whole, patches = tokens[photo : photo + 1], tokens[photo : photo + 1, others:][:, inside]
        for block in layers[3 - blocks :]:
            patches = block(torch.cat([whole[:, :others], patches], 1))[:, others:]
            whole = block(whole)
        expected = F.normalize(net.shared(patches).mean(1), dim=-1)
        torch.testing.assert_close(found[photo, region], expected[0])


@torch.inference_mode()
def test_pooled_regions_are_means_of_the_dense_embedding():
    net, groups = encoder(), quarters()
    dense = net(images()).dense
    expected = F.normalize(dense[:, :, :2, :2].mean((2, 3)), dim=-1)
    found = read(net, images(), groups, 4, settings(how="pool")).regions
    torch.testing.assert_close(found[0, 0], expected[0])
    torch.testing.assert_close(found[1, 3], expected[1])


@torch.inference_mode()
def test_painted_regions_are_whole_photos_of_what_is_left():
    net, groups, photos = encoder(), quarters(), images()
    one = torch.zeros(2, SIDE, SIDE, dtype=torch.long)
    for kept in (0.0, 0.4):
        found = read(net, photos, groups, 4, settings(how="input_dim", kept=kept)).regions
        outside = kept * photos + (1 - kept) * 0.5  # the encoder's mean colour
        painted = torch.where((groups == 2)[:, None], photos, outside)
        torch.testing.assert_close(found[:, 2], read(net, painted, one, 1, settings()).whole)


def test_shares_of_patches_and_the_patches_that_are_a_groups_own():
    groups = torch.zeros(1, 8, 20, dtype=torch.long)
    groups[:, :, 6:] = 1  # six columns of eight are 0's
    groups[:, :2, 18:] = 2
    groups[:, :, 19:] = 255
    share = shares(groups, 3, 8)
    torch.testing.assert_close(share, torch.tensor([[[48, 0, 0], [16, 64, 22], [0, 0, 2]]]) / 64)
    assert own_patches(share).tolist() == [[[1, 0, 0], [0, 1, 0], [0, 0, 1]]]


@pytest.mark.parametrize("pool", ["class", "mean", "dense"])
@pytest.mark.parametrize("how", ["masked", "attn_soft", "input_dim", "pool"])
def test_photos_with_fewer_regions_say_so_and_give_finite_gradients(pool, how):
    net, groups = encoder(pool=pool), quarters()
    groups[1] = groups[1] // 2
    groups[1, :, -5:] = 255
    found = read(net, images(), groups, 4, settings(how=how))
    assert found.present.tolist() == [[True] * 4, [True, True, False, False]]
    (found.regions[found.present].sum() + found.whole.sum() + found.dense.sum()).backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)
