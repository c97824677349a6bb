"""A very small sentence encoder with random weights, as a folder in the sentence-transformers library's layout."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [
    "a", "photo", "of", "the", "red", "green", "blue", "yellow", "black", "white", "pink", "cyan", "cat", "dog", "fox",
    "background",
]  # fmt: skip
WIDTH, MLP, LAYERS, POSITIONS = 16, 24, 2, 12


def write_sentences(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_padding(length=128)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "model_type": "bert", "hidden_act": "gelu", "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": 2, "intermediate_size": MLP, "max_position_embeddings": POSITIONS,
        "vocab_size": len(vocabulary), "layer_norm_eps": 1e-12,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    save_file(_state(len(vocabulary)), folder / "model.safetensors")
    return folder


def _state(vocabulary: int) -> dict[str, Tensor]:
    state = {
        "embeddings.word_embeddings.weight": torch.randn(vocabulary, WIDTH),
        "embeddings.position_embeddings.weight": 0.1 * torch.randn(POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": 0.1 * torch.randn(2, WIDTH),
        "embeddings.position_ids": torch.arange(POSITIONS)[None],
        "pooler.dense.weight": torch.randn(WIDTH, WIDTH),
        "pooler.dense.bias": torch.randn(WIDTH),
    }
    norms = ["embeddings.LayerNorm"]
    for i in range(LAYERS):
        p = f"encoder.layer.{i}"
        sizes = {f"attention.self.{n}": (WIDTH, WIDTH) for n in ("query", "key", "value")}
        sizes |= {
            "attention.output.dense": (WIDTH, WIDTH), "intermediate.dense": (MLP, WIDTH), "output.dense": (WIDTH, MLP),
        }  # fmt: skip
        for name, (outputs, inputs) in sizes.items():
            state[f"{p}.{name}.weight"] = torch.randn(outputs, inputs) / inputs**0.5
            state[f"{p}.{name}.bias"] = 0.1 * torch.randn(outputs)
        norms += [f"{p}.attention.output.LayerNorm", f"{p}.output.LayerNorm"]
    for name in norms:
        state[f"{name}.weight"] = 1 + 0.1 * torch.randn(WIDTH)
        state[f"{name}.bias"] = 0.1 * torch.randn(WIDTH)
    return state
