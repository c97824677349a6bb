"""The DPT head: four layers of a transformer to logits at eight times the patch grid (Ranftl et al. 2021; spec 4.3).

Each layer's tokens are reassembled at a resolution of their own, 4, 2, 1 and 1/2 times the patch grid, shallow
layers finest. Four fusion blocks then go from coarse to fine, each adding the next map and doubling the resolution.
There are no norms, so the head does not care about the size of a batch.
"""

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import Record


class DptShape(Record):
    """Widths of the head; the defaults are those for ViT-B (ViT-S: 64 and 48, 96, 192, 384)."""

    features: int = Field(128, ge=1, description="channels of the fusion blocks")
    channels: tuple[int, int, int, int] = Field(
        (96, 192, 384, 768), description="channels of the four reassembled maps, shallow first"
    )


def quarter_blocks(layers: int) -> tuple[int, int, int, int]:
    """The last block of each quarter of an encoder: 2, 5, 8, 11 of 12; 5, 11, 17, 23 of 24."""
    first, second, third, last = (-(-layers * quarter // 4) - 1 for quarter in (1, 2, 3, 4))
    return first, second, third, last


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions with ReLU before each, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(x))))


class Fusion(nn.Module):
    """Adds a finer map to what came from below, refines the sum and enlarges it."""

    def __init__(self, channels: int, joins: bool) -> None:
        super().__init__()
        self.joined = ResidualUnit(channels) if joins else None
        self.refine = ResidualUnit(channels)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, finer: Tensor | None, size: Sequence[int]) -> Tensor:
        """x (B, F, h, w) and `finer` of the same shape, None in the deepest block, to (B, F, *size)."""
        if self.joined is not None and finer is not None:
            x = x + self.joined(finer)
        x = F.interpolate(self.refine(x), size=tuple(size), mode="bilinear", align_corners=True)
        return self.out(x)


class DptHead(nn.Module):
    """Four maps (B, width, h, w), shallow first, to logits (B, N, 8h, 8w)."""

    def __init__(self, shape: DptShape, width: int, classes: int) -> None:
        super().__init__()
        c, f = shape.channels, shape.features
        self.project = nn.ModuleList(nn.Conv2d(width, inner, 1) for inner in c)
        self.resize = nn.ModuleList(
            [
                nn.ConvTranspose2d(c[0], c[0], 4, stride=4),
                nn.ConvTranspose2d(c[1], c[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(c[3], c[3], 3, stride=2, padding=1),
            ]
        )
        self.narrow = nn.ModuleList(nn.Conv2d(inner, f, 3, padding=1, bias=False) for inner in c)
        self.fusions = nn.ModuleList(Fusion(f, joins=place < 3) for place in range(4))
        self.head = nn.Sequential(nn.Conv2d(f, f, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(f, classes, 1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.head[2](self.penultimate(maps))

    def penultimate(self, maps: Sequence[Tensor]) -> Tensor:
        """(B, F, 8h, 8w): what the last convolution, 1 x 1, reads."""
        steps = zip(self.project, self.resize, self.narrow, maps, strict=True)
        one, two, three, four = (narrow(resize(project(m))) for project, resize, narrow, m in steps)
        x = self.fusions[3](four, None, three.shape[-2:])
        x = self.fusions[2](x, three, two.shape[-2:])
        x = self.fusions[1](x, two, one.shape[-2:])
        x = self.fusions[0](x, one, [2 * side for side in one.shape[-2:]])
        return self.head[1](self.head[0](x))
