"""Whatever file of a checkpoint is damaged, here or in S3, the training goes on from the newest one that is whole."""

import shutil
import uuid
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from semivl.data.store import Store
from semivl.training.checkpoint import PARTS, STATE, load_checkpoint, name_of, newest_whole, save_checkpoint
from semivl.training.remote import NEWEST, fetch, latest, upload

STEPS = (1, 2, 3)
DAMAGE = st.tuples(st.sampled_from([*PARTS, STATE]), st.integers(0, 10**6), st.sampled_from(["cut", "flipped"]))
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def learner(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> tuple[Path, dict[int, torch.Tensor]]:
    """A folder with a checkpoint after each of three steps, and the weights of each."""
    folder, (model, optimizer) = tmp_path_factory.mktemp("kept"), learner()
    weights = {}
    for step in STEPS:
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        save_checkpoint(folder, step, model, optimizer)
        weights[step] = model.weight.detach().clone()
    return folder, weights


def damaged(body: bytes, place: int, how: str) -> bytes:
    """The bytes cut at a place, or with one bit there turned over."""
    at = place % len(body)
    return body[:at] if how == "cut" else body[:at] + bytes([body[at] ^ 1 << place % 8]) + body[at + 1 :]


def goes_on_from(folder: Path, weights: dict[int, torch.Tensor]) -> int:
    """The step that a new process goes on from, with that step's very weights."""
    found = newest_whole(folder)
    if found is None:
        return 0
    model, optimizer = learner(seed=9)
    step = load_checkpoint(found, model, optimizer)
    assert torch.equal(model.weight, weights[step])
    return step


@QUICK
@given(st.dictionaries(st.sampled_from(STEPS), DAMAGE))
def test_any_damage_on_disk_is_found_and_the_checkpoint_before_taken(kept, tmp_path, faults):
    folder, weights = tmp_path / uuid.uuid4().hex, kept[1]
    shutil.copytree(kept[0], folder)
    for step, (name, place, how) in faults.items():
        file = folder / name_of(step) / name
        file.write_bytes(damaged(file.read_bytes(), place, how))
    assert goes_on_from(folder, weights) == max((s for s in STEPS if s not in faults), default=0)


@QUICK
@given(st.dictionaries(st.sampled_from(STEPS), DAMAGE), st.none() | st.tuples(st.integers(0, 99), st.just("flipped")))
def test_any_damage_in_s3_is_found_and_the_checkpoint_before_taken(kept, store: Store, tmp_path, faults, pointer):
    key, weights = uuid.uuid4().hex, kept[1]
    for step in STEPS:
        upload(store, key, kept[0] / name_of(step), kept=3)
    for step, (name, place, how) in faults.items():
        object_ = f"checkpoints/{key}/{name_of(step)}/{name}"
        store.put(object_, damaged(store.get(object_), place, how))
    if pointer:
        store.put(f"checkpoints/{key}/{NEWEST}", damaged(store.get(f"checkpoints/{key}/{NEWEST}"), *pointer))
    folder = tmp_path / key
    fetch(store, key, folder)
    assert goes_on_from(folder, weights) == max((s for s in STEPS if s not in faults), default=0)


def test_a_lost_object_is_passed_over_too(kept, store: Store, tmp_path):
    for step in STEPS:
        upload(store, "lost", kept[0] / name_of(step), kept=3)
    store.delete(f"checkpoints/lost/{name_of(3)}/{PARTS[0]}")
    fetch(store, "lost", tmp_path)
    assert goes_on_from(tmp_path, kept[1]) == 2


def test_a_copy_that_nothing_points_to_yet_is_not_taken(kept, store: Store, tmp_path):
    upload(store, "early", kept[0] / name_of(2), kept=2)
    for name in (*PARTS, STATE):
        store.put(f"checkpoints/early/{name_of(3)}/{name}", kept[0] / name_of(3) / name)
    fetch(store, "early", tmp_path)
    assert goes_on_from(tmp_path, kept[1]) == 2


def test_s3_keeps_the_newest_few_and_nothing_beyond_the_newest(kept, store: Store):
    for step in (1, 3, 2):  # 3 is what a training left that then went on from before it
        upload(store, "few", kept[0] / name_of(step), kept=2)
    held = {key.split("/")[2] for key in store.list("checkpoints/few/")}
    assert held == {NEWEST, name_of(1), name_of(2)}


def test_damaged_ones_are_dropped_before_the_training_goes_on(kept, store: Store, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(kept[0], folder)
    (folder / name_of(3) / STATE).unlink()
    assert latest(store, "dropped", folder, kept=2) == folder / name_of(2)
    assert not (folder / name_of(3)).exists()
