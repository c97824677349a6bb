"""Experiments that start from others, and guides that are named."""

import os

import pytest

from semivl.config import CONF, expanded, load
from semivl.errors import ConfigError


@pytest.fixture
def experiment():
    """Writes an experiment that is gone after the test; gives its name."""
    written = []

    def write(text: str, name: str = "one") -> str:
        path = CONF / "experiment" / f"test-{os.getpid()}-{name}.yaml"
        path.write_text(text.replace("NAME", f"test-{os.getpid()}"))
        written.append(path)
        return path.stem

    yield write
    for path in written:
        path.unlink(missing_ok=True)


def test_an_experiment_starts_from_its_base_and_changes_what_it_names(experiment):
    name = experiment("base: demo\ntrain: {steps: 7}\nmethod: {settings: {confidence: 0.5}}\n")
    config, base = load(name), load("demo")
    assert (config.name, config.train.steps, config.train.crop) == (name, 7, base.train.crop)
    assert config.method.settings == base.method.settings | {"confidence": 0.5}
    assert config.data == base.data


def test_a_group_that_is_named_takes_the_bases_place(experiment):
    config = load(experiment("base: demo\nmethod: supervised\nclasses: {use: voc, joined: true}\n"))
    assert (config.method.name, config.method.settings) == ("supervised", {})
    assert len(config.classes) == 21 and config.classes.joined


def test_bases_in_a_circle_are_named(experiment):
    first = experiment("base: NAME-two\n", "one")
    experiment("base: NAME-one\n", "two")
    with pytest.raises(ConfigError, match=r"CONF003.*based on each other"):
        load(first)


def test_a_guide_is_named_in_the_file_and_on_the_command_line(experiment):
    name = experiment("base: demo\nguidance: {vlm: clip-vit-b16}\n")
    assert load(name).guidance.vlm.model == "ViT-B-16-quickgelu"
    assert load("demo").guidance.vlm is None
    assert load("demo", {"guidance": {"vlm": "tiny"}}).guidance.vlm == load("demo").vlm
    assert expanded({"guidance": {"vlm": {"model": "x"}}}) == {"guidance": {"vlm": {"model": "x"}}}
    with pytest.raises(ConfigError, match=r"CONF001.*conf/vlm/tinny"):
        load("demo", {"guidance": {"vlm": "tinny"}})


@pytest.mark.parametrize("name", ["Background", "BACKGROUND", "background "])
def test_a_background_that_no_method_would_know_is_refused(name):
    classes = {"classes": [{"name": "cat"}, {"name": name}]}
    with pytest.raises(ConfigError, match=r"CONF003.*classes\.classes\.1\.name: .*Write it background"):
        load("demo", {"classes": classes})


@pytest.mark.parametrize("schedule", ["often", "6 h", "0s", "0 3 * *", "-5m", "1.5h"])
def test_schedule_that_is_neither_interval_nor_cron_is_refused(schedule):
    with pytest.raises(ConfigError, match=r"CONF003.*retrain\.schedule: .*30m, 6h"):
        load("demo", {"retrain": {"schedule": schedule}})
