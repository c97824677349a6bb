"""The gated decoder starts as the backbone, and learns to depart from it."""

import torch
from torch.nn import functional as F

from semivl.nets.gated_decoder import GatedDecoder, LayerNorm2d


def test_gates_at_zero_leave_the_features_scaled_up_by_nearest_neighbours():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 3, 5)
    expected = F.interpolate(x, scale_factor=4, mode="nearest")
    assert torch.equal(GatedDecoder(8, stages=2, convolutions=2)(x), expected)


def test_a_shut_gate_still_learns_and_an_open_one_lets_the_convolutions_learn():
    torch.manual_seed(0)
    decoder, x = GatedDecoder(8, 1, 1), torch.randn(1, 8, 3, 3)
    decoder(x).square().sum().backward()
    gate, convolution = decoder.stages[0].gate, decoder.stages[0].residual[2].weight
    assert gate.grad != 0 and not convolution.grad.any()
    with torch.no_grad():
        gate.fill_(0.5)
    decoder(x).square().sum().backward()
    assert convolution.grad.any()


def test_the_norm_is_over_the_channels_of_each_place():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 3, 5)
    one = x[1, :, 2, 4]
    expected = (one - one.mean()) / (one.var(unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(LayerNorm2d(8)(x)[1, :, 2, 4], expected)
