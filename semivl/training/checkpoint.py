"""Checkpoints: weights, optimiser state and step, so that a killed training goes on as if nothing had happened.

A checkpoint is a folder `step-00000100` with model.safetensors, optimizer.safetensors and state.json, which names
the hashes of the other two and is written last. The folder is made under a temporary name and renamed when whole;
one that does not match its hashes is passed over for the one before. The random state needs no place in it: every
draw follows from the seed and the step.

Each is copied to S3 under checkpoints/KEY/, its state.json last, so that another machine can go on from it.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from semivl.data.store import Store
from semivl.methods import evolving_state

KEPT = 2
PARTS = ("model.safetensors", "optimizer.safetensors")


def save_checkpoint(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
    """Writes the checkpoint of a finished step, drops all but the newest two, and returns its folder."""
    final = folder / f"step-{step:08d}"
    partial = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in evolving_state(model).items()}, partial / PARTS[0])
    save_file(_optimizer_tensors(optimizer), partial / PARTS[1])
    hashes = {name: _sha256(partial / name) for name in PARTS}
    _write_synced(partial / "state.json", json.dumps({"step": step, "sha256": hashes}).encode())
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    for old in checkpoints(folder)[KEPT:]:
        shutil.rmtree(old)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first, whole or not."""
    return sorted(folder.glob("step-*"), reverse=True)


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint whose files match their hashes."""
    return next((c for c in checkpoints(folder) if _is_whole(c)), None)


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
    return int(json.loads((path / "state.json").read_text())["step"])


def upload(store: Store, key: str, path: Path) -> None:
    """Copies a checkpoint to S3, then drops those before the newest two there."""
    for name in (*PARTS, "state.json"):
        store.put(f"checkpoints/{key}/{path.name}/{name}", path / name)
    for old in sorted(_remote(store, key), reverse=True)[KEPT:]:
        for name in ("state.json", *PARTS):
            store.delete(f"checkpoints/{key}/{old}/{name}")


def fetch(store: Store, key: str, folder: Path) -> None:
    """Brings the checkpoints of S3 that are newer than any whole one in `folder`, newest first, until one is whole."""
    have = newest_whole(folder)
    for name in sorted(_remote(store, key), reverse=True):
        if have and name <= have.name:
            return
        (folder / name).mkdir(parents=True, exist_ok=True)
        for part in (*PARTS, "state.json"):
            store.download(f"checkpoints/{key}/{name}/{part}", folder / name / part)
        if _is_whole(folder / name):
            return


def _remote(store: Store, key: str) -> set[str]:
    """Names of the checkpoints in S3 that were copied whole."""
    found = (k.split("/") for k in store.list(f"checkpoints/{key}/"))
    return {parts[2] for parts in found if parts[3:] == ["state.json"]}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{place}.{key}": value for place, values in state.items() for key, value in values.items()}


def _is_whole(path: Path) -> bool:
    try:
        hashes = json.loads((path / "state.json").read_text())["sha256"]
        return all(_sha256(path / name) == hashes[name] for name in PARTS)
    except (OSError, ValueError, KeyError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return digest


def _write_synced(path: Path, body: bytes) -> None:
    with path.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
