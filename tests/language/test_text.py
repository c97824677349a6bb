"""Text embeddings: normalised, one a phrase, each with its class, kept by what they were made of."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from semivl.config import ClassDefinition, Classes, VlmConfig
from semivl.language.text import class_embeddings, class_text, definition_embeddings, name_prompts
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


def test_spaces_of_joined_names_are_taken_out_of_prompts_and_of_nothing_else():
    classes = Classes(
        classes=(ClassDefinition(name="cat"), ClassDefinition(name="dining table", definitions=("dining table",))),
        joined=True,
    )
    assert name_prompts(classes) == ["a photo of a cat", "a photo of a diningtable"]
    assert classes.names == ("cat", "dining table")
    assert name_prompts(classes.model_copy(update={"joined": False}))[1] == "a photo of a dining table"


def test_an_average_is_that_of_the_embeddings_before_they_are_normalised(clip_folder: Path, tmp_path: Path):
    model, tokenizer = load_open_clip(VlmConfig(model=f"local-dir:{clip_folder}"))
    text = class_text(model, tokenizer, CLASSES, None, tmp_path)
    with torch.no_grad():
        raw = model.encode_text(tokenizer([CLASSES.prompt.format(p) for p in ("grass", "sky", "autumn leaves")]))
    mean = raw.mean(0)
    torch.testing.assert_close(text.averages[0], mean / mean.norm())
    torch.testing.assert_close(text.averages[1], text.names[1], msg="without definitions the name speaks")
    torch.testing.assert_close(text.names, class_embeddings(model, tokenizer, CLASSES))
    torch.testing.assert_close(text.phrases, definition_embeddings(model, tokenizer, CLASSES)[0])
    assert list(tmp_path.rglob("*.safetensors")) == [*clip_folder.glob("*.safetensors")], (
        "without a digest none is kept"
    )


class Counting:
    """A text tower that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        self.asked += 1
        return torch.nn.functional.one_hot(text[:, 0], 64).float() * 3


def tokens(texts: list[str]) -> Tensor:
    return torch.tensor([[len(t)] for t in texts])


def test_embeddings_are_made_once_for_the_same_weights_and_texts(tmp_path: Path):
    tower = Counting()
    first = class_text(tower, tokens, CLASSES, "weights", tmp_path / "text")
    again = class_text(tower, tokens, CLASSES, "weights", tmp_path / "text")
    assert tower.asked == 1
    for one, other in zip(vars(first).values(), vars(again).values(), strict=True):
        assert torch.equal(one, other)
    class_text(tower, tokens, CLASSES, "others", tmp_path / "text")
    class_text(tower, tokens, CLASSES.model_copy(update={"prompt": "{}"}), "weights", tmp_path / "text")
    assert tower.asked == 3
    assert len(list((tmp_path / "text").iterdir())) == 3, "nothing half-written is left"


@pytest.mark.parametrize("damage", ["empty", "cut", "bit", "other"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: str):
    tower = Counting()
    whole = class_text(tower, tokens, CLASSES, "weights", tmp_path)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    other = {"empty": b"", "cut": data[:-9], "bit": data[:-1] + bytes([data[-1] ^ 64]), "other": b"text"}
    path.write_bytes(other[damage])
    assert torch.equal(class_text(tower, tokens, CLASSES, "weights", tmp_path).phrases, whole.phrases)
    assert tower.asked == 2
    assert path.read_bytes() == data
