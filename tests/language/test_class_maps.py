"""The published class maps in conf/classes, through CLIP's real tokenizer and against the published embeddings."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from semivl.config import CONF, Classes, VlmConfig, check
from semivl.errors import ConfigError
from semivl.language.text import class_text, classes_of_phrases, definition_prompts, from_rows, name_prompts
from semivl.nets.open_clip_loading import load_open_clip

SIZES = {"voc": (21, 98), "cityscapes": (19, 54), "coco": (81, 81), "ade20k": (150, 150)}
FILES = {"voc": "voc12_wbg_single", "cityscapes": "cityscapes_single", "coco": "coco_single", "ade20k": "ade_single"}
"""published embeddings of the names"""
DEFINITIONS = {
    "voc": ("voc12_wbg_concept4_single", "voc12_wbg_conceptavg4_single"),
    "cityscapes": ("cityscapes_concept3_single", "cityscapes_conceptavg3_single"),
}
"""published embeddings of the definitions, and their averages"""
END = 49407
"""CLIP's token at the end of a text"""


def published(name: str) -> Classes:
    """The class map as the paper's rows use it."""
    read = OmegaConf.to_container(OmegaConf.load(CONF / "classes" / f"{name}.yaml"))
    return check(Classes, {**read, "joined": name == "voc"}, name)  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]


def reference(name: str) -> Tensor:
    folder = Path(os.environ["SEMIVL_REAL_DATA"]) / "semivl-reference/text_embedding"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    rows = np.load(folder / f"{name}.npy")
    assert rows.dtype == np.float16 and rows.shape[1] == 512
    return torch.from_numpy(rows).float()


@pytest.mark.parametrize("name", SIZES)
def test_class_maps_have_the_published_sizes(name: str):
    classes = published(name)
    assert (len(classes), len(definition_prompts(classes))) == SIZES[name]
    assert all(n == n.strip() for n in classes.names)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("joined", [False, True])
def test_prompts_fit_the_tokenizer_and_names_differ_in_tokens(name: str, joined: bool):
    tokenizer = open_clip.get_tokenizer("ViT-B-16")
    classes = published(name).model_copy(update={"joined": joined})
    for prompts in (name_prompts(classes), definition_prompts(classes)):
        rows = tokenizer(prompts)
        assert ((rows == END).sum(1) == 1).all() and (rows[:, -1] == 0).all(), "a text was cut off"
    rows = tokenizer(name_prompts(classes))
    assert len({tuple(r) for r in rows.tolist()}) == len(classes)


def test_definitions_of_different_classes_differ_in_tokens():
    tokenizer = open_clip.get_tokenizer("ViT-B-16")
    for name in DEFINITIONS:
        rows = [tuple(r) for r in tokenizer(definition_prompts(published(name))).tolist()]
        assert len(set(rows)) == len(rows)


def test_the_published_blank_after_bed_changes_no_token():
    tokenizer = open_clip.get_tokenizer("ViT-B-16")
    assert torch.equal(tokenizer(["a photo of a bed "]), tokenizer(["a photo of a bed"]))


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("name", SIZES)
def test_published_embeddings_have_our_rows(name: str):
    names = reference(FILES[name])
    assert len(names) == SIZES[name][0]
    torch.testing.assert_close(names.norm(dim=1), torch.ones(len(names)), rtol=0, atol=2e-3)
    if name not in DEFINITIONS:
        return
    classes = published(name)
    phrases, averages = map(reference, DEFINITIONS[name])
    assert len(phrases) == SIZES[name][1] and len(averages) == len(names)
    text = from_rows(names, phrases, classes_of_phrases(classes))
    # the published rows are normalised, so their mean is only near that of the rows before
    assert (text.averages * averages).sum(1).min() > 0.99
    # a name speaks best for its own definitions; the background's are many things
    owner = text.phrase_class
    nearest = (text.phrases @ text.names.T).argmax(1)
    counted = owner != 0 if name == "voc" else torch.ones_like(owner, dtype=torch.bool)
    assert (nearest == owner)[counted].float().mean() > 0.7


@pytest.fixture(scope="module")
def openai_clip() -> tuple[Any, Any]:
    try:
        return load_open_clip(VlmConfig(model="ViT-B-16-quickgelu", pretrained="openai"))  # pyright: ignore[reportCallIssue]
    except ConfigError as error:
        pytest.skip(f"OpenAI's weights are neither in open_clip's cache nor to be had: {error}")


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("name", SIZES)
def test_embeddings_of_the_real_clip_are_the_published_ones(name: str, openai_clip: tuple[Any, Any], tmp_path: Path):
    text = class_text(*openai_clip, published(name), None, tmp_path)
    pairs = [(text.names, FILES[name])]
    if name in DEFINITIONS:
        pairs += zip((text.phrases, text.averages), DEFINITIONS[name], strict=True)
    for ours, file in pairs:
        assert (ours * torch.nn.functional.normalize(reference(file), dim=1)).sum(1).min() > 0.999
