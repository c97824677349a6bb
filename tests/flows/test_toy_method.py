"""A method of one's own is one file and one YAML: no other room has to know of it."""

import shutil

import pytest

import semivl.methods
from flows.pipeline import pipeline
from semivl.config import CONF
from semivl.registry.package import load_predictor, model_version
from tests.loop import EVALUATION, overrides

pytestmark = pytest.mark.usefixtures("services")

METHOD = '''
"""A line through the dense features, learned from masks."""

from pydantic import Field
from torch import nn
from torch.nn import functional as F

from semivl.config import Record
from semivl.methods import Method, as_float


class Line(nn.Module):
    def __init__(self, vlm, classes):
        super().__init__()
        self.encoder = vlm.student().requires_grad_(False)
        self.line = nn.Conv2d(self.encoder.architecture.embedding, classes, 1)

    def forward(self, images):
        cells = self.line(self.encoder(images).dense)
        return F.interpolate(cells, size=images.shape[-2:], mode="bilinear")


class Toy(Method):
    needs = frozenset({"mask"})

    class Settings(Record):
        smoothing: float = Field(0.0, ge=0, lt=1)

    def build(self, classes, vlm, training, guide=None):
        return Line(vlm, len(classes))

    def training_step(self, model, batches, progress):
        images, masks = as_float(batches.labelled.images), batches.labelled.masks
        loss = F.cross_entropy(model(images), masks, ignore_index=255, label_smoothing=self.settings.smoothing)
        return {"total": loss}


METHOD = Toy
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The experiment `demo-supervised` with the method of one file and one YAML."""
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "toy.py").write_text(METHOD)
    monkeypatch.setattr(semivl.methods, "__path__", [*semivl.methods.__path__, str(tmp_path / "methods")])
    conf = shutil.copytree(CONF, tmp_path / "conf")
    (conf / "method" / "toy.yaml").write_text("name: toy\nsettings: {smoothing: 0.1}\n")
    (conf / "experiment" / "toy.yaml").write_text("base: demo-supervised\nmethod: toy\n")
    monkeypatch.setattr("semivl.config.experiment.CONF", conf)
    return "toy"


def test_a_toy_method_goes_from_scenes_to_a_champion_by_one_file_and_one_yaml(toy, store, dataset):
    given = overrides(dataset)
    del given["method"]
    decision = pipeline(toy, given)
    assert decision.promoted and decision.challenger == 1
    version = model_version(f"semivl-{dataset}", "champion")
    predictor = load_predictor(version.name, int(version.version), "cpu")
    assert (type(predictor.method).__name__, predictor.method.settings.smoothing) == ("Toy", 0.1)
    assert decision.images == EVALUATION
