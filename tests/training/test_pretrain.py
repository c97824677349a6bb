"""Pretraining on captions: it learns, repeats itself, reads no mask, and its result is open_clip's own."""

import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from semivl.config import VlmConfig
from semivl.data.scenes import write_captioned
from semivl.errors import ConfigError, TrainingError
from semivl.nets.open_clip_loading import load_open_clip
from semivl.training.pretrain import PretrainSettings, embeddings, info_nce, pretrain

MODEL: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16, "pool_type": "avg",
    },
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}  # fmt: skip
SHORT = PretrainSettings(steps=3, batch=8)


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captioned")
    write_captioned(folder, 1, 16, 64)
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "open_clip_config.json"
    path.write_text(json.dumps({"model_cfg": MODEL}))
    return path


def run(folder: Path, config: Path, output: Path, settings: PretrainSettings = SHORT) -> list[dict[str, float]]:
    values: list[dict[str, float]] = []
    pretrain(folder, config, output, settings, lambda step, measured: values.append({"step": step, **measured}))
    return values


def test_loss_falls_and_every_step_is_told(captioned: Path, config: Path, tmp_path: Path):
    told = run(captioned, config, tmp_path / "out", PretrainSettings(steps=20, batch=16, crop=1.0, coarse=0.0))
    assert [t["step"] for t in told] == list(range(1, 21))
    assert sum(t["loss"] for t in told[-4:]) < 0.9 * sum(t["loss"] for t in told[:4])


def test_result_is_loaded_by_open_clip_itself(captioned: Path, config: Path, tmp_path: Path):
    run(captioned, config, tmp_path / "out")
    name = f"local-dir:{tmp_path / 'out'}"
    model, _, _ = open_clip.create_model_and_transforms(name)
    stored = load_file(tmp_path / "out" / "open_clip_model.safetensors")
    assert {v.dtype for v in stored.values()} == {torch.float16}
    assert all(torch.equal(v, stored[k].float()) for k, v in model.state_dict().items())
    assert open_clip.get_tokenizer(name)(["a fox"]).shape == (1, 32)


def test_the_same_seed_gives_the_same_weights(captioned: Path, config: Path, tmp_path: Path):
    for name in ("a", "b"):
        run(captioned, config, tmp_path / name)
    weights = [(tmp_path / name / "open_clip_model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]


def test_masks_lying_in_the_folder_change_nothing(captioned: Path, config: Path, tmp_path: Path):
    masked = tmp_path / "masked"
    shutil.copytree(captioned, masked)
    (masked / "masks").mkdir()
    for image in (masked / "images").iterdir():
        (masked / "masks" / f"{image.stem}.png").write_bytes(b"not to be opened")
    run(captioned, config, tmp_path / "a")
    run(masked, config, tmp_path / "b")
    weights = [(tmp_path / name / "open_clip_model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]


def test_whole_embedding_is_that_of_open_clip():
    torch.manual_seed(0)
    model, images = open_clip.CLIP(**MODEL).eval(), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(embeddings(model.visual, images)[0], model.encode_image(images))


def test_info_nce_of_indistinct_pairs_is_the_logarithm_of_the_batch():
    assert info_nce(torch.zeros(8, 8)).item() == pytest.approx(torch.tensor(8.0).log().item())


def test_missing_captions_lines_and_images_are_named(config: Path, tmp_path: Path):
    lines = [None, "no json", '{"image": "a.jpg"}', '{"image": "gone.jpg", "caption": "a fox"}', "[]"]
    for number, line in enumerate(lines):
        folder = tmp_path / str(number)
        folder.mkdir()
        if line is not None:
            (folder / "captions.jsonl").write_text(line)
        with pytest.raises(TrainingError, match=r"TRAIN060.*captions\.jsonl"):
            run(folder, config, tmp_path / "out")


def test_too_few_pairs_and_broken_images_are_refused(captioned: Path, config: Path, tmp_path: Path):
    with pytest.raises(TrainingError, match="TRAIN061"):
        run(captioned, config, tmp_path / "out", PretrainSettings(steps=1, batch=64))
    broken = tmp_path / "broken"
    shutil.copytree(captioned, broken)
    image = next((broken / "images").iterdir())
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(TrainingError, match=f"TRAIN062.*{image.name}"):
        run(broken, config, tmp_path / "out", PretrainSettings(steps=2, batch=8))


def test_missing_config_is_refused(captioned: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="CONF011"):
        run(captioned, tmp_path / "nowhere" / "open_clip_config.json", tmp_path / "out")


def test_result_names_texts_in_the_space_of_images(captioned: Path, config: Path, tmp_path: Path):
    run(captioned, config, tmp_path / "out")
    model, tokenizer = load_open_clip(VlmConfig(model=f"local-dir:{tmp_path / 'out'}"))
    assert model.encode_text(tokenizer(["a fox"])).shape == model.encode_image(torch.rand(1, 3, 32, 32)).shape
