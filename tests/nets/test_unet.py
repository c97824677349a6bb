"""The U-Net: any size, no photo leaning on another, every layer in use."""

import pytest
import torch

from semivl.nets.unet import UNet, UNetShape


def net() -> UNet:
    torch.manual_seed(0)
    return UNet(UNetShape(width=4, levels=3), 3)


@pytest.mark.parametrize("size", [(32, 32), (37, 21), (8, 50)])
def test_logits_have_the_photos_own_size(size: tuple[int, int]):
    assert net()(torch.rand(2, 3, *size)).shape == (2, 3, *size)


def test_a_photos_logits_do_not_depend_on_the_others_of_its_batch():
    model, images = net(), torch.rand(3, 3, 24, 24)
    torch.testing.assert_close(model(images), torch.cat([model(image[None]) for image in images]))


def test_every_weight_learns():
    model = net()
    model(torch.rand(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
