"""The sentence encoder: a text by itself is a text in a batch, the layers are BERT's, and bad folders are named."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from semivl.errors import ConfigError
from semivl.language.sentence import load_sentence_encoder
from semivl.language.text import embed
from tests.sentences import write_sentences


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_sentences(tmp_path / "sentences")


def test_a_text_alone_equals_the_text_in_a_batch(folder: Path):
    encoder, tokenizer = load_sentence_encoder(folder)
    texts = ["red", "a photo of a blue cat", "the green dog"]
    together = embed(encoder, tokenizer, texts)
    alone = torch.cat([embed(encoder, tokenizer, [text]) for text in texts])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))


def test_a_long_text_is_cut_and_a_short_one_is_not_filled_to_a_fixed_length(folder: Path):
    _, tokenizer = load_sentence_encoder(folder)
    assert tokenizer(["red"]).shape == (1, 3)
    assert tokenizer(["red " * 50]).shape == (1, 12)


def bert(state: dict[str, Tensor], tokens: Tensor, heads: int) -> Tensor:
    """BERT by its formulas, one sentence (L,), from the published state dict's names."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-12).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    e = "embeddings"
    x = state[f"{e}.word_embeddings.weight"][tokens] + state[f"{e}.position_embeddings.weight"][: len(tokens)]
    x = norm(f"{e}.LayerNorm", x + state[f"{e}.token_type_embeddings.weight"][0])
    for i in range(2):
        p = f"encoder.layer.{i}"
        q, k, v = (linear(f"{p}.attention.self.{n}", x).chunk(heads, -1) for n in ("query", "key", "value"))
        mixed = [(a @ b.T / math.sqrt(a.shape[1])).softmax(-1) @ c for a, b, c in zip(q, k, v, strict=True)]
        x = norm(f"{p}.attention.output.LayerNorm", x + linear(f"{p}.attention.output.dense", torch.cat(mixed, -1)))
        hidden = linear(f"{p}.intermediate.dense", x)
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        x = norm(f"{p}.output.LayerNorm", x + linear(f"{p}.output.dense", hidden))
    return F.normalize(x.mean(0), dim=0)


def test_it_is_bert_by_the_formulas_and_the_mean_of_its_tokens(folder: Path):
    encoder, tokenizer = load_sentence_encoder(folder)
    text = "a photo of a red cat"
    ours = embed(encoder, tokenizer, [text])[0]
    torch.testing.assert_close(ours, bert(load_file(folder / "model.safetensors"), tokenizer([text])[0], heads=2))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_files_are_named(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=f"CONF020.*{name}"):
        load_sentence_encoder(folder)


def test_other_kinds_of_models_and_broken_files_are_refused(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    for change in ({"model_type": "roberta"}, {"hidden_act": "relu"}, {"hidden_size": "wide"}):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ConfigError, match=r"CONF021.*config\.json"):
            load_sentence_encoder(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": false}')
    with pytest.raises(ConfigError, match=r"CONF021.*1_Pooling"):
        load_sentence_encoder(folder)
    (folder / "1_Pooling" / "config.json").unlink()
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"CONF021.*tokenizer\.json"):
        load_sentence_encoder(folder)


def test_weights_of_another_shape_are_refused(folder: Path):
    state = load_file(folder / "model.safetensors")
    state["encoder.layer.1.output.dense.bias"] = torch.zeros(3)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ConfigError, match=r"CONF022.*model\.safetensors"):
        load_sentence_encoder(folder)
    save_file({"nothing": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ConfigError, match="CONF022"):
        load_sentence_encoder(folder)
