"""Text embeddings: normalised, one a phrase, each with its class, and nothing but rows."""

from pathlib import Path

import torch

from semivl.config import ClassDefinition, Classes, VlmConfig
from semivl.language.text import class_embeddings, definition_embeddings
from semivl.nets.open_clip_loading import load_open_clip

CLASSES = Classes(
    classes=(
        ClassDefinition(name="background", definitions=("grass", "sky", "autumn leaves")),
        ClassDefinition(name="cat"),
        ClassDefinition(name="fox", definitions=("fox", "vixen")),
    )
)


def test_embeddings_are_normalised_float32_rows_without_gradient(clip_folder: Path):
    model, tokenizer = load_open_clip(VlmConfig(model=f"local-dir:{clip_folder}"))
    names = class_embeddings(model, tokenizer, CLASSES)
    phrases, owner = definition_embeddings(model, tokenizer, CLASSES)
    assert names.shape == (3, 16)
    assert phrases.shape == (6, 16)
    assert owner.tolist() == [0, 0, 0, 1, 2, 2]
    for rows in (names, phrases):
        assert rows.dtype == torch.float32
        assert not rows.requires_grad
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))


def test_a_class_without_definitions_is_asked_for_by_its_name(clip_folder: Path):
    model, tokenizer = load_open_clip(VlmConfig(model=f"local-dir:{clip_folder}"))
    phrases, owner = definition_embeddings(model, tokenizer, CLASSES)
    torch.testing.assert_close(phrases[owner == 1], class_embeddings(model, tokenizer, CLASSES)[1:2])


def test_permuting_classes_permutes_rows(clip_folder: Path):
    model, tokenizer = load_open_clip(VlmConfig(model=f"local-dir:{clip_folder}"))
    order = [2, 0, 1]
    shuffled = Classes(classes=tuple(CLASSES.classes[i] for i in order))
    torch.testing.assert_close(
        class_embeddings(model, tokenizer, shuffled), class_embeddings(model, tokenizer, CLASSES)[order]
    )
    before, owner_before = definition_embeddings(model, tokenizer, CLASSES)
    after, owner_after = definition_embeddings(model, tokenizer, shuffled)
    for new, old in enumerate(order):
        torch.testing.assert_close(after[owner_after == new], before[owner_before == old])


def test_the_prompt_is_part_of_what_is_embedded(clip_folder: Path):
    model, tokenizer = load_open_clip(VlmConfig(model=f"local-dir:{clip_folder}"))
    bare = CLASSES.model_copy(update={"prompt": "{}"})
    assert not torch.allclose(
        class_embeddings(model, tokenizer, bare), class_embeddings(model, tokenizer, CLASSES), atol=1e-3
    )
