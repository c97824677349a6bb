"""Alignment: it learns to match, the head inside the encoder computes what was trained, and folders come back whole."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from semivl.config import ClassDefinition, Classes, VlmConfig
from semivl.errors import ConfigError, TrainingError
from semivl.language.sentence import load_sentence_encoder
from semivl.language.text import embed
from semivl.nets.aligned import load_aligned, save_aligned
from semivl.nets.encoder import Architecture, DenseEncoder
from semivl.nets.vlm import load_vlm
from semivl.training import alignment
from semivl.training.alignment import AlignSettings, Head, Prepared, align, folded, normed_tokens, text_source
from tests.sentences import write_sentences

COLOURS = {
    "red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "yellow": (230, 220, 40),
    "black": (10, 10, 10), "white": (245, 245, 245), "pink": (250, 150, 190), "cyan": (40, 220, 230),
}  # fmt: skip
ARCHITECTURE = Architecture(
    width=32, layers=2, heads=2, mlp=32, patch=8, embedding=0, grid=(4, 4), gelu="exact", mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25), skip_blocks=(0,), pre_norm=False, patch_bias=True, layer_scale=True, dense="ordinary",
)  # fmt: skip
CLASSES = Classes(classes=tuple(ClassDefinition(name=n) for n in COLOURS))
SHORT = AlignSettings(steps=150, batch=8, patches=8, side=32, hidden=32, dropout=0.0, learning_rate=0.01, similar=0.999)  # pyright: ignore[reportCallIssue]


pytestmark = pytest.mark.usefixtures("own_home")


@pytest.fixture
def coloured(tmp_path: Path) -> Path:
    """Eight images of one colour each, with noise, and their captions."""
    folder, rng, lines = tmp_path / "coloured", np.random.default_rng(0), []
    (folder / "images").mkdir(parents=True)
    for name, colour in COLOURS.items():
        pixels = np.clip(np.array(colour) + rng.normal(0, 8, (32, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
        lines += [{"image": f"{name}.png", "caption": f"{article} {name} photo"} for article in ("a", "the")]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def random_encoder(**changes: object) -> DenseEncoder:
    torch.manual_seed(0)
    encoder = DenseEncoder(ARCHITECTURE.model_copy(update=changes)).eval()
    torch.nn.init.normal_(encoder.position, std=0.1)
    return encoder


@pytest.fixture
def encoder(tmp_path: Path) -> VlmConfig:
    return VlmConfig(model=f"aligned:{save_aligned(tmp_path / 'encoder', random_encoder())}", skip_blocks=(0,))


@pytest.fixture
def sentences(tmp_path: Path) -> str:
    return str(write_sentences(tmp_path / "sentences"))


def run(folder: Path, encoder: VlmConfig, text: str, output: Path, settings: AlignSettings = SHORT) -> list[dict]:
    values: list[dict[str, float]] = []
    align(
        folder,
        encoder,
        text,
        output,
        settings,
        lambda step, told: values.append({"step": step, **told}),
        lambda _: None,
    )
    return values


def colours_named(model: VlmConfig, folder: Path) -> list[str]:
    """The class of each image by the mean of its dense features."""
    vlm = load_vlm(model, CLASSES, 32)
    images = np.stack([np.asarray(Image.open(folder / "images" / f"{n}.png")) for n in COLOURS])
    with torch.inference_mode():
        dense = vlm.encoder(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).dense.mean((2, 3))
    return [CLASSES.names[i] for i in (dense @ vlm.required_text("a test").names.T).argmax(1)]


def test_every_image_comes_to_match_its_caption_and_its_colours_name(
    coloured: Path, encoder: VlmConfig, sentences: str, tmp_path: Path
):
    told = run(coloured, encoder, sentences, tmp_path / "out")
    assert [t["step"] for t in told] == list(range(1, 151))
    assert told[-1]["matched"] == 1.0
    model = VlmConfig(model=f"aligned:{tmp_path / 'out'}", skip_blocks=(0,))
    assert colours_named(model, coloured) == list(COLOURS)


def test_the_same_seed_gives_the_same_folder_from_kept_features(
    coloured: Path, encoder: VlmConfig, sentences: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run(coloured, encoder, sentences, tmp_path / "a")
    monkeypatch.setattr(alignment, "photo_at", lambda *_: pytest.fail("the features were kept"))
    run(coloured, encoder, sentences, tmp_path / "b")
    for name in ("encoder.safetensors", "text.safetensors", "vlm.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("dense", ["value", "ordinary"])
@torch.no_grad()
def test_the_head_inside_the_encoder_computes_what_was_trained(dense: str):
    encoder, images = random_encoder(dense=dense, registers=2), torch.rand(2, 3, 32, 32)
    tokens = normed_tokens(encoder, images)
    head = random_head(encoder, tokens)
    standard = (tokens - head.shift) / head.deviation
    expected = F.normalize(head.linear(standard) + head.mlp(standard), dim=-1)
    torch.testing.assert_close(
        folded(encoder, head)(images).dense.flatten(2).transpose(1, 2), expected, atol=1e-5, rtol=1e-5
    )


def random_head(encoder: DenseEncoder, tokens: torch.Tensor) -> Head:
    prepared = Prepared(tokens.numpy().astype(np.float16), torch.zeros(2, 16), [[0], [1]])
    head = Head(encoder, prepared.patches, prepared.captions.shape[1], SHORT).eval()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return head


@torch.no_grad()
def test_clips_own_embedding_is_what_the_first_step_starts_from():
    encoder, images = random_encoder(embedding=16, dense="value"), torch.rand(2, 3, 32, 32)
    tokens = normed_tokens(encoder, images)
    head = Head(encoder, tokens.numpy().astype(np.float16), 16, SHORT).eval()
    torch.testing.assert_close(folded(encoder, head)(images).dense, encoder(images).dense, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_folder_comes_back_as_it_was_in_memory(sentences: str, tmp_path: Path):
    encoder = random_encoder(embedding=16, head=8, dense="value")
    projection, images = torch.randn(16, 16), torch.rand(1, 3, 40, 32)
    folder = save_aligned(tmp_path / "saved", encoder, sentences, projection)
    vlm = load_vlm(VlmConfig(model=f"aligned:{folder}", skip_blocks=(0,)), CLASSES, 32)
    ours, theirs = encoder(images), vlm.encoder(images)
    assert torch.equal(ours.dense, theirs.dense) and torch.equal(ours.skips[0], theirs.skips[0])
    texts = embed(*load_sentence_encoder(Path(sentences)), [f"a photo of a {n}" for n in COLOURS])
    expected = F.normalize(texts @ projection.T, dim=1)
    torch.testing.assert_close(vlm.required_text("a test").names, expected)
    assert vlm.student().skip_channels == (32,)


def test_an_encoder_without_text_is_a_folder_too(encoder: VlmConfig):
    assert load_vlm(encoder, CLASSES, 64).text is None


def test_folders_that_cannot_be_used_are_refused(sentences: str, tmp_path: Path):
    config = VlmConfig(model="aligned:x", skip_blocks=(0,))
    with pytest.raises(ConfigError, match="CONF020"):
        load_aligned(tmp_path / "nowhere", config, CLASSES, 32)
    folder = save_aligned(tmp_path / "saved", random_encoder(embedding=16), sentences, torch.eye(16))
    save_file({"projection": torch.eye(8)}, folder / "text.safetensors")
    with pytest.raises(ConfigError, match=r"CONF022.*text\.safetensors"):
        load_aligned(folder, config, CLASSES, 32)
    state = load_file(folder / "encoder.safetensors")
    save_file({k: v for k, v in state.items() if k != "patch.bias"}, folder / "encoder.safetensors")
    with pytest.raises(ConfigError, match=r"CONF022.*patch\.bias"):
        load_aligned(folder, config, CLASSES, 32)
    (folder / "encoder.safetensors").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=r"CONF022.*damaged"):
        load_aligned(folder, config, CLASSES, 32)
    described = json.loads((folder / "vlm.json").read_text())
    (folder / "vlm.json").write_text(json.dumps(described | {"architecture": {"width": 3}}))
    with pytest.raises(ConfigError, match=r"CONF021.*vlm\.json"):
        load_aligned(folder, config, CLASSES, 32)


def test_few_or_broken_images_and_unknown_encoders_are_refused(
    coloured: Path, encoder: VlmConfig, sentences: str, tmp_path: Path
):
    with pytest.raises(TrainingError, match="TRAIN061"):
        run(coloured, encoder, sentences, tmp_path / "out", SHORT.model_copy(update={"batch": 9}))
    with pytest.raises(ConfigError, match="CONF020"):
        text_source("no-such-encoder")
    (coloured / "images" / "red.png").write_bytes(b"broken")
    with pytest.raises(TrainingError, match=r"TRAIN062.*red\.png"):
        run(coloured, encoder, sentences, tmp_path / "out")


def test_open_clips_text_tower_serves_as_well(coloured: Path, encoder: VlmConfig, tmp_path: Path):
    run(coloured, encoder, text_source_of_tiny(), tmp_path / "out", SHORT.model_copy(update={"steps": 2}))
    vlm = load_vlm(VlmConfig(model=f"aligned:{tmp_path / 'out'}", skip_blocks=(0,)), CLASSES, 32)
    assert vlm.required_text("a test").names.shape == (8, 96)


def text_source_of_tiny() -> str:
    source = text_source("tiny")
    assert isinstance(source, str)
    return source
