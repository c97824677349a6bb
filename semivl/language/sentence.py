"""A sentence encoder of BERT's kind (Sentence-BERT, Reimers and Gurevych 2019): the text side of a VLM without CLIP.

A folder as the sentence-transformers library writes it - config.json, model.safetensors, tokenizer.json - is read as
it is. The sentence is the mean of its tokens after the last layer, L2-normalised.

`SentenceEncoder` and `Tokenizer` stand where open_clip's model and tokenizer do: `semivl.language.text` takes both.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import Record
from semivl.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE = "config.json", "model.safetensors", "tokenizer.json"
_POOLING = "1_Pooling/config.json"
_LENGTH = "sentence_bert_config.json"
FILES = (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, _POOLING, _LENGTH)
"""all that is read of a folder; the last two may be missing"""
PADDING = 0
"""id of the token that fills up a batch, as in every BERT"""


class Shape(Record):
    """The sizes of a sentence encoder."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    mlp: int
    positions: int
    layer_norm_eps: float = 1e-12


class Tokenizer:
    """Texts to (B, L) int64 token ids, filled up with 0 to the longest of them."""

    def __init__(self, library: "Library", longest: int) -> None:
        library.enable_truncation(longest)
        library.enable_padding(pad_id=PADDING)  # what the file says may be a fixed length
        self._library = library

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([e.ids for e in self._library.encode_batch(list(texts))], dtype=torch.int64)


class SentenceEncoder(nn.Module):
    """BERT's layers after each other, and the mean over the tokens that are no filling."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.words = nn.Embedding(shape.vocabulary, shape.width)
        self.position = nn.Parameter(torch.zeros(shape.positions, shape.width))
        self.norm = nn.LayerNorm(shape.width, eps=shape.layer_norm_eps)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                shape.width, shape.heads, shape.mlp, dropout=0.0, activation="gelu",
                layer_norm_eps=shape.layer_norm_eps, batch_first=True,
            )
            for _ in range(shape.layers)
        )  # fmt: skip

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """(B, D) embeddings of token ids (B, L) as the tokenizer gives them."""
        filled = text == PADDING
        mean = mean_of_words(self.layered(self.words(text), filled), filled)
        return F.normalize(mean, dim=-1) if normalize else mean

    def layered(self, embedded: Tensor, filled: Tensor) -> Tensor:
        """(B, L, D) after the last layer, of token embeddings (B, L, D); `filled` (B, L) bool is not attended to."""
        x = self.norm(embedded + self.position[: embedded.shape[1]])
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=filled if len(x) else None)  # torch takes no mask of no texts
        return x


def mean_of_words(x: Tensor, filled: Tensor) -> Tensor:
    """(B, D), the mean of tokens (B, L, D) that are not `filled`."""
    kept = (~filled).unsqueeze(-1).to(x.dtype)
    return (x * kept).sum(1) / kept.sum(1).clamp(min=1)


def load_sentence_encoder(folder: Path) -> tuple[SentenceEncoder, Tokenizer]:
    """The encoder of a folder in float32, set to evaluation, and its tokenizer.

    Raises:
        ConfigError: CONF020 a file is missing, CONF021 a file that cannot be used or describes another kind of model,
            CONF022 weights that do not fit the config.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE):
        if not (folder / name).is_file():
            raise ConfigError(
                "CONF020",
                f"there is no {folder / name}.",
                "Give a folder as the sentence-transformers library writes it: config.json, model.safetensors, "
                "tokenizer.json.",
            )
    shape, longest = _shape(folder)
    encoder = SentenceEncoder(shape)
    try:
        encoder.load_state_dict(_converted(load_file(folder / WEIGHTS_FILE), shape.layers))
    except (RuntimeError, KeyError, SafetensorError) as error:
        said = " ".join(str(error).split())[:300]
        raise ConfigError(
            "CONF022", f"{folder / WEIGHTS_FILE} does not fit {CONFIG_FILE}: {said}.", "Mend either."
        ) from None
    from tokenizers import Tokenizer as Library  # a finished model has no text side and does without

    try:
        library: Any = Library.from_file(str(folder / TOKENIZER_FILE))
    except Exception as error:  # the library raises a bare Exception
        raise _unusable(folder / TOKENIZER_FILE, error) from None
    return encoder.eval(), Tokenizer(library, min(longest, shape.positions))


def _shape(folder: Path) -> tuple[Shape, int]:
    """The sizes, and the longest text in tokens."""
    path = folder / CONFIG_FILE
    said = _read(path)
    kind = (said.get("model_type"), said.get("hidden_act"), said.get("position_embedding_type", "absolute"))
    if kind != ("bert", "gelu", "absolute"):
        raise _unusable(path, f"model_type, hidden_act and position_embedding_type are {kind}")
    if (folder / _POOLING).is_file() and not _read(folder / _POOLING).get("pooling_mode_mean_tokens"):
        raise _unusable(folder / _POOLING, "it does not take the mean of the tokens")
    try:
        shape = Shape(
            vocabulary=said["vocab_size"],
            width=said["hidden_size"],
            layers=said["num_hidden_layers"],
            heads=said["num_attention_heads"],
            mlp=said["intermediate_size"],
            positions=said["max_position_embeddings"],
            layer_norm_eps=said["layer_norm_eps"],
        )
    except (KeyError, ValidationError) as error:
        raise _unusable(path, error) from None
    length = _read(folder / _LENGTH) if (folder / _LENGTH).is_file() else {}
    return shape, length.get("max_seq_length") or shape.positions


def _read(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text())
    except ValueError as error:
        raise _unusable(path, error) from None
    if not isinstance(said, dict):
        raise _unusable(path, "it holds no settings")
    return said


def _unusable(path: Path, why: object) -> ConfigError:
    said = " ".join(str(why).split())[:300]
    return ConfigError(
        "CONF021", f"{path} cannot be used: {said}.", "Take a BERT with exact GELU whose sentence is the tokens' mean."
    )


_RENAMES = {
    r"^encoder\.layer\.": "layers.",
    r"attention\.output\.dense": "self_attn.out_proj",
    r"attention\.output\.LayerNorm": "norm1",
    r"intermediate\.dense": "linear1",
    r"output\.dense": "linear2",
    r"output\.LayerNorm": "norm2",
    r"^embeddings\.LayerNorm": "norm",
    r"^embeddings\.word_embeddings": "words",
}


def _converted(state: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """BERT's state dict under the names of `SentenceEncoder`; one sentence at a time, so one token type."""
    state = {k.removeprefix("bert."): v.float() for k, v in state.items()}
    kinds, places = (state.pop(f"embeddings.{n}_embeddings.weight") for n in ("token_type", "position"))
    converted = {"position": places + kinds[0]}
    for i in range(layers):
        for part in ("weight", "bias"):
            three = [state.pop(f"encoder.layer.{i}.attention.self.{n}.{part}") for n in ("query", "key", "value")]
            converted[f"layers.{i}.self_attn.in_proj_{part}"] = torch.cat(three)
    for key, value in state.items():
        if key.startswith("pooler.") or key.endswith("position_ids"):
            continue
        for old, new in _RENAMES.items():
            key = re.sub(old, new, key)
        converted[key] = value
    return converted
