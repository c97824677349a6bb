"""Method spatial_grouping: named groups without any training, and adapted by captions (spec scg.md)."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from semivl.config import ClassDefinition, Classes, MethodConfig, TrainConfig, VlmConfig, load
from semivl.data.samples import Samples
from semivl.data.stream import Batches, Captioned, Pools
from semivl.data.tables import index_table
from semivl.errors import ConfigError, TrainingError
from semivl.methods import create, evolving_state, inference_state
from semivl.methods.parts.class_bank import bank
from semivl.methods.parts.recogniser import Recogniser, of_groups
from semivl.nets.pamr import pamr
from semivl.nets.vlm import DenseVLM, blank_vlm, load_vlm, outline_vlm
from semivl.training.bundle import load_bundle, save_bundle
from semivl.training.memory import expected
from semivl.training.step import build_optimizer, take_step
from tests.made_shards import picture
from tests.made_snapshots import sample
from tests.tiny import SIDE, tiny_vlm

SCENES = Classes(
    classes=(
        ClassDefinition(name="background", definitions=("grass", "road")),
        ClassDefinition(name="fox"),
        ClassDefinition(name="car", definitions=("car", "sedan")),
    )
)
GROUPS = {"grouper": "kmeans", "count": 5, "side": None}
TINY = VlmConfig(model="local-dir:conf/vlm/tiny-clip", skip_blocks=(0, 2))
CAPTIONS = ("a red car on the road", "a fox in the grass", "a fox and a car", "nothing at all")


@pytest.fixture(scope="module")
def vlm() -> DenseVLM:
    return load_vlm(TINY, SCENES, 64, language=True)


def method(**settings):
    return create(MethodConfig(name="spatial_grouping", settings={"groups": GROUPS} | settings))


def built(vlm: DenseVLM, **settings) -> Recogniser:
    model = method(**settings).build(SCENES, vlm, training=True).eval()
    assert isinstance(model, Recogniser)
    return model


def photos(count: int = 2, side: int = 64) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def batch(model: Recogniser) -> Batches:
    images = (255 * photos(4)).byte()
    nothing = torch.zeros(4, 64, 64, dtype=torch.bool)
    return Batches(captioned=Captioned(images, nothing, CAPTIONS, model.group(images.float() / 255)))


def trained(vlm: DenseVLM, steps: int, **adapt):
    chosen = method(adapt=adapt)
    torch.manual_seed(0)
    model = chosen.build(SCENES, vlm, training=True).train()
    config = TrainConfig(steps=max(steps, 1), learning_rate=1e-3, backbone_multiplier=1, decoder_multiplier=1)
    optimizer = build_optimizer(model, config)
    losses = [take_step(chosen, model, optimizer, batch(model), config, step) for step in range(steps)]
    return chosen, model, losses


def test_without_adapt_nothing_is_learned_and_class_names_are_enough(vlm):
    chosen = method()
    model = chosen.build(SCENES, vlm, training=True)
    assert chosen.needs == frozenset() and not chosen.reads_text
    assert not any(p.requires_grad for p in model.parameters())
    assert {name.split(".")[0] for name in model.state_dict()} == {"encoder", "text"}
    assert method(adapt={}).needs == {"caption"}


def test_pixels_of_a_group_have_one_score_and_probabilities_add_up(vlm):
    model, images = built(vlm, naming={"dense": 0.0}), photos()
    with torch.inference_mode():
        logits, groups = model(images), model.group(images)
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(2, 64, 64), atol=1e-4, rtol=0)
    for image, of_image in zip(logits, groups, strict=True):
        for group in of_image.unique():
            inside = image[:, of_image == group]
            assert torch.equal(inside, inside[:, :1].expand_as(inside))


def best(cosines: Tensor) -> Tensor:
    """(..., 3) of cosines (..., 5) with two definitions, one and two."""
    return torch.stack([cosines[..., :2].amax(-1), cosines[..., 2], cosines[..., 3:].amax(-1)], -1)


def test_a_pixels_score_mixes_its_groups_and_its_own(vlm):
    model, images = built(vlm, naming={"dense": 0.3, "scale": 20.0}), photos()
    with torch.inference_mode():
        groups = model.group(images)
        reading = model.read(images, groups)
        named = (20 * best(reading.regions @ model.text.T)).softmax(-1)
        dense = best(reading.dense.permute(0, 2, 3, 1) @ model.text.T).permute(0, 3, 1, 2)
        own = (20 * F.interpolate(dense, size=(64, 64), mode="bilinear")).softmax(1)
        expected = 0.7 * of_groups(named.transpose(1, 2), groups) + 0.3 * own
        torch.testing.assert_close(model(images).exp(), expected, atol=2e-6, rtol=1e-4)


def test_values_of_groups_are_put_where_the_groups_are():
    values, groups = torch.randn(2, 3, 4), torch.randint(0, 4, (2, 5, 6))
    found = of_groups(values, groups)
    assert all(
        torch.equal(found[b, :, y, x], values[b, :, groups[b, y, x]])
        for b in (0, 1)
        for y in range(5)
        for x in range(6)
    )


def test_a_background_with_a_probability_wins_where_no_class_reaches_it(vlm):
    images = photos()
    with torch.inference_mode():
        free = built(vlm, naming={"background": 0.0})(images)[:, 1:].softmax(1)
        found = built(vlm, naming={"background": 0.6})(images)
    torch.testing.assert_close(found[:, 0].exp(), torch.full((2, 64, 64), 0.6))
    assert torch.equal(found.argmax(1) == 0, free.amax(1) <= 0.6)
    foxes = Classes(classes=SCENES.classes[1:])
    with pytest.raises(ConfigError, match="CONF052"):
        method(naming={"background": 0.5}).build(foxes, load_vlm(TINY, foxes, 64), training=True)


def test_the_gate_leaves_out_classes_that_the_whole_photo_rules_out(vlm):
    images = photos()
    open_model, model = built(vlm), built(vlm, naming={"gate": 1.5})
    with torch.inference_mode():
        whole = model.read(images, model.group(images)).whole
        best = torch.stack([whole @ model.text[2], (whole @ model.text[3:].T).amax(1)], 1)
        ruled_out = (100 * best).softmax(1) < 0.5
        before, after = open_model(images).exp(), model(images).exp()
    assert ruled_out.sum(1).tolist() == [1, 1]
    assert after[:, 1:][ruled_out].max() <= 1.1e-6
    torch.testing.assert_close(after[:, 0], before[:, 0])
    torch.testing.assert_close(after[:, 1:][~ruled_out], before[:, 1:][~ruled_out])


def test_scores_follow_the_edges_of_the_photo_where_pamr_is_asked_for(vlm):
    images = photos()
    with torch.inference_mode():
        plain, refined = built(vlm)(images), built(vlm, naming={"pamr": 2})(images)
    torch.testing.assert_close(refined.exp(), pamr(images, plain.exp(), 2), atol=1e-5, rtol=1e-3)


def test_templates_are_averaged_and_read_once(vlm):
    templates = ("a {}.", "there is a {} here")
    found = bank(SCENES, vlm, "names", templates)
    assert vlm.language is not None
    each = torch.stack([vlm.language.encode([t.format(n) for n in SCENES.names]) for t in templates])
    torch.testing.assert_close(found, F.normalize(each.mean(0), dim=-1))
    assert method(naming={"templates": templates}).reads_text
    assert bank(SCENES, blank_vlm(vlm.student().architecture, 3), "definitions", templates).shape == (5, 96)


@pytest.mark.parametrize("settings", [{}, {"adapt": {}}, {"adapt": {}, "regions": {"how": "attn_soft", "by": "class"}}])
def test_a_finished_model_predicts_as_before_and_holds_no_text_tower(vlm, settings, tmp_path: Path):
    config = load("demo", {"classes": SCENES.model_dump()}).model_copy(
        update={
            "method": MethodConfig(name="spatial_grouping", settings={"groups": GROUPS} | settings),
            "classes": SCENES,
        }
    )
    model = built(vlm, **settings)
    if "adapt" in settings:
        model.encoder.blocks[-1].in_proj.weight.data.add_(0.02)  # the encoder learned; its groups stay
    save_bundle(tmp_path, config, model, vlm.student().architecture)
    with torch.inference_mode():
        expected_logits = model(photos())
    finished = load_bundle(tmp_path)
    torch.testing.assert_close(finished.logits(photos()), expected_logits)
    assert not [n for n in finished.model.state_dict() if n.startswith(("teacher", "learner"))]


@pytest.mark.parametrize(
    "adapt",
    [{}, {"unit": "region"}, {"two_way": True}, {"pooling": "max", "distillation": 0.1}, {"pooling": "logsumexp"}],
    ids=str,
)
def test_a_training_lowers_its_loss_and_leaves_groups_and_text_as_they_were(vlm, adapt):
    chosen, model, losses = trained(vlm, 6, **adapt)
    assert losses[-1]["total"] < losses[0]["total"]
    assert all(torch.isfinite(value) for values in losses for value in values.values())
    for name, tensor in vlm.student().state_dict().items():
        if not name.startswith("stem"):
            assert torch.equal(model.get_submodule("grouper").state_dict()[name], tensor)
    assert torch.equal(model.text, bank(SCENES, vlm, "definitions", ()))
    assert set(chosen.describe()) <= set(losses[0])


def test_the_last_blocks_and_the_projection_learn_and_nothing_before(vlm):
    _, model, _ = trained(vlm, 2, last=1)
    before = vlm.student().state_dict()
    changed = {n for n, t in model.get_submodule("encoder").state_dict().items() if not torch.equal(t, before[n])}
    assert changed and all(n.startswith(("blocks.4.", "ln_post.", "projection.")) for n in changed)
    learned = set(evolving_state(model))
    assert "learner.log_scale" in learned and not any(n.startswith(("teacher.", "grouper.")) for n in learned)
    assert not any(n.startswith(("teacher.", "learner.")) for n in inference_state(model))


@pytest.mark.parametrize("adapt", [{}, {"unit": "region", "two_way": True}])
def test_bfloat16_keeps_weights_losses_and_cosines_in_float32(vlm, adapt):
    found = []
    for precision in ("fp32", "bf16"):
        chosen = method(adapt=adapt, regions={"how": "pool"})
        torch.manual_seed(0)
        model = chosen.build(SCENES, vlm, training=True).train()
        config = TrainConfig(steps=1)  # pyright: ignore[reportCallIssue]
        found.append(take_step(chosen, model, build_optimizer(model, config), batch(model), config, 0, precision))
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    full, half = found
    assert {v.dtype for v in half.values()} == {torch.float32}
    torch.testing.assert_close(half["nouns"], full["nouns"], rtol=0.02, atol=0.02)


def test_a_learned_context_is_read_before_nouns_and_before_classes(vlm, tmp_path: Path):
    chosen, model, losses = trained(vlm, 6, context=4)
    first = method(adapt={"context": 4}).build(SCENES, vlm, training=True)
    assert losses[-1]["nouns"] < losses[0]["nouns"]
    assert not torch.equal(model.learner.context.vectors, first.learner.context.vectors)
    assert torch.equal(model.text, first.text), "until the training is done"
    chosen.finish(model)
    assert not torch.equal(model.text, first.text)
    fillers = [f"x x x x {phrase}" for one in SCENES.classes for phrase in one.phrases]
    tower = model.teacher.language
    tokens = tower.tokens(fillers)
    with torch.no_grad():
        seen = tower.embedded(tokens).clone()
        for row, places in enumerate(tower.spoken(tokens)):
            seen[row, places.nonzero().flatten()[:4]] = model.learner.context.vectors
        expected = F.normalize(tower.pooled(tower.hidden(seen, tokens), tokens), dim=-1)
    torch.testing.assert_close(model.text, expected)
    settings = {"groups": GROUPS, "adapt": {"context": 4}}
    config = load("demo", {"classes": SCENES.model_dump()}).model_copy(
        update={"method": MethodConfig(name="spatial_grouping", settings=settings), "classes": SCENES}
    )
    save_bundle(tmp_path, config, model, vlm.student().architecture)
    torch.testing.assert_close(load_bundle(tmp_path).model.text, expected)


def test_captions_without_nouns_teach_whole_images_alone(vlm):
    chosen, model, _ = trained(vlm, 0)
    made = batch(model).captioned
    assert made is not None
    silent = Batches(captioned=Captioned(made.images, made.ignored, ("a", "b c", "the", ""), made.maps))
    losses = chosen.training_step(model, silent, 0.0)
    assert losses["nouns"] == 0 and losses["whole"] > 0
    losses["total"].backward()


def test_maps_of_groups_are_kept_by_all_that_decides_them(vlm):
    chosen = method(adapt={})
    model = chosen.build(SCENES, vlm, training=True)
    maps = chosen.image_maps(model)
    assert maps is not None
    image = photos(1, 48)[0]
    made = maps.make(image)
    assert made.dtype == torch.uint8 and torch.equal(made.long(), model.group(image[None])[0])
    assert maps.key == chosen.image_maps(chosen.build(SCENES, vlm, training=True)).key
    other = method(adapt={}, groups=GROUPS | {"count": 6})
    assert other.image_maps(other.build(SCENES, vlm, training=True)).key != maps.key
    model.get_submodule("grouper").position.data.add_(1)
    assert chosen.image_maps(model).key != maps.key


def test_what_an_experiment_needs_is_told_without_its_weights():
    config = load("demo", {"classes": SCENES.model_dump()}).model_copy(update={"classes": SCENES})
    for settings, learned in (({}, False), ({"adapt": {}}, True)):
        chosen = method(**settings)
        with torch.device("meta"):
            model = chosen.build(SCENES, outline_vlm(TINY, SCENES, 64), training=not chosen.reads_text)
        needs = expected(config, chosen, model)
        assert needs.prediction > needs.weights > 0
        assert (needs.training > 1.5 * needs.weights) == learned


def test_an_encoder_without_text_is_refused():
    with pytest.raises(ConfigError, match="CONF018"):
        method().build(SCENES, DenseVLM(tiny_vlm().encoder, None), training=True)
    assert photos(1, SIDE).shape[-1] == SIDE


def pools(*captions: str) -> Pools:
    """What a training learns from, where these are all captions there are."""
    made = [sample(f"c{i}", picture(i), caption=caption, supervision="caption") for i, caption in enumerate(captions)]
    nothing = Samples(index_table([]))
    return Pools(nothing, nothing, Samples(index_table([row for _, row in made])))


def test_the_survey_warns_of_classes_that_no_caption_names():
    told = method(adapt={}).survey(pools("two sedans on the grass", "so nice\nwow"), SCENES)
    assert told[0].startswith("1 of 2 images read have a caption with nouns")
    assert [line for line in told if "Warning" in line] == [
        "Warning: no caption names fox (fox): no region is learned for it."
    ]
    with pytest.raises(TrainingError, match="TRAIN030"):
        method(adapt={}).survey(pools("so nice", "wow"), SCENES)
    assert method().survey(pools(), SCENES) == []
