"""Checkpoints: weights, optimiser state and step, so that a killed training goes on as if nothing had happened.

A checkpoint is a folder `step-00000100` with model.safetensors, optimizer.safetensors and state.json, which names
the hashes of the other two and of itself. All of it is written under a temporary name, synced to the disk and renamed
when whole; one that does not match its hashes is passed over for the one before. The random state needs no place in
it: every draw follows from the seed and the step. Copies in S3: semivl.training.remote.

The newest few are kept. There is no best one: a training scores nothing on the way, so nothing would tell which.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from semivl.methods import evolving_state

PARTS = ("model.safetensors", "optimizer.safetensors")
STATE = "state.json"


def save_checkpoint(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
    """Writes the checkpoint of a finished step and returns its folder."""
    final = folder / name_of(step)
    partial = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in evolving_state(model).items()}, partial / PARTS[0])
    save_file(_optimizer_tensors(optimizer), partial / PARTS[1])
    (partial / STATE).write_bytes(_state(step, {name: _sha256(partial / name) for name in PARTS}))
    for name in (*PARTS, STATE):
        _sync(partial / name)
    _sync(partial)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _sync(folder)
    return final


def name_of(step: int) -> str:
    """The folder's name of the checkpoint after `step` steps."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int:
    """The steps that a checkpoint has done, by its folder's name."""
    return int(path.name.removeprefix("step-"))


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first, whole or not."""
    return sorted(folder.glob("step-*"), reverse=True)


def keep_newest(folder: Path, kept: int) -> None:
    """Drops all but the newest few."""
    for old in checkpoints(folder)[kept:]:
        shutil.rmtree(old)


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint whose files match their hashes."""
    return next((c for c in checkpoints(folder) if is_whole(c)), None)


def is_whole(path: Path) -> bool:
    """Whether all files of a checkpoint are there, as they were written."""
    try:
        body = (path / STATE).read_bytes()
        told = json.loads(body)
        own = _state(told["step"], told["sha256"]) == body and name_of(told["step"]) == path.name
        return own and all(_sha256(path / name) == told["sha256"][name] for name in PARTS)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Puts the checkpoint's weights and optimiser state in place and returns the number of steps done."""
    weights = load_file(path / PARTS[0])
    for name, tensor in evolving_state(model).items():
        tensor.copy_(weights[name])
    tensors = load_file(path / PARTS[1])
    saved: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        place, key = name.split(".", 1)
        saved.setdefault(int(place), {})[key] = tensor
    optimizer.load_state_dict({"state": saved, "param_groups": optimizer.state_dict()["param_groups"]})
    return step_of(path)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{place}.{key}": value for place, values in state.items() for key, value in values.items()}


def _state(step: int, hashes: dict[str, str]) -> bytes:
    """state.json, whose last field is the hash of the others."""
    told = {"step": step, "sha256": hashes}
    return json.dumps(told | {"own": hashlib.sha256(json.dumps(told).encode()).hexdigest()}).encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Has the disk hold what was written to a file, or the names that were given in a folder."""
    held = os.open(path, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)
