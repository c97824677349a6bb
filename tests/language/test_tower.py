"""The text tower: taken apart it says what the whole says, it passes gradients on, and it never learns."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch.nn import functional as F

from semivl.config import CONF, ClassDefinition, Classes, VlmConfig
from semivl.errors import ConfigError
from semivl.language.sentence import load_sentence_encoder
from semivl.language.tower import OpenClipTower, SentenceTower, TextTower, text_tower
from semivl.nets.aligned import save_aligned
from semivl.nets.encoder import Architecture, DenseEncoder
from semivl.nets.open_clip_loading import load_open_clip
from semivl.nets.vlm import load_vlm
from tests.language.conftest import MODEL
from tests.sentences import write_sentences

TINY = VlmConfig(model=f"local-dir:{CONF}/vlm/tiny-clip", skip_blocks=(0, 2))
CLASSES = Classes(classes=tuple(ClassDefinition(name=n) for n in ("cat", "dog")))
CAPTIONS = ["a fox", "two cats and an umbrella on the grass , no filter", "", "word " * 60]
pytestmark = pytest.mark.usefixtures("own_home")


def architecture(**changes: Any) -> Architecture:
    known: dict[str, Any] = {
        "width": 16, "layers": 2, "heads": 2, "mlp": 16, "patch": 8, "embedding": 8, "grid": (4, 4), "gelu": "exact",
        "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "skip_blocks": (0,),
    }  # fmt: skip
    return Architecture(**known | changes)


@pytest.fixture(params=["clip", "sentence"])
def tower(request: pytest.FixtureRequest, tmp_path: Path) -> TextTower:
    if request.param == "clip":
        return text_tower(*load_open_clip(TINY))
    return text_tower(*load_sentence_encoder(write_sentences(tmp_path / "sentences")))


def test_it_equals_the_tiny_clips_own_encoding():
    model: Any
    model, tokenizer = load_open_clip(TINY)
    tower = OpenClipTower(model, tokenizer)
    assert (tower.width, tower.embedding) == (48, 96)
    with torch.no_grad():
        expected = model.encode_text(tokenizer(CAPTIONS), normalize=True)
    torch.testing.assert_close(tower.encode(CAPTIONS), expected, atol=1e-6, rtol=0)


def test_it_equals_a_custom_text_clips_own_encoding_whatever_its_mask_and_pooling():
    for changes in (
        {"no_causal_mask": True, "pool_type": "last", "proj_bias": True},
        {"pool_type": "eos", "eos_id": 49407},
    ):
        torch.manual_seed(0)
        model: Any = open_clip.CustomTextCLIP(**MODEL | {"text_cfg": MODEL["text_cfg"] | changes}).eval()
        tokenizer = open_clip.SimpleTokenizer(context_length=16)
        with torch.no_grad():
            expected = model.encode_text(tokenizer(CAPTIONS), normalize=True)
        torch.testing.assert_close(OpenClipTower(model, tokenizer).encode(CAPTIONS), expected, atol=1e-6, rtol=0)


def test_it_equals_the_sentence_encoder(tmp_path: Path):
    encoder, tokenizer = load_sentence_encoder(write_sentences(tmp_path / "sentences"))
    texts = ["a red cat", "the dog", "a photo of the blue fox"]
    with torch.no_grad():
        expected = encoder.encode_text(tokenizer(texts), normalize=True)
    torch.testing.assert_close(SentenceTower(encoder, tokenizer).encode(texts), expected, atol=1e-6, rtol=0)


def test_an_aligned_folders_tower_ends_in_the_space_of_the_class_text(tmp_path: Path):
    text = str(write_sentences(tmp_path / "sentences"))
    save_aligned(tmp_path / "aligned", DenseEncoder(architecture()), text, torch.randn(8, 16))
    config = VlmConfig(model=f"aligned:{tmp_path / 'aligned'}", skip_blocks=(0,))
    assert load_vlm(config, CLASSES, 32).language is None
    vlm = load_vlm(config, CLASSES, 32, language=True)
    found = vlm.required_language("a test").encode(["a photo of a cat", "a photo of a dog"])
    torch.testing.assert_close(found, vlm.required_text("a test").names, atol=1e-6, rtol=0)


def test_words_are_told_from_start_end_and_filling(tower: TextTower):
    tokens = tower.tokens(["a cat", "a photo of the red cat"])
    assert tower.spoken(tokens).sum(1).tolist() == [2, 6]
    assert not tower.spoken(tokens)[:, 0].any()


def test_gradients_reach_what_replaces_a_token_and_no_weight(tower: TextTower):
    tower.train()
    tokens = tower.tokens(["a photo of a cat"])
    embedded = tower.embedded(tokens).detach().requires_grad_()
    F.normalize(tower.pooled(tower.hidden(embedded, tokens), tokens), dim=-1)[0, 0].backward()
    assert embedded.grad is not None and embedded.grad[0, 2].norm() > 0
    assert not any(p.requires_grad for p in tower.parameters()) and not tower.training


def test_filling_changes_nothing(tower: TextTower):
    alone, together = tower.encode(["a cat"]), tower.encode(["a cat", "a photo of the red cat"])
    torch.testing.assert_close(together[:1], alone, atol=1e-6, rtol=0)


def test_no_texts_have_no_embeddings_and_go_the_same_way(tower: TextTower):
    """As on a rank of several whose captions have no noun."""
    tokens = tower.tokens([])
    embedded = torch.zeros(0, tokens.shape[1], tower.width, requires_grad=True)
    found = tower.pooled(tower.hidden(embedded, tokens), tokens)
    assert found.shape == tower.encode([]).shape == (0, tower.embedding) and found.requires_grad


def test_an_encoder_without_a_text_tower_is_told_clearly(tmp_path: Path):
    save_aligned(tmp_path / "blind", DenseEncoder(architecture(embedding=0)))
    vlm = load_vlm(VlmConfig(model=f"aligned:{tmp_path / 'blind'}", skip_blocks=(0,)), CLASSES, 32, language=True)
    with pytest.raises(ConfigError, match="CONF040 method so-and-so reads captions"):
        vlm.required_language("method so-and-so")


def test_a_tower_of_another_kind_is_refused():
    config = MODEL | {"text_cfg": MODEL["text_cfg"] | {"embed_cls": True}}
    with pytest.raises(ConfigError, match="CONF041"):
        OpenClipTower(open_clip.CustomTextCLIP(**config), open_clip.SimpleTokenizer(context_length=16))


def test_load_vlm_keeps_the_tower_of_an_open_clip_folder_where_it_is_asked_to(clip_folder: Path):
    config = VlmConfig(model=f"local-dir:{clip_folder}", skip_blocks=(0,))
    assert load_vlm(config, CLASSES, 32).language is None
    vlm = load_vlm(config, CLASSES, 32, language=True)
    torch.testing.assert_close(
        vlm.required_language("a test").encode(["a photo of a cat", "a photo of a dog"]),
        vlm.required_text("a test").names, atol=1e-6, rtol=0,
    )  # fmt: skip
