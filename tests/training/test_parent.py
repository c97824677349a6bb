"""A warm start: the parent's weights are in place at the first step, and what is frozen keeps them after a kill."""

import uuid
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from semivl.config import Classes, MethodConfig, Parent, load
from semivl.data.ingest import ingest
from semivl.data.snapshot import read
from semivl.errors import TrainingError
from semivl.methods import create, inference_state
from semivl.training.bundle import WEIGHTS, save_bundle, train_key
from semivl.training.checkpoint import newest_whole
from semivl.training.parent import load_parent
from semivl.training.trainer import train
from tests.loop import parameters
from tests.tiny import CLASSES, SHAPE, tiny_vlm

FROZEN = "encoder.blocks.0.fc.weight"
"""what learns with `trains: all` and not with `spatial`"""
AVERAGED = MethodConfig(name="semivl", settings={"decoder": SHAPE.model_dump(), "average": True})


def config_with(method: MethodConfig = AVERAGED, classes: Classes = CLASSES):
    return load("demo").model_copy(update={"method": method, "classes": classes})


def built(method: MethodConfig = AVERAGED, seed: int = 0, **shape):
    vlm = tiny_vlm(seed, **shape)
    return create(method).build(CLASSES, vlm, True, vlm), vlm.student().architecture


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    model, encoder = built(seed=7)
    torch.nn.init.normal_(model.decoder.head.weight if hasattr(model.decoder, "head") else next(model.parameters()))
    save_bundle(tmp_path / "parent", config_with(), model, encoder)
    return tmp_path / "parent"


def test_weights_of_the_parent_are_in_the_model_and_its_average_but_not_in_the_guide(parent: Path) -> None:
    model, encoder = built(seed=1)
    text, guide = model.text.clone(), {k: v.clone() for k, v in model.get_submodule("teacher").state_dict().items()}
    load_parent(parent, config_with(), model, encoder)
    wanted = load_file(parent / WEIGHTS)
    for state in (inference_state(model), {k: v for k, v in model.state_dict().items() if k in wanted}):
        assert all(torch.equal(v, wanted[k]) for k, v in state.items() if k != "text")
    assert torch.equal(model.text, text) and not torch.equal(text, wanted["text"])
    assert all(torch.equal(v, guide[k]) for k, v in model.get_submodule("teacher").state_dict().items())


def test_parent_of_another_kind_is_refused_and_the_difference_named(parent: Path) -> None:
    model, encoder = built()
    wider = MethodConfig(name="semivl", settings={"decoder": SHAPE.model_dump() | {"channels": 32}, "average": True})
    others = [c.model_copy(update={"name": c.name.upper()}) for c in CLASSES.classes]
    wide, wide_encoder = built(width=32)
    for config, into, its, named in (
        (config_with(MethodConfig(name="unimatch", settings={})), model, encoder, "method semivl, not unimatch"),
        (config_with(classes=Classes(classes=tuple(others))), model, encoder, "class 0"),
        (config_with(), wide, wide_encoder, "width 16, not 32"),
        (config_with(wider), built(wider)[0], encoder, "other names or shapes"),
    ):
        with pytest.raises(TrainingError, match=named) as caught:
            load_parent(parent, config, into, its)
        assert caught.value.code == "TRAIN010"


def test_train_key_names_the_parent_by_its_training() -> None:
    config = load("demo")
    keys = {train_key(config, "v1")}
    for parent in (
        Parent(version=1, train_key="a"),
        Parent(version=1, train_key="b"),
        Parent(version=2, train_key="a"),
    ):
        named = config.train.model_copy(update={"parent": parent})
        keys.add(train_key(config.model_copy(update={"train": named}), "v1"))
    assert len(keys) == 4


class StoppedError(Exception):
    """What ends a training at its first checkpoint."""


class Stops:
    def __init__(self, at_checkpoint: bool) -> None:
        self.at_checkpoint = at_checkpoint

    def samples(self, told) -> None: ...

    def metrics(self, step, values): ...

    def previews(self, step, images): ...

    def checkpoint(self, step, path):
        if self.at_checkpoint:
            raise StoppedError

    def artifact(self, path): ...


def test_a_killed_warm_training_ends_as_an_unbroken_one_where_its_parent_learned_what_it_leaves_frozen(
    store, tmp_path: Path
) -> None:
    given = parameters(f"t-{uuid.uuid4().hex[:8]}", steps=8)
    config = load(given["experiment"], given["overrides"])
    ingest(config.data, config.classes)
    snapshot = read(store, config.data.dataset)

    def trained(name: str, parent: Path | None, trains: str = "spatial", stops: bool = False) -> Path:
        for key in list(store.list("checkpoints/")):
            store.delete(key)
        settings = config.method.settings | {"trains": trains}
        chosen = config.model_copy(update={"method": MethodConfig(name="supervised", settings=settings)})
        return train(chosen, snapshot, store, tmp_path / name, Stops(stops), parent)

    parent = trained("parent", None, trains="all")
    unbroken = trained("unbroken", parent) / WEIGHTS
    assert unbroken.read_bytes() != (parent / WEIGHTS).read_bytes()
    fresh, kept, learned = (
        load_file(path / WEIGHTS)[FROZEN] for path in (trained("fresh", None), unbroken.parent, parent)
    )
    assert torch.equal(kept, learned) and not torch.equal(kept, fresh), "the parent learned it, the training did not"
    with pytest.raises(StoppedError):
        trained("broken", parent, stops=True)
    assert newest_whole(tmp_path / "broken")
    assert (trained("broken", parent) / WEIGHTS).read_bytes() == unbroken.read_bytes()
