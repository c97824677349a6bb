"""A finished model whose predictions are evened out over groups (`evaluation.refine`)."""

import hashlib
import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from semivl.config import Config, MethodConfig, load
from semivl.errors import ExportError
from semivl.methods import create
from semivl.nets.grouping import group_maps
from semivl.nets.grouping_encoder import load_group_encoder
from semivl.nets.refine import refined
from semivl.nets.vlm import weights_digest
from semivl.serving.export import export
from semivl.training.bundle import WEIGHTS, Predictor, load_bundle, save_bundle, split_weights, train_key
from tests.tiny import SIDE, tiny_vlm

METHOD = {"settings": {"decoder": {"channels": 16, "up": [16, 16], "skip": [8, 8], "dilations": [1, 2]}}}


def config_with(**refine) -> Config:
    evaluation = {"evaluation": {"refine": refine}} if refine else {}
    return load("demo", {"classes": {"classes": [{"name": n} for n in "abc"]}, "method": METHOD} | evaluation)


def predictor(folder: Path, config: Config) -> Predictor:
    vlm = tiny_vlm()
    torch.manual_seed(0)
    model = create(config.method).build(config.classes, vlm, training=False)
    save_bundle(folder, config, model, vlm.student().architecture)
    return load_bundle(folder)


def test_logits_are_the_methods_refined_by_groups_of_its_own_encoders_keys(tmp_path: Path):
    config = config_with(weight=0.7, groups={"count": 3, "side": None})
    plain, evened = predictor(tmp_path / "plain", config_with()), predictor(tmp_path / "evened", config)
    images = torch.rand(2, 3, SIDE, SIDE)
    assert config.evaluation.refine
    groups = group_maps(plain.encoder, images, config.evaluation.refine.groups)
    expected = refined(plain.logits(images), groups, 0.7)
    assert not torch.equal(plain.logits(images), evened.logits(images))
    torch.testing.assert_close(evened.logits(images), expected)


def test_a_timm_encoder_that_groups_is_part_of_the_finished_model(tmp_path: Path):
    torch.manual_seed(0)
    net = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    groups = {"encoder": "timm:vit_tiny_patch16_224", "weights": str(tmp_path / "weights.pth"), "side": 64}
    config = config_with(groups=groups)
    assert config.evaluation.refine
    encoder, key = load_group_encoder(config.evaluation.refine.groups), train_key(config, "1")
    made, plain = predictor(tmp_path / "made", config), predictor(tmp_path / "plain", config_with())
    (tmp_path / "weights.pth").unlink()
    made, images = load_bundle(tmp_path / "made"), torch.rand(1, 3, SIDE, SIDE)
    expected = refined(plain.logits(images), group_maps(encoder, images, config.evaluation.refine.groups), 1.0)
    torch.testing.assert_close(made.logits(images), expected)
    own, _ = split_weights(tmp_path / "made" / WEIGHTS)
    assert own.keys() == load_file(tmp_path / "plain" / WEIGHTS).keys()
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict(), tmp_path / "weights.pth")
    assert train_key(config, "1") != key, "other weights make another model"


def test_a_methods_own_weights_of_groups_make_another_model_and_without_a_file_the_key_is_that_of_before(
    tmp_path: Path,
):
    weights, keys = tmp_path / "dino.pth", []
    groups = {"encoder": "timm:vit_tiny_patch16_224"}
    for body in (b"first", b"second", b"first"):
        weights.write_bytes(body)
        keys.append(train_key(grouping(groups | {"weights": str(weights)}), "1"))
    assert keys[0] == keys[2] != keys[1]
    for config in (grouping(groups), grouping({}), config_with()):
        parts = config.digest("classes", "vlm", "method", "train", "evaluation", "guidance")
        before = f"{parts} {weights_digest(config.vlm)}   1 "
        assert train_key(config, "1") == hashlib.sha256(before.encode()).hexdigest()[:16]


def grouping(groups: dict) -> Config:
    own = MethodConfig(name="spatial_grouping", settings={"groups": groups})
    return config_with().model_copy(update={"method": own})


def test_an_experiment_without_refinement_keeps_the_digest_of_before():
    before = config_with().model_dump(mode="json", include={"evaluation"})
    before["evaluation"] = {k: v for k, v in before["evaluation"].items() if k not in ("refine", "latency_sizes")}
    expected = hashlib.sha256(json.dumps(before, sort_keys=True).encode()).hexdigest()[:16]
    assert config_with().digest("evaluation") == expected
    assert config_with(weight=0.5).digest("evaluation") != expected


def test_a_refined_model_is_not_exported_as_if_it_were_none(tmp_path: Path):
    with pytest.raises(ExportError, match=r"EXP007.*evaluation\.refine"):
        export(predictor(tmp_path, config_with(weight=0.5)), "semivl-test/1", tmp_path / "model.pt2")
