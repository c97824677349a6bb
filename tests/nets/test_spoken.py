"""A classifier spoken through a sentence encoder: ConSE's mean, whole and dense, and folders that cannot be used."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from semivl.config import ClassDefinition, Classes, VlmConfig
from semivl.errors import ConfigError
from semivl.language.sentence import load_sentence_encoder
from semivl.language.text import embed
from semivl.nets.spoken import SpokenArchitecture, SpokenEncoder, convex, load_spoken, save_spoken
from semivl.nets.vlm import load_vlm
from tests.sentences import WIDTH, write_sentences

NAMES = ["red cat", "green dog", "blue fox", "white cat"]
TINY = SpokenArchitecture(
    network="test_efficientnet", classes=4, embedding=WIDTH, side=64, mean=(0.5,) * 3, std=(0.5,) * 3, top=2
)  # pyright: ignore[reportArgumentType]
CLASSES = Classes(classes=tuple(ClassDefinition(name=n) for n in ("background", "cat", "dog")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    state = timm.create_model(TINY.network, num_classes=4).state_dict()
    return save_spoken(tmp_path / "spoken", TINY, state, NAMES, write_sentences(tmp_path / "sentences"))


def test_one_hot_probabilities_give_the_names_embeddings():
    names = F.normalize(torch.randn(5, 8), dim=1)
    chosen = torch.tensor([[3, 1], [0, 4]])
    dense = convex(F.one_hot(chosen, 5).permute(2, 0, 1)[None].float(), names, top=3)
    torch.testing.assert_close(dense[0].permute(1, 2, 0), names[chosen])


def test_only_the_likeliest_names_are_averaged_by_their_probabilities():
    names = F.normalize(torch.randn(4, 8), dim=1)
    probabilities = torch.tensor([0.1, 0.4, 0.2, 0.3]).view(1, 4, 1, 1)
    mean = F.normalize(0.4 * names[1] + 0.3 * names[3], dim=0)
    torch.testing.assert_close(convex(probabilities, names, top=2).flatten(), mean)
    every = F.normalize((probabilities.view(4, 1) * names).sum(0), dim=0)
    torch.testing.assert_close(convex(probabilities, names, top=10).flatten(), every)


def test_a_folder_is_loaded_by_its_name_and_gives_dense_features_without_skips(folder: Path):
    vlm = load_vlm(VlmConfig(model=f"spoken:{folder}"), CLASSES, 32)
    features = vlm.encoder(torch.rand(2, 3, 48, 96))
    assert features.dense.shape == (2, WIDTH, 1, 3) and features.skips == ()
    torch.testing.assert_close(features.dense.norm(dim=1), torch.ones(2, 1, 3))
    assert vlm.required_text("a test").names.shape == (3, WIDTH)
    with pytest.raises(ConfigError, match="CONF019"):
        vlm.student()


def test_names_are_stored_in_the_classifiers_order(folder: Path, tmp_path: Path):
    encoder = load_vlm(VlmConfig(model=f"spoken:{folder}"), CLASSES, 32).encoder
    assert isinstance(encoder, SpokenEncoder)
    spoken = embed(*load_sentence_encoder(tmp_path / "sentences"), NAMES)
    torch.testing.assert_close(encoder.names, spoken)


def test_one_cell_says_what_the_whole_image_says(folder: Path):
    encoder = load_vlm(VlmConfig(model=f"spoken:{folder}"), CLASSES, 32).encoder
    assert isinstance(encoder, SpokenEncoder)
    encoder.architecture = TINY.model_copy(update={"side": 32})
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(encoder(images).dense.flatten(1), encoder.whole(images))


def test_missing_files_wrong_shapes_and_other_networks_are_refused(folder: Path):
    config = VlmConfig(model="spoken:x")
    with pytest.raises(ConfigError, match="CONF020"):
        load_spoken(folder / "nowhere", config, CLASSES, 32)
    state = load_file(folder / "encoder.safetensors")
    save_file(state | {"names": torch.zeros(3, WIDTH)}, folder / "encoder.safetensors")
    with pytest.raises(ConfigError, match="CONF022"):
        load_spoken(folder, config, CLASSES, 32)
    (folder / "encoder.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"CONF020.*encoder\.safetensors"):
        load_spoken(folder, config, CLASSES, 32)
    for network in ("no_such_network", "test_vit"):
        described = TINY.model_copy(update={"network": network})
        (folder / "vlm.json").write_text(described.model_dump_json())
        with pytest.raises(ConfigError, match=r"CONF021.*vlm\.json"):
            load_spoken(folder, config, CLASSES, 32)
    (folder / "vlm.json").write_text("{}")
    with pytest.raises(ConfigError, match="CONF021"):
        load_spoken(folder, config, CLASSES, 32)
