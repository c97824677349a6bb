"""Loading through open_clip: local folders work offline, and every way to get it wrong has its own message."""

import json
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from semivl.config import VlmConfig
from semivl.errors import ConfigError
from semivl.nets.conversion import from_open_clip
from semivl.nets.open_clip_loading import load_open_clip
from semivl.nets.timm_loading import load_timm
from semivl.nets.vlm import weights_digest


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


def openai_files(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """Weights in the layout of OpenAI's ViT-B/16: its names, shapes, half precision and the three numbers beside."""
    import open_clip

    with torch.device("meta"):
        shapes = open_clip.create_model("ViT-B-16-quickgelu", load_weights=False, device="meta").state_dict()
    state = {k: torch.zeros(v.shape, dtype=torch.float16) for k, v in shapes.items() if k != "attn_mask"}
    state["visual.proj"][3, 5] = 0.25
    numbers = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
    state |= {k: torch.tensor(v) for k, v in numbers.items()}
    path = folder / "ViT-B-16.pt"
    torch.save(state, path)
    return path, state


@pytest.mark.usefixtures("own_home")
def test_openais_layout_goes_through_the_real_conversion(tmp_path: Path):
    path, state = openai_files(tmp_path)
    config = VlmConfig(model="ViT-B-16-quickgelu", pretrained=str(path), layer_norm_eps=1e-6, gelu="exact")
    model, _ = load_open_clip(config)
    encoder = from_open_clip(model.visual, config, (32, 32))
    a = encoder.architecture
    assert (a.width, a.layers, a.heads, a.mlp, a.patch, a.embedding) == (768, 12, 12, 3072, 16, 512)
    assert (a.gelu, a.layer_norm_eps) == ("exact", 1e-6)
    assert encoder.projection.weight[5, 3] == 0.25
    assert encoder.position.shape == (1025, 768)
    assert round(sum(p.numel() for p in encoder.parameters()) / 1e6, 3) == 86.829

    script = torch.jit.script(Holder(state))
    torch.jit.save(script, tmp_path / "archive.pt")
    archived, _ = load_open_clip(config.model_copy(update={"pretrained": str(tmp_path / "archive.pt")}))
    assert all(torch.equal(v, archived.state_dict()[k]) for k, v in model.state_dict().items())

    faults = {
        "a missing key": {k: v for k, v in state.items() if k != "visual.ln_post.weight"},
        "a wrong shape": state | {"visual.proj": torch.zeros(768, 256, dtype=torch.float16)},
        "no checkpoint": [1, 2, 3],
    }
    for name, content in faults.items():
        torch.save(content, path)
        error = fault("ViT-B-16-quickgelu", str(path))
        assert error.code == "CONF014", name
    assert "visual.ln_post.weight" in fault_of(faults["a missing key"], path)
    assert "visual.proj" in fault_of(faults["a wrong shape"], path)
    path.write_bytes(b"<html>not found</html>")
    assert fault("ViT-B-16-quickgelu", str(path)).code == "CONF014"


def fault_of(content: object, path: Path) -> str:
    torch.save(content, path)
    return fault("ViT-B-16-quickgelu", str(path)).what


class Holder(torch.nn.Module):
    """The tensors under their dotted names, as OpenAI's TorchScript archives hold them."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, value in state.items():
            *path, last = name.split(".")
            module: torch.nn.Module = self
            for part in path:
                if part not in module._modules:
                    module.add_module(part, torch.nn.Module())
                module = module._modules[part]  # pyright: ignore[reportAssignmentType]
            module.register_buffer(last, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_without_a_network_the_file_is_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    error = fault("ViT-B-32", "laion400m_e31")
    assert error.code == "CONF016"
    assert "vlm.pretrained" in error.remedy


def test_timm_models_that_cannot_be_used_are_named(tmp_path: Path):
    def timm_fault(model: str, pretrained: str | None = None) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            load_timm(VlmConfig(model=f"timm:{model}", pretrained=pretrained))
        return caught.value

    error = timm_fault("vit_smal_patch14_dinov2")
    assert error.code == "CONF010" and "vit_small_patch14_dinov2" in error.remedy
    assert timm_fault("resnet18").code == "CONF017"
    assert timm_fault("vit_tiny_patch16_224", str(tmp_path / "none.pth")).code == "CONF013"
    torch.save({"cls_token": torch.zeros(1)}, tmp_path / "bad.pth")
    assert timm_fault("vit_tiny_patch16_224", str(tmp_path / "bad.pth")).code == "CONF014"


def test_the_digest_names_every_file_of_a_folder(clip_folder: Path):
    config = VlmConfig(model=f"local-dir:{clip_folder}")
    digests = [weights_digest(config)]
    described = clip_folder / "open_clip_config.json"
    described.write_text(described.read_text().replace("{", '{ "note": 1,', 1))
    digests.append(weights_digest(config))
    (clip_folder / "open_clip_model.safetensors").rename(clip_folder / "pytorch_model.bin")
    digests.append(weights_digest(config))
    assert "" not in digests and len(set(digests)) == 3


def test_a_file_of_weights_is_found_from_the_checkout_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = VlmConfig(model="ViT-B-16", pretrained="pyproject.toml")
    here = weights_digest(config)
    monkeypatch.chdir(tmp_path)
    assert here and weights_digest(config) == here
    assert weights_digest(VlmConfig(model="ViT-B-16", pretrained="openai")) == ""
