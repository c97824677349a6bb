"""CoDe: its step, its two phases, its scores, what a finished model holds, and what it says of captions."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from semivl.config import Config, EvaluationConfig, MethodConfig, TrainConfig
from semivl.errors import ConfigError, TrainingError
from semivl.language.nouns import Noun
from semivl.methods import Method, create
from semivl.methods.co_decomposition import CoDecomposition, Weights
from semivl.methods.parts.caption_nouns import Read
from semivl.methods.parts.code_model import CoDeModel
from semivl.methods.parts.contrast import Contrast
from semivl.nets.pamr import pamr
from semivl.training.bundle import load_bundle, save_bundle
from semivl.training.checkpoint import load_checkpoint, save_checkpoint
from semivl.training.step import build_optimizer, take_step
from tests.captioned import CAPTIONS, CLASSES, captioned_batches, spoken_vlm
from tests.tiny import SIDE, tiny_vlm

CONFIG = TrainConfig(
    steps=6, batch=4, crop=SIDE, learning_rate=1e-3, decoder_multiplier=1.0, decay="matrices", clip=5.0
)  # pyright: ignore[reportCallIssue]
SMALL: dict[str, Any] = {"context": 3, "prompt_side": 8, "words": {"heads": 2}, "regions": {"stages": 1}}


def method(**changes: Any) -> Method:
    return create(MethodConfig(name="co_decomposition", settings=SMALL | changes))


def built(chosen: Method, seed: int = 0) -> CoDeModel:
    model = chosen.build(CLASSES, spoken_vlm(seed), True).train()
    assert isinstance(model, CoDeModel)
    return model


def trained(chosen: Method, steps: range, model: CoDeModel, optimizer: Any) -> list[float]:
    return [take_step(chosen, model, optimizer, captioned_batches(s), CONFIG, s)["total"].item() for s in steps]


@pytest.fixture(scope="module")
def finished() -> tuple[Method, CoDeModel]:
    """A model after six steps."""
    chosen = method(adapted_from=0.5)
    model = built(chosen)
    trained(chosen, range(6), model, build_optimizer(model, CONFIG))
    chosen.finish(model)
    return chosen, model.eval()


def test_the_total_is_the_weighted_sum_of_the_losses():
    chosen = method()
    losses = chosen.training_step(built(chosen), captioned_batches(), 0.0)
    weights = Weights().model_dump()  # pyright: ignore[reportCallIssue]
    assert set(weights) < set(losses)
    torch.testing.assert_close(losses["total"].detach(), sum(w * losses[name] for name, w in weights.items()))
    assert losses["usable"] == 0.75
    torch.testing.assert_close(losses["positive_area"], (losses["area"] - 0.25).abs())


def test_gradients_reach_all_that_learns_and_nothing_that_is_frozen():
    chosen = method()
    model = built(chosen)
    with torch.no_grad():  # behind a shut gate, and before a zero prompt, nothing would move at first
        model.regions.decoder.stages[0].gate.fill_(0.3)
    chosen.training_step(model, captioned_batches(), 0.7)["total"].backward()
    still = {n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    assert still == set()
    assert all(p.grad is None for n, p in model.named_parameters() if n.startswith(("encoder.", "teacher.")))


def test_the_copied_block_learns_in_the_second_phase_alone():
    chosen = method(adapted_from=0.5)
    model = built(chosen)
    optimizer = build_optimizer(model, CONFIG)
    before = {n: p.clone() for n, p in model.regions.named_parameters()}
    trained(chosen, range(3), model, optimizer)
    first = {n: p.clone() for n, p in model.regions.named_parameters()}
    trained(chosen, range(3, 6), model, optimizer)
    for name, parameter in model.regions.named_parameters():
        if name.startswith("block."):
            assert torch.equal(first[name], before[name]) and not torch.equal(parameter, first[name])
        else:
            assert not torch.equal(first[name], before[name])


def test_frozen_parts_stay_as_they_are(finished):
    _, model = finished
    fresh = spoken_vlm()
    assert all(torch.equal(v, fresh.encoder.state_dict()[k]) for k, v in model.encoder.state_dict().items())
    tower = fresh.required_language("a test").state_dict()
    assert all(torch.equal(v, tower[k]) for k, v in model.teacher.state_dict().items())


def test_a_batch_without_any_usable_caption_teaches_nothing_and_breaks_nothing():
    chosen = method()
    model = built(chosen)
    losses = take_step(
        chosen, model, build_optimizer(model, CONFIG), captioned_batches(captions=CAPTIONS[2:3]), CONFIG, 0
    )
    assert losses["total"] == 0
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_no_batch_moves_the_copied_block_before_its_phase():
    chosen = method(adapted_from=0.5)
    model = built(chosen)
    before = {n: p.clone() for n, p in model.regions.block.named_parameters()}
    for step in range(3):
        batch = captioned_batches(captions=CAPTIONS[2:3] if step == 1 else CAPTIONS)
        take_step(chosen, model, build_optimizer(model, CONFIG), batch, CONFIG, step)
    assert all(torch.equal(p, before[n]) for n, p in model.regions.block.named_parameters())


def test_bfloat16_keeps_weights_losses_and_cosines_in_float32(monkeypatch: pytest.MonkeyPatch):
    given: list[torch.dtype] = []
    contrast = Contrast.forward
    monkeypatch.setattr(Contrast, "forward", lambda *args: given.append(args[1].dtype) or contrast(*args))
    chosen, found = method(), []
    for precision in ("fp32", "bf16"):
        model = built(chosen)
        found.append(
            take_step(chosen, model, build_optimizer(model, CONFIG), captioned_batches(), CONFIG, 0, precision)
        )
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    full, half = found
    assert set(given) == {torch.float32} and len(given) == 6
    assert {v.dtype for v in half.values()} == {torch.float32}
    torch.testing.assert_close(half["feature"], full["feature"], rtol=0.05, atol=0.05)


def test_a_killed_and_resumed_training_equals_an_unbroken_one(tmp_path: Path):
    chosen = method(adapted_from=0.5)
    unbroken = built(chosen)
    optimizer = build_optimizer(unbroken, CONFIG)
    trained(chosen, range(2), unbroken, optimizer)
    path = save_checkpoint(tmp_path, 2, unbroken, optimizer)
    expected = trained(chosen, range(2, 6), unbroken, optimizer)

    torch.manual_seed(99)
    resumed = built(chosen)
    other = build_optimizer(resumed, CONFIG)
    assert load_checkpoint(path, resumed, other) == 2
    assert trained(chosen, range(2, 6), resumed, other) == expected
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in unbroken.state_dict().items())
    assert not any(key.startswith(("teacher.", "encoder.")) for key in load_file(path / "model.safetensors"))


def test_a_finished_bundle_predicts_as_the_trained_model_and_holds_nothing_for_training(finished, tmp_path: Path):
    chosen, model = finished
    settings = MethodConfig(name="co_decomposition", settings=chosen.settings.model_dump(mode="json"))
    config = Config.model_construct(name="tiny", method=settings, classes=CLASSES, evaluation=EvaluationConfig())  # pyright: ignore
    save_bundle(tmp_path, config, model, model.encoder.architecture)
    assert not any(k.startswith(("learner.", "teacher.")) for k in load_file(tmp_path / "model.safetensors"))
    images = torch.rand(2, 3, SIDE, SIDE + 5)
    with torch.no_grad():
        expected = chosen.predict(model, images)
    torch.testing.assert_close(load_bundle(tmp_path).logits(images), expected, atol=1e-6, rtol=0)


def test_the_class_embeddings_are_baked_when_it_ends(finished):
    _, model = finished
    tower = spoken_vlm().required_language("a test")
    expected = model.learner.context(tower, ["background", "cat", "dog"])
    torch.testing.assert_close(model.text[0], expected, atol=1e-6, rtol=0)
    templates = model.inference.templates
    assert len(templates) == 9
    mean = torch.stack([tower.encode([t.format("cat") for t in templates])]).mean(1)
    torch.testing.assert_close(model.text[1, 1], F.normalize(mean[0], dim=0), atol=1e-6, rtol=0)


def masks_by_parts(model: CoDeModel, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The learned masks and the frozen encoder's, by their formulas, at twice the patch grid."""
    tokens, grid = model.encoder.before_last(images)
    features = model.regions.features(model.regions.backbone(tokens, grid))
    learned = (
        model.regions.scale * torch.einsum("bdhw,nd->bnhw", features, model.text[0]) + model.regions.shift
    ).sigmoid()
    own = (10 * (torch.einsum("bdhw,nd->bnhw", model.encoder(images).dense, model.text[1]) - 0.25)).sigmoid()
    return learned, F.interpolate(own, scale_factor=2, mode="bilinear")


