"""The heads without language: DeepLabV3+ and DPT on the maps of a transformer (spec semivl.md, 2.8 and 4.3)."""

import pytest
import torch
from torch import nn

from semivl.nets.deeplab import DeepLabHead
from semivl.nets.dpt import DptHead, DptShape, ResidualUnit, quarter_blocks

TINY = DptShape(features=4, channels=(2, 3, 4, 6))


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("low", "high"), [(768, 768), (768, 512), (16, 8)])
def test_deeplab_has_as_many_weights_as_its_formula(low, high):
    n, i = 21, high // 8
    pyramid = 2 * (high * i + 2 * i) + 3 * (9 * high * i + 2 * i) + 5 * i * i + 2 * i
    fused = 9 * (i + 48) * 256 + 2 * 256 + 9 * 256 * 256 + 2 * 256
    assert parameters(DeepLabHead(low, high, n)) == pyramid + low * 48 + 2 * 48 + fused + 256 * n + n


@pytest.mark.parametrize(("width", "f", "c"), [(768, 128, (96, 192, 384, 768)), (384, 64, (48, 96, 192, 384))])
def test_dpt_has_as_many_weights_as_its_formula(width, f, c):
    n = 21
    reassembled = sum(width * o + o for o in c) + 16 * c[0] ** 2 + c[0] + 4 * c[1] ** 2 + c[1] + 9 * c[3] ** 2 + c[3]
    narrowed = 9 * f * sum(c)
    # the deepest block has nothing to join, so 7 residual units in 4 blocks
    fused = 7 * 2 * (9 * f * f + f) + 4 * (f * f + f)
    head = 9 * f * f + f + f * n + n
    shape = DptShape(features=f, channels=c)
    assert parameters(DptHead(shape, width, n)) == reassembled + narrowed + fused + head


def test_dpt_is_as_large_as_published_less_what_is_never_used_there():
    # UniMatch V2's logs: "Decoder params: 10.9M" for ViT-B and 21 classes, with a unit that nothing enters
    unused = 2 * (9 * 128 * 128 + 128)
    assert round((parameters(DptHead(DptShape(features=128), 768, 21)) + unused) / 1e6, 1) == 10.9


@pytest.mark.parametrize("grid", [(4, 4), (5, 7), (1, 1)])
def test_logits_have_the_resolution_that_is_promised(grid):
    assert DeepLabHead(16, 8, 3)(torch.rand(2, 16, *grid), torch.rand(2, 8, *grid)).shape == (2, 3, *grid)
    maps = [torch.rand(2, 16, *grid) for _ in range(4)]
    assert DptHead(TINY, 16, 3)(maps).shape == (2, 3, 8 * grid[0], 8 * grid[1])


def test_deeplab_brings_a_coarse_high_map_to_the_low_ones_size():
    head = DeepLabHead(16, 8, 3).eval()
    low, coarse = torch.rand(1, 16, 8, 8), torch.rand(1, 8, 1, 1)
    assert head(low, coarse).shape == (1, 3, 8, 8)
    # a high map of one value a channel is the same at any size only where no convolution sees the border's zeros
    for conv in head.pyramid.atrous:
        nn.init.zeros_(conv[0].weight)
    torch.testing.assert_close(head(low, coarse), head(low, coarse.expand(1, 8, 8, 8)))


def test_an_image_is_decoded_the_same_in_any_company():
    torch.manual_seed(0)
    deeplab, dpt = DeepLabHead(16, 8, 3).eval(), DptHead(TINY, 16, 3)
    low, high, maps = torch.rand(3, 16, 4, 4), torch.rand(3, 8, 4, 4), [torch.rand(3, 16, 4, 4) for _ in range(4)]
    torch.testing.assert_close(deeplab(low, high)[1:2], deeplab(low[1:2], high[1:2]))
    torch.testing.assert_close(dpt(maps)[1:2], dpt([m[1:2] for m in maps]))


def test_deeplab_trains_on_two_images_but_not_on_one():
    head = DeepLabHead(16, 8, 3)
    head(torch.rand(2, 16, 4, 4), torch.rand(2, 8, 4, 4))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        head(torch.rand(1, 16, 4, 4), torch.rand(1, 8, 4, 4))


def test_every_weight_of_the_heads_gets_a_gradient():
    torch.manual_seed(0)
    deeplab, dpt = DeepLabHead(16, 8, 3), DptHead(TINY, 16, 3)
    deeplab(torch.rand(2, 16, 4, 4), torch.rand(2, 8, 4, 4)).sum().backward()
    dpt([torch.rand(2, 16, 4, 4) for _ in range(4)]).sum().backward()
    for head in (deeplab, dpt):
        assert not [name for name, p in head.named_parameters() if p.grad is None]


def test_a_residual_unit_adds_what_it_makes_of_the_positive_part():
    torch.manual_seed(0)
    unit, x = ResidualUnit(4), torch.randn(2, 4, 5, 5)
    added = unit.second(unit.first(x.clamp(min=0)).clamp(min=0))
    torch.testing.assert_close(unit(x), x + added)


def test_dpt_needs_four_maps():
    with pytest.raises(ValueError):
        DptHead(TINY, 16, 3)([torch.rand(2, 16, 4, 4)] * 3)


def test_quarter_blocks_are_the_last_of_each_quarter():
    assert quarter_blocks(12) == (2, 5, 8, 11)
    assert quarter_blocks(24) == (5, 11, 17, 23)
    assert quarter_blocks(5) == (1, 2, 3, 4)
    assert quarter_blocks(3) == (0, 1, 2, 2)
