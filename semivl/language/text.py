"""Text embeddings of a class map: what dense image features are compared with, made once before training.

Three sets (SemiVL, section 3.4; spec semivl.md, 2.4): the plain class names, for each class the mean of its
definitions, and every definition by itself, where the best phrase speaks for its class. They are kept on disk by
what they were made of, so that a text tower runs once for a class map.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from semivl.config import Classes

Tokenizer = Callable[[list[str]], Tensor]
"""texts to (B, context) int64 token ids"""
_CHUNK = 256
_ROWS = "embeddings"


class TextEncoder(Protocol):
    """The half of an open_clip model that is used here."""

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor: ...


@dataclass(frozen=True)
class ClassText:
    """The embeddings of a class map, float32 and L2-normalised, on the CPU."""

    names: Tensor
    """(N, D), the plain class names"""
    averages: Tensor
    """(N, D), the mean of each class's definitions"""
    phrases: Tensor
    """(M, D), the definitions of all classes, one after the other"""
    phrase_class: Tensor
    """(M,) int64, the class of each phrase"""


def class_text(
    model: TextEncoder, tokenizer: Tokenizer, classes: Classes, weights_digest: str | None, folder: Path
) -> ClassText:
    """The class map's embeddings; from `folder` where they were made before.

    Args:
        weights_digest: stands for all that decides an embedding besides the texts: the text tower's weights, its
            activation, its tokenizer. Nothing is kept where it is None.
        folder: of the kept embeddings; made where it is not there.
    """
    names, phrases, phrase_class = name_prompts(classes), definition_prompts(classes), classes_of_phrases(classes)
    texts = [*names, *phrases]

    def made() -> Tensor:
        return raw_embeddings(model, tokenizer, texts)

    rows = made() if weights_digest is None else _kept(folder, weights_digest, texts, made)
    return from_rows(rows[: len(names)], rows[len(names) :], phrase_class)


def from_rows(names: Tensor, phrases: Tensor, phrase_class: Tensor) -> ClassText:
    """The three sets of a class map's (N, D) and (M, D) embeddings, which need not be normalised.

    An average is taken before the normalisation and normalised itself, as in the published files.
    """
    sums = torch.zeros_like(names).index_add_(0, phrase_class, phrases)
    counts = torch.bincount(phrase_class, minlength=len(names)).unsqueeze(1)
    return ClassText(normalize(names, dim=1), normalize(sums / counts, dim=1), normalize(phrases, dim=1), phrase_class)


def name_prompts(classes: Classes) -> list[str]:
    """What the text tower reads for each class's name; of `joined` classes the name without spaces."""
    spoken = [name.replace(" ", "") if classes.joined else name for name in classes.names]
    return [classes.prompt.format(name) for name in spoken]


def definition_prompts(classes: Classes) -> list[str]:
    """What it reads for all definitions, one class after the other; for a class without, its name as it is."""
    return [classes.prompt.format(phrase) for c in classes.classes for phrase in c.phrases]


def classes_of_phrases(classes: Classes) -> Tensor:
    """(M,) int64, the class of each definition."""
    return torch.tensor([i for i, c in enumerate(classes.classes) for _ in c.phrases])


def class_embeddings(model: TextEncoder, tokenizer: Tokenizer, classes: Classes) -> Tensor:
    """(N, D) float32 embeddings of the class names in the class map's prompt, L2-normalised."""
    return embed(model, tokenizer, name_prompts(classes))


def definition_embeddings(model: TextEncoder, tokenizer: Tokenizer, classes: Classes) -> tuple[Tensor, Tensor]:
    """(M, D) float32 embeddings of all definitions, L2-normalised, and (M,) int64 the class of each."""
    return embed(model, tokenizer, definition_prompts(classes)), classes_of_phrases(classes)


def embed(model: TextEncoder, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """(B, D) float32 embeddings of the texts, L2-normalised, on the CPU."""
    return normalize(raw_embeddings(model, tokenizer, texts), dim=1)


@torch.no_grad()
def raw_embeddings(model: TextEncoder, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """(B, D) float32 embeddings of the texts as the tower gives them, not normalised, on the CPU."""
    chunks = [list(texts[i : i + _CHUNK]) for i in range(0, len(texts), _CHUNK)]
    found = torch.cat([model.encode_text(tokenizer(chunk)) for chunk in chunks])
    return found.float().cpu().clone()


def _kept(folder: Path, weights_digest: str, texts: list[str], make: Callable[[], Tensor]) -> Tensor:
    """The rows in the folder's file for these texts; made and kept where there is no such file, or a damaged one."""
    key = hashlib.sha256(json.dumps([weights_digest, texts]).encode()).hexdigest()
    path = folder / f"{key}.safetensors"
    rows = _read(path)
    if rows is None:
        rows = make()
        _write(path, rows)
    return rows


def _read(path: Path) -> Tensor | None:
    """The rows; None where the file is missing or does not hold what was written."""
    try:
        with safe_open(path, "pt") as file:
            rows = file.get_tensor(_ROWS)
            return rows if (file.metadata() or {}).get("sha256") == _sha256(rows) else None
    except (OSError, SafetensorError):
        return None


def _write(path: Path, rows: Tensor) -> None:
    """Writes beside and renames: another process sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file({_ROWS: rows.contiguous()}, name, {"sha256": _sha256(rows)})
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _sha256(rows: Tensor) -> str:
    return hashlib.sha256(rows.contiguous().numpy().tobytes()).hexdigest()
