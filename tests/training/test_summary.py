"""`semivl show`: what an experiment amounts to, without its weights."""

import json

import pytest
import torch

from semivl.config import load
from semivl.errors import ConfigError
from semivl.nets.aligned import save_aligned
from semivl.nets.encoder import DenseEncoder
from semivl.training.summary import as_comment, summary
from tests.sentences import write_sentences
from tests.training.test_alignment import ARCHITECTURE


def test_the_papers_experiment_shows_its_modules_rates_prompts_losses_and_memory():
    tables = summary(load("voc-92"))
    modules = {row[0]: row[1:] for row in tables["modules"]}
    assert modules["encoder"] == ("86,828,544", "29,135,616", "1.0e-06")
    assert modules["teacher"] == ("86,828,544", "0", "frozen")
    decoder = [row for name, row in modules.items() if name.startswith("decoder.")]
    assert sum(int(row[0].replace(",", "")) for row in decoder) == 2_217_185
    assert {row[2] for row in decoder} == {"1.0e-03"}
    assert [row[:2] for row in tables["text"][1:]] == [("names", "21"), ("definitions", "98")]
    assert tables["losses"][3][1].startswith("0.1 falling to 0")
    assert tables["steps"][1][0] == "104,880"
    weights, training, prediction = (float(row[1]) for row in tables["memory"][1:])
    assert weights < prediction < training


@pytest.mark.parametrize(
    "name", ["cityscapes-100", "voc-92-unimatch", "voc-92-unimatch-v2", "demo", "demo-supervised", "scenes-code"]
)
def test_other_experiments_can_be_shown_too(name):
    text = as_comment(summary(load(name)))
    assert all(line.startswith("#") for line in text.splitlines())
    assert "expected memory" in text


def test_all_classes_at_once_need_more_memory():
    few, all_at_once = (summary(load("voc-92", {"compute": {"class_chunk": c}})) for c in (5, 21))
    assert float(few["memory"][2][1].replace(",", "")) < float(all_at_once["memory"][2][1])


@pytest.mark.usefixtures("own_home")
def test_aligned_and_spoken_models_are_shown_without_reading_their_weights(tmp_path):
    text = str(write_sentences(tmp_path / "sentences"))
    described = ARCHITECTURE.model_copy(update={"embedding": 16, "layers": 3, "skip_blocks": (0, 1)})
    save_aligned(tmp_path / "aligned", DenseEncoder(described), text, torch.eye(16))
    spoken = {
        "network": "test_efficientnet",
        "classes": 3,
        "embedding": 16,
        "side": 64,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    (tmp_path / "spoken").mkdir()
    (tmp_path / "spoken" / "vlm.json").write_text(json.dumps(spoken))
    models = {
        "vlm": {"model": f"aligned:{tmp_path / 'aligned'}", "skip_blocks": [0, 1]},
        "guidance": {"vlm": {"model": f"spoken:{tmp_path / 'spoken'}"}},
    }
    (tmp_path / "aligned" / "encoder.safetensors").unlink()
    modules = {row[0]: row[1:] for row in summary(load("demo", models))["modules"]}
    assert modules["teacher"][2] == "frozen" and int(modules["encoder"][1].replace(",", "")) > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vlm": {"skip_blocks": [0, 9]}}, "CONF025.*skip_blocks .0, 9."),
        ({"vlm": {"skip_blocks": [2, 0]}}, "CONF025"),
        ({"vlm": {"skip_blocks": [1]}}, "CONF025.*two skip features"),
        ({"method": {"settings": {"decoder": {"channels": 50}}}}, "CONF003.*groups of 16"),
        ({"method": {"settings": {"decoder": {"heads": 3}}}}, "CONF003.*divide by heads"),
        ({"method": {"settings": {"decoder": {"pool": 0}}}}, "CONF003.*at least 1"),
        ({"method": {"settings": {"decoder": {"skip": [40, 8]}}}}, "CONF003.*skip must be less"),
        ({"classes": {"prompt": "a {x}"}}, "CONF003.*prompt"),
        ({"train": {"scale": [2.0, 0.5]}}, "CONF003.*train.scale.*smaller one comes first"),
        ({"evaluation": {"short_side": -5}}, "CONF003.*short_side"),
        ({"guidance": {"vlm": "tiny", "labels": "maps"}}, "CONF003.*vlm, model and labels"),
        ({"vlm": {"model": "ViT-B-32", "pretrained": "openai"}, "train": {"crop": 16}}, "CONF026.*16 pixels"),
        (
            {"vlm": {"model": "timm:vit_base_patch16_clip_224.openai"}, "method": {"name": "unimatch_v2"}},
            "CONF017|CONF003",
        ),
        ({"vlm": {"model": "timm:vit_tiny_patch16_224"}}, "CONF018.*encoder without text"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes, said):
    with pytest.raises(ConfigError, match=said):
        summary(load("demo", changes))
