"""A very small vision-language model with random weights, and batches of noise, for tests of the mathematics."""

import torch
from torch import Tensor
from torch.nn import functional as F

from semivl.config import ClassDefinition, Classes
from semivl.data.stream import Batches, Labelled, Unlabelled
from semivl.language.text import ClassText
from semivl.nets.decoder import DecoderShape
from semivl.nets.encoder import Architecture, DenseEncoder
from semivl.nets.vlm import DenseVLM

N, SIDE, PATCH = 3, 32, 8
CLASSES = Classes(classes=tuple(ClassDefinition(name=f"class {i}") for i in range(N)))
SHAPE = DecoderShape(channels=16, up=(16, 16), skip=(8, 8), dilations=(1, 2))


def tiny_vlm(seed: int = 0, width: int = 16, grid: int = SIDE // PATCH) -> DenseVLM:
    torch.manual_seed(seed)
    architecture = Architecture(
        width=width, layers=3, heads=2, mlp=32, patch=PATCH, embedding=8, grid=(grid, grid), gelu="exact",
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), skip_blocks=(0, 1),
    )  # fmt: skip
    encoder = DenseEncoder(architecture)
    torch.nn.init.normal_(encoder.position, std=0.1)
    torch.nn.init.normal_(encoder.class_token, std=0.1)
    text = F.normalize(torch.randn(N, 8), dim=1)
    return DenseVLM(encoder, ClassText(text, text, text, torch.arange(N)))


def noise(batch: int, side: int = SIDE) -> Tensor:
    return torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)


def tiny_batches(batch: int = 2, seed: int = 1) -> Batches:
    torch.manual_seed(seed)
    nothing = torch.zeros(batch, SIDE, SIDE, dtype=torch.bool)
    labelled = Labelled(noise(batch), torch.randint(0, N, (batch, SIDE, SIDE)))
    return Batches(labelled, Unlabelled(noise(batch), nothing), Unlabelled(noise(batch), nothing))