@torch.no_grad()
@pytest.mark.parametrize("iterations", [0, 3])
def test_scores_mix_refined_masks_with_the_frozen_encoders_and_softmax_keeps_their_shares(finished, iterations: int):
    _, trained_model = finished
    chosen = method(inference={"pamr": iterations})
    model = built(chosen).eval()
    model.load_state_dict(trained_model.state_dict())
    images = torch.rand(2, 3, SIDE, SIDE)
    learned, own = masks_by_parts(model, images)
    refined = pamr(images, learned, iterations) if iterations else learned
    expected = F.interpolate(0.7 * refined + 0.3 * own, size=(SIDE, SIDE), mode="bilinear")
    expected[:, 0] = 0.4 if iterations else 0.5
    torch.testing.assert_close(model.scores(images), expected, atol=1e-5, rtol=0)
    shares = chosen.predict(model, images).softmax(1)
    torch.testing.assert_close(shares, expected / expected.sum(1, keepdim=True), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_background_can_have_another_constant_or_phrases_of_its_own():
    images = torch.rand(1, 3, SIDE, SIDE)
    constant = built(method(inference={"background": 0.7, "pamr": 0}))
    assert (constant.scores(images)[:, 0] == 0.7).all()
    searched = built(method(inference={"background_phrases": True, "pamr": 0, "kept": 0.0}))
    assert searched.phrases == ["grass", "water", "cat", "dog"]
    single = [searched.regions.logits(c).sigmoid() for c in _cosines(searched, images)]
    expected = F.interpolate(
        torch.cat([single[0].maximum(single[1]), *single[2:]], 1), size=(SIDE, SIDE), mode="bilinear"
    )
    torch.testing.assert_close(searched.scores(images), expected, atol=1e-5, rtol=0)


def _cosines(model: CoDeModel, images: torch.Tensor) -> list[torch.Tensor]:
    """Each phrase's (B, 1, h, w)."""
    tokens, grid = model.encoder.before_last(images)
    features = model.regions.features(model.regions.backbone(tokens, grid))
    text = model.learner.context(model.teacher, model.phrases)
    return [torch.einsum("bdhw,d->bhw", features, one)[:, None] for one in text]


def test_classes_are_searched_for_by_their_definitions_where_that_is_set():
    assert built(method(inference={"text": "definitions"})).phrases == ["background", "cat", "kitten", "dog"]


@pytest.mark.parametrize(
    ("negatives", "items", "whole"),
    [("all", [1, 1, 1], [1, 1, 1]), ("other_nouns", [1, 0, 1], [1, 0, 1]), ("unmentioned", [1, 0, 1], [1, 0, 0])],
)
def test_what_is_a_negative_of_an_image_whose_caption_has_more_nouns(negatives: str, items: Any, whole: Any):
    cat, dog, bird = (Noun(word, word) for word in ("cat", "dog", "bird"))
    read = Read([0, 1, 2, 3], [""] * 4, [(cat, bird), (dog,), (cat,), (bird,)], [cat, dog, cat, bird], [0, 1, 2, 3])
    chosen = method(negatives=negatives)
    assert isinstance(chosen, CoDecomposition)
    found = chosen._negatives(read, torch.device("cpu"))
    assert found.items[0, 1:].int().tolist() == items
    assert found.whole[0, 1:].int().tolist() == whole
    losses = chosen.training_step(built(chosen), captioned_batches(captions=(CAPTIONS[0], CAPTIONS[0])), 0.0)
    assert all(torch.isfinite(v) for v in losses.values())


def test_a_model_without_a_text_tower_is_told_clearly():
    with pytest.raises(ConfigError, match="CONF040 method co_decomposition"):
        method().build(CLASSES, tiny_vlm(), True)


def rows(*captions: str) -> Any:
    return SimpleNamespace(captioned=[SimpleNamespace(caption=caption) for caption in captions])


def test_the_survey_counts_nouns_and_names_classes_that_no_caption_names():
    told = method(least_captions=2).survey(rows(*CAPTIONS), CLASSES)
    assert told[0].startswith("3 of 4 images read have a caption with 2 nouns")
    assert told[1].startswith("Nouns by images, of ") and "dog 2" in told[1] and "cat 2" in told[1]
    assert len(told) == 2
    told = method(least_captions=1).survey(rows("two kittens on the water"), CLASSES)
    [warning] = [line for line in told if line.startswith("Warning")]
    assert warning.startswith("Warning: no caption names dog (dog): ")


def test_too_few_captions_with_nouns_are_refused():
    with pytest.raises(TrainingError, match="TRAIN020 3 of 4 captioned images"):
        method(least_captions=4).survey(rows(*CAPTIONS), CLASSES)


@pytest.mark.parametrize("changes", [{"templates": ["a photo"]}, {"inference": {"templates": []}}])
def test_templates_need_a_place_for_the_name(changes: dict[str, Any]):
    with pytest.raises(ConfigError, match="CONF003"):
        method(**changes)
