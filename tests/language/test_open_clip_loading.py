"""Loading through open_clip: local folders work offline, and every way to get it wrong has its own message."""

import json
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from semivl.config import VlmConfig
from semivl.errors import ConfigError
from semivl.nets.open_clip_loading import load_open_clip


def fault(model: str, pretrained: str | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_open_clip(VlmConfig(model=model, pretrained=pretrained))
    return caught.value


def test_local_folder_loads_without_a_connection(clip_folder: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise AssertionError("reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    model, tokenizer = load_open_clip(VlmConfig(model=f"local-dir:{clip_folder}"))
    stored = load_file(clip_folder / "open_clip_model.safetensors")
    assert not model.training
    assert tokenizer(["a cat"]).shape == (1, 16)
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())


def test_half_precision_weights_become_float32(clip_folder: Path):
    path = clip_folder / "open_clip_model.safetensors"
    save_file({k: v.half() for k, v in load_file(path).items()}, path)
    model, _ = load_open_clip(VlmConfig(model=f"local-dir:{clip_folder}"))
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_misspelt_model_gets_near_names():
    error = fault("ViT-B16")
    assert error.code == "CONF010"
    assert "ViT-B-16" in error.remedy


def test_missing_folder_and_missing_config_are_named(tmp_path: Path):
    missing = fault(f"local-dir:{tmp_path / 'nowhere'}")
    empty = fault(f"local-dir:{tmp_path}")
    assert (missing.code, empty.code) == ("CONF011", "CONF011")
    assert "nowhere" in missing.what
    assert "open_clip_config.json" in empty.what


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model_cfg": {"embed_dim": 8}}', '{"model_cfg": null}'])
def test_config_that_is_none_is_refused(clip_folder: Path, text: str):
    (clip_folder / "open_clip_config.json").write_text(text)
    assert fault(f"local-dir:{clip_folder}").code == "CONF012"


def test_config_with_an_unknown_field_is_refused(clip_folder: Path):
    path = clip_folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["vision_cfg"]["widht"] = 3
    path.write_text(json.dumps(config))
    error = fault(f"local-dir:{clip_folder}")
    assert error.code == "CONF012"
    assert "widht" in error.what


def test_folder_without_weights_is_refused(clip_folder: Path):
    (clip_folder / "open_clip_model.safetensors").unlink()
    assert fault(f"local-dir:{clip_folder}").code == "CONF013"


def test_weights_of_another_width_and_a_cut_file_are_refused(clip_folder: Path):
    path = clip_folder / "open_clip_model.safetensors"
    whole = path.read_bytes()
    state = load_file(path)
    save_file(state | {"visual.proj": torch.zeros(32, 8)}, path)
    assert fault(f"local-dir:{clip_folder}").code == "CONF014"
    path.write_bytes(whole[: len(whole) // 2])
    assert fault(f"local-dir:{clip_folder}").code == "CONF014"


def test_weights_tag_is_needed_and_must_be_known():
    assert fault("ViT-B-16").code == "CONF013"
    error = fault("ViT-B-16", "openia")
    assert error.code == "CONF015"
    assert "openai" in error.remedy


def test_image_tower_that_is_no_plain_vit_is_refused(clip_folder: Path):
    path = clip_folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["vision_cfg"]["attentional_pool"] = True
    path.write_text(json.dumps(config))
    (clip_folder / "open_clip_model.safetensors").unlink()
    import open_clip

    model = open_clip.CLIP(**config["model_cfg"])
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, clip_folder / "open_clip_model.safetensors")
    assert fault(f"local-dir:{clip_folder}").code == "CONF017"
