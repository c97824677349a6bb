"""`semivl show`: what an experiment amounts to, without its weights."""

import pytest

from semivl.config import load
from semivl.training.summary import as_comment, summary


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


@pytest.mark.parametrize("name", ["cityscapes-100", "voc-92-unimatch", "voc-92-unimatch-v2", "demo", "demo-supervised"])
def test_other_experiments_can_be_shown_too(name):
    text = as_comment(summary(load(name)))
    assert all(line.startswith("#") for line in text.splitlines())
    assert "expected memory" in text


def test_all_classes_at_once_need_more_memory():
    few, all_at_once = (summary(load("voc-92", {"compute": {"class_chunk": c}})) for c in (5, 21))
    assert float(few["memory"][2][1].replace(",", "")) < float(all_at_once["memory"][2][1])
