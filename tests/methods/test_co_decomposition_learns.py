"""CoDe learns from captions of the demo's scenes: where objects end, and which words are whose (spec code.md, 8)."""

import pytest
import torch

from benchmarks.co_decomposition import SIDE, by_classes, dense, drawn, experiment, held_out, scored, trained
from semivl.nets.vlm import load_vlm


@pytest.mark.slow
def test_a_short_training_tells_objects_from_background_better_than_the_dense_map_of_the_same_model():
    torch.set_num_threads(1)
    config, method = experiment("full", 0)
    config = config.model_copy(update={"train": config.train.model_copy(update={"steps": 50})})
    captioned, masked, evaluation = drawn("unlabelled", 300), drawn("labelled", 16), drawn("evaluation", 48)
    vlm = load_vlm(config.vlm, config.classes, config.train.crop, language=True)
    model = trained(config, method, vlm, captioned)
    told = held_out(method, model, evaluation, config.train.crop)
    assert told["words_right"] > 50  # chance: 33
    assert 1 < told["area"] < 40, told  # percent; it starts at 50, the prior is 10
    learned = scored(by_classes(model, 0.0, 0), masked, evaluation)
    pretrained = scored(dense(load_vlm(config.vlm, config.classes, SIDE), 0.0, False), masked, evaluation)
    assert learned.constant > pretrained.constant + 4
