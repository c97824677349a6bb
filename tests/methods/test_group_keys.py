"""Groups that were kept are taken for the same model, settings and code alone."""

import pytest

from semivl.config import GroupConfig
from semivl.methods.parts import recogniser
from semivl.methods.parts.recogniser import NamingSettings, Recogniser
from semivl.nets.regions import RegionSettings
from tests.tiny import CLASSES, tiny_vlm


def made(**groups) -> Recogniser:
    naming = NamingSettings(text="names")  # pyright: ignore[reportCallIssue]
    settings = GroupConfig(side=None, **groups)
    return Recogniser(CLASSES, tiny_vlm(), settings, RegionSettings(), naming, learns=False, loaded=False)  # pyright: ignore[reportCallIssue]


def test_the_key_of_groups_is_the_same_for_the_same_model():
    assert made().group_key() == made().group_key() != made(count=3).group_key()


@pytest.mark.parametrize(
    "change", [{"mean": (0.4, 0.5, 0.6)}, {"heads": 4}, {"gelu": "quick"}, {"layer_norm_eps": 1e-6}]
)
def test_what_no_weight_holds_makes_another_key(change: dict):
    model = made()
    before, encoder = model.group_key(), model.groups_by
    assert {name: getattr(encoder.architecture, name) for name in change} != change
    encoder.architecture = encoder.architecture.model_copy(update=change)
    assert model.group_key() != before


def test_groups_of_another_version_of_the_code_are_not_taken(monkeypatch: pytest.MonkeyPatch):
    model = made()
    before = model.group_key()
    monkeypatch.setattr(recogniser, "VERSION", recogniser.VERSION + 1)
    assert model.group_key() != before
