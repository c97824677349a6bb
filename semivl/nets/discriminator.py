"""The discriminator: does a mask fit its photo as drawn masks do (Hung et al., BMVC 2018; spec transfer.md, 3.2).

Five convolutions of 4 x 4 that halve the size each, enlarged again: an answer for every pixel.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (64, 128, 256, 512)
LEAST = 32
"""side in pixels of the smallest photo that can be judged: five halvings leave nothing of a smaller one"""


class Discriminator(nn.Module):
    """(B, C, H, W) to logits (B, H, W): above 0 where the pixel passes for real."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((channels, *WIDTHS)):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(WIDTHS[-1], 1, 4, stride=2, padding=1))

    def forward(self, inputs: Tensor) -> Tensor:
        answers = self.layers(inputs).float()
        return F.interpolate(answers, size=inputs.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
