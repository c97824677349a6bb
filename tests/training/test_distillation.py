"""Distillation: the student comes to say what the teacher says, with the teacher's own text."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semivl.config import ClassDefinition, Classes, VlmConfig
from semivl.errors import ConfigError, TrainingError
from semivl.nets.aligned import save_aligned
from semivl.nets.encoder import DenseEncoder
from semivl.nets.vlm import load_vlm
from semivl.training.alignment import AlignSettings
from semivl.training.distillation import distill
from tests.sentences import write_sentences
from tests.training.test_alignment import ARCHITECTURE

CLASSES = Classes(classes=(ClassDefinition(name="red"), ClassDefinition(name="blue")))
SHORT = AlignSettings(steps=200, batch=6, patches=16, side=32, hidden=32, dropout=0.0, learning_rate=0.01)


pytestmark = pytest.mark.usefixtures("own_home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images of smooth colours, without a caption."""
    random = np.random.default_rng(0)
    (tmp_path / "photos" / "images").mkdir(parents=True)
    for i in range(12):
        small = Image.fromarray(random.integers(0, 256, (3, 3, 3), dtype=np.uint8))
        small.resize((48, 40), Image.Resampling.BICUBIC).save(tmp_path / "photos" / "images" / f"{i}.png")
    return tmp_path / "photos"


def saved(path: Path, seed: int, text: str | None = None, **changes: object) -> VlmConfig:
    torch.manual_seed(seed)
    encoder = DenseEncoder(ARCHITECTURE.model_copy(update=changes)).eval()
    torch.nn.init.normal_(encoder.position, std=0.1)
    save_aligned(path, encoder, text, torch.linalg.qr(torch.randn(16, 16))[0] if text else None)
    return VlmConfig(model=f"aligned:{path}", skip_blocks=(0,))


def agreement(first: VlmConfig, second: VlmConfig, folder: Path) -> float:
    """Mean cosine of two models' dense embeddings of the folder's images, squared to 32 pixels."""
    images = [Image.open(p).resize((32, 32), Image.Resampling.BICUBIC) for p in sorted((folder / "images").iterdir())]
    batch = torch.from_numpy(np.stack([np.asarray(i) for i in images])).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        both = [load_vlm(c, CLASSES, 32).encoder(batch).dense for c in (first, second)]
    return float((both[0] * both[1]).sum(1).mean())


def test_the_student_says_what_the_teacher_says_with_the_teachers_text(tmp_path: Path, folder: Path):
    text = str(write_sentences(tmp_path / "sentences"))
    teacher = saved(tmp_path / "teacher", 1, text, embedding=16)
    student = saved(tmp_path / "student", 2)
    told: list[dict[str, float]] = []
    out = tmp_path / "out"
    distill(folder, student, teacher, out, SHORT, lambda _, values: told.append(values), lambda _: None)
    taught = VlmConfig(model=f"aligned:{out}", skip_blocks=(0,))
    assert told[-1]["loss"] < 0.1 < told[0]["loss"]
    assert agreement(taught, teacher, folder) > 0.9
    texts = [load_vlm(c, CLASSES, 32).required_text("test") for c in (taught, teacher)]
    assert torch.equal(texts[0].names, texts[1].names)


def test_what_cannot_be_distilled_is_named(tmp_path: Path, folder: Path):
    student = saved(tmp_path / "student", 2)

    def attempt(source: Path, teacher: VlmConfig) -> None:
        distill(source, student, teacher, tmp_path / "out", SHORT, lambda *_: None, lambda _: None)

    with pytest.raises(ConfigError, match="CONF018"):
        attempt(folder, student)
    with pytest.raises(TrainingError, match=r"TRAIN061.*has 0 images"):
        attempt(tmp_path, student)
    (folder / "images" / "broken.png").write_bytes(b"no picture")
    text = str(write_sentences(tmp_path / "sentences"))
    with pytest.raises(TrainingError, match=r"TRAIN062.*broken.png"):
        attempt(folder, saved(tmp_path / "teacher", 1, text, embedding=16))
