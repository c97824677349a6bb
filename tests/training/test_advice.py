"""Advice by what a snapshot's index knows."""

import shutil

import pytest

from semivl.config import CONF, ClassDefinition, Classes, MethodConfig, load
from semivl.data.samples import Samples
from semivl.data.stream import Pools
from semivl.data.tables import where
from semivl.errors import TrainingError
from semivl.methods import create, names
from semivl.training.advice import ClassKnown, Known, Step, advised, experiment_of, known
from tests.made_shards import picture
from tests.made_snapshots import grown, sample, samples

OBJECTS = ("cat", "dog", "cow")
CLASSES = Classes(classes=tuple(ClassDefinition(name=n) for n in ("background", "cat", "dog")))  # pyright: ignore


def made(masks=(), tags=(), captions=(), complete=False, bare=100, captioned=0, against="") -> Known:
    """What is known where each named class has 50 photos of that kind."""
    classes = [
        ClassKnown(
            name=n, masks=50 * (n in masks), tags=50 * (n in tags), captions=50 * (n in captions)
        )
        for n in ("background", *OBJECTS)
    ]  # fmt: skip
    masked, tagged = 50 * bool(masks), 50 * bool(tags)
    return Known(
        train=masked + tagged + bare,
        masked=masked,
        tagged=tagged,
        complete=tagged * complete,
        captioned=captioned,
        classes=tuple(classes),
        against_transfer=against,
    )


@pytest.mark.parametrize(
    ("found", "methods"),
    [
        (made(), ["spatial_grouping"]),
        (made(captions=OBJECTS, captioned=100), ["spatial_grouping"]),
        (made(captions=OBJECTS, captioned=1000), ["co_decomposition"]),
        (made(masks=OBJECTS), ["semivl"]),
        (made(masks=OBJECTS, bare=0), ["supervised"]),
        (made(masks=("cat", "dog"), tags=("cow",)), ["transfer", "semivl"]),
        (made(masks=("cat", "dog"), tags=("cow",), bare=0), ["transfer"]),
        (made(masks=("cat",), tags=("cow", "dog"), against="One class."), ["semivl"]),
        (made(masks=("cat",), captions=OBJECTS, captioned=1000), ["co_decomposition", "semivl"]),
        (made(masks=("cat",), captions=("cow",), captioned=1000), ["semivl"]),
    ],
    ids=[
        "names alone", "few captions", "captions", "masks", "all masks", "weak classes", "weak classes, all tagged",
        "one strong class", "classes that captions name", "captions name too few",
    ],
)  # fmt: skip
def test_method_follows_from_what_is_known(found, methods):
    assert [step.method for step in advised(found, "m").steps] == methods


def test_a_later_step_is_taught_by_the_earlier_ones_model():
    first, second = advised(made(masks=("cat", "dog"), tags=("cow",)), "herd").steps
    assert first.settings == () and second.settings == ("guidance: {model: herd@challenger}",)


@pytest.mark.parametrize(
    ("tags", "refused"),
    [
        (["fox", "hen"], ""),
        (["fox"], "no mask shows and only tags of photos with masks name hen"),
        ([], "nor tags of photos without a mask know fox, hen"),
        (["fox hen"] * 30, "tagged fox or hen, 58 are tagged with both"),
    ],
)
def test_transfer_is_advised_where_it_takes_the_samples_and_else_said_why_not(store, tags, refused):
    classes = Classes(classes=tuple(ClassDefinition(name=n) for n in ("background", "cat", "duck", "fox", "hen")))
    told = [
        sample(f"t{i}", picture(900 + i), tags=tuple(named.split()), supervision="tags")
        for i, named in enumerate(2 * tags)
    ]
    drawn = [
        sample(f"m{i}", picture(950 + i), pixels=pixels, supervision="mask", tags=("cat", "hen"))
        for i, pixels in enumerate([(700, 5, 0, 0, 0), (700, 0, 7, 0, 0)])
    ]
    bare = [sample("u", picture(990))]
    seen = [sample("v", picture(999), "val", pixels=(700, 5, 0, 0, 0), supervision="mask")]
    snapshot = grown(store, "advice", classes, [*drawn, *told, *bare, *seen])
    advice = advised(known(snapshot), "m")
    train = where(snapshot.index, "split", ["train"])
    unlabelled = Samples(where(train, "supervision", ["tags"]))
    pools = Pools(Samples(where(train, "supervision", ["mask"])), unlabelled, unlabelled)
    survey = create(MethodConfig(name="transfer")).survey
    if tags and not refused:
        assert advice.steps[0].method == "transfer" and survey(pools, classes)
    else:
        assert advice.steps[0].method == "semivl" and refused in " ".join(advice.cautions)
        with pytest.raises(TrainingError):
            survey(pools, classes)


def test_classes_that_nothing_knows_and_tags_that_rule_nothing_out_are_told():
    told = " ".join(advised(made(masks=("cat",), tags=("cat",)), "m").cautions)
    assert "cow" in told and "dog" in told and "positive-only" in told
    assert not advised(made(masks=OBJECTS, tags=OBJECTS, complete=True), "m").cautions


def test_knowledge_is_that_of_the_training_samples(store):
    told = [
        sample("t0", picture(900), tags=("dog",), tags_complete=True, supervision="tags"),
        sample("t1", picture(901), tags=("dog", "cat"), supervision="tags", caption="two dogs"),
        sample("t2", picture(902), caption="A hotdog stand", supervision="caption"),
        sample("t3", picture(903), "val", (700, 800, 0), caption="a dog", tags=("dog",)),
    ]
    found = known(grown(store, "known", CLASSES, [*samples(labelled=4, unlabelled=6), *told]))
    assert (found.train, found.masked, found.tagged, found.complete, found.captioned) == (13, 4, 2, 1, 2)
    by_name = {c.name: (c.masks, c.tags, c.captions) for c in found.classes}
    assert by_name["dog"] == (0, 2, 1)
    assert by_name["cat"][:2] == (4, 1) and by_name["cat"][2] == 0


@pytest.mark.parametrize("method", names())
def test_every_advised_experiment_can_be_loaded(method, tmp_path, monkeypatch):
    conf = shutil.copytree(CONF, tmp_path / "conf")
    name, content = experiment_of(Step(method=method, why="", settings=("guidance: {model: m/1}",)), "demo")
    (tmp_path / name).write_text(content)
    monkeypatch.setattr("semivl.config.experiment.CONF", conf)
    config = load((tmp_path / name).stem)
    assert config.method.name == method and create(config.method)
