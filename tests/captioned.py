"""A very small random vision-language model whose text side is kept, and batches of noise with captions."""

from typing import Any

import open_clip
import torch

from semivl.config import ClassDefinition, Classes, VlmConfig
from semivl.data.stream import Batches, Captioned
from semivl.language.tower import OpenClipTower
from semivl.nets.conversion import from_open_clip
from semivl.nets.vlm import DenseVLM
from tests.language.conftest import MODEL
from tests.tiny import SIDE, noise

CLASSES = Classes(
    classes=(
        ClassDefinition(name="background", definitions=("grass", "water")),
        ClassDefinition(name="cat", definitions=("cat", "kitten")),
        ClassDefinition(name="dog"),
    )
)  # pyright: ignore[reportCallIssue]
CAPTIONS = (
    "a cat and a dog on the grass",
    "two cats under an umbrella",
    "look , it is red",
    "a small dog in the water , near a house\na dog swims",
)
"""The third has no noun; the second line of the fourth has one."""


def spoken_vlm(seed: int = 0) -> DenseVLM:
    """A CLIP of width 32 for images of 32 pixels in patches of 8, and of width 16 for texts of 16 tokens."""
    torch.manual_seed(seed)
    model: Any = open_clip.CLIP(**MODEL).eval()
    model.visual.preprocess_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    config = VlmConfig(model="tests", skip_blocks=(0,))  # pyright: ignore[reportCallIssue]
    encoder = from_open_clip(model.visual, config, (SIDE // 8, SIDE // 8)).eval()
    return DenseVLM(encoder, None, OpenClipTower(model, open_clip.SimpleTokenizer(context_length=16)))


def captioned_batches(seed: int = 1, captions: tuple[str, ...] = CAPTIONS) -> Batches:
    torch.manual_seed(seed)
    ignored = torch.zeros(len(captions), SIDE, SIDE, dtype=torch.bool)
    ignored[0, :, -8:] = True
    return Batches(captioned=Captioned(noise(len(captions)), ignored, captions))
