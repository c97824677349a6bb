"""Model versions that somebody else put into the registry: nothing of them runs, and none takes what it likes."""

import json
import pickle
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from semivl.config import Config, load
from semivl.errors import SemivlError
from semivl.methods import create
from semivl.training.bundle import CARD, WEIGHTS, load_bundle, save_bundle
from tests.tiny import CLASSES, SHAPE, tiny_vlm


@pytest.fixture
def bundle(tmp_path) -> Path:
    vlm = tiny_vlm()
    settings = {"decoder": SHAPE.model_dump(mode="json")}
    config: Config = load("demo-supervised", {"method": {"settings": settings}})
    config = config.model_copy(update={"classes": CLASSES})
    model = create(config.method).build(CLASSES, vlm, training=False)
    save_bundle(tmp_path / "bundle", config, model, vlm.student().architecture)
    return tmp_path / "bundle"


def changed(folder: Path, **fields) -> None:
    card = json.loads((folder / CARD).read_text())
    for name, value in fields.items():
        part, _, key = name.partition("__")
        (card[part] if key else card)[key or part] = value
    (folder / CARD).write_text(json.dumps(card))


def refused(folder: Path) -> Exception:
    with pytest.raises((SemivlError, ValueError, OSError)) as raised:
        load_bundle(folder)
    return raised.value


def test_sound_bundle_loads(bundle):
    assert load_bundle(bundle).logits(torch.zeros(1, 3, 32, 32)).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("name", ["../../os", "os", "semivl.cli", "parts", "__init__", "unimatch/../semivl"])
def test_a_card_names_no_module_but_a_method(bundle, name):
    changed(bundle, method={"name": name, "settings": {}})
    assert "CONF006" in str(refused(bundle))


def test_a_card_that_describes_a_giant_is_refused_before_it_takes_memory(bundle):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    changed(bundle, encoder__width=2**16, encoder__mlp=2**22, encoder__layers=48)
    assert "TRAIN015" in str(refused(bundle))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_weights_of_another_shape_are_named(bundle):
    weights = load_file(bundle / WEIGHTS)
    weights["text"] = torch.zeros(9, 8)
    save_file(weights, bundle / WEIGHTS)
    found = str(refused(bundle))
    assert "TRAIN015" in found and "text" in found


class Trap:
    def __reduce__(self):
        return Path.touch, (Path("trapped"),)


def test_pickled_weights_are_not_unpickled(bundle, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (bundle / WEIGHTS).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(Exception, match=r"(?i)header|deserial"):
        load_bundle(bundle)
    torch.save({"text": Trap()}, bundle / WEIGHTS)
    with pytest.raises(Exception, match=r"(?i)header|deserial"):
        load_bundle(bundle)
    assert not (tmp_path / "trapped").exists()
