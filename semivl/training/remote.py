"""Copies of checkpoints in S3, under checkpoints/KEY/, so that another machine can go on from them.

The object `newest` there is put last and names the newest checkpoint that is copied whole: what is copied beyond it is
unfinished. A copy that does not match its hashes is passed over for the one before.
"""

import hashlib
import json
import logging
import shutil
from pathlib import Path

from semivl.data import ranks
from semivl.data.store import Store
from semivl.errors import StoreError
from semivl.training.checkpoint import PARTS, STATE, checkpoints, is_whole, name_of, newest_whole, step_of

log = logging.getLogger(__name__)
NEWEST = "newest"
_DAMAGED = {"STORE003", "STORE007"}
"""an object that is not there, or not as it was put"""


def upload(store: Store, key: str, path: Path, kept: int) -> None:
    """Copies a checkpoint to S3, points to it, then drops there all but the newest `kept`."""
    for name in (*PARTS, STATE):
        store.put(f"checkpoints/{key}/{path.name}/{name}", path / name)
    store.put(f"checkpoints/{key}/{NEWEST}", _pointer(path.name))
    before = sorted((name for name in _copied(store, key) if name <= path.name), reverse=True)
    for old in _copied(store, key) - set(before[:kept]):
        for name in (STATE, *PARTS):
            store.delete(f"checkpoints/{key}/{old}/{name}")


def fetch(store: Store, key: str, folder: Path) -> None:
    """Brings the checkpoints of S3 that are newer than any whole one in `folder`, newest first, until one is whole."""
    have = newest_whole(folder)
    for name in _candidates(store, key):
        if have and name <= have.name:
            return
        try:
            (folder / name).mkdir(parents=True, exist_ok=True)
            for part in (*PARTS, STATE):
                store.download(f"checkpoints/{key}/{name}/{part}", folder / name / part)
        except StoreError as error:
            if error.code not in _DAMAGED:
                raise
        if is_whole(folder / name):
            return
        log.warning("checkpoint %s in S3 is damaged; the one before it is looked at", name)
        shutil.rmtree(folder / name)


def latest(store: Store, key: str, folder: Path, kept: int) -> Path | None:
    """The newest whole checkpoint of this machine or S3, the same on every rank; damaged newer ones are dropped.

    Rank 0 decides. What only its machine has it copies to S3 first, where the others' machines find it.
    """
    found = _found(store, key, folder, kept) if ranks.rank() == 0 else None
    step = ranks.of_first(step_of(found) if found else 0)
    if not step:
        return None
    path = folder / name_of(step)
    if not is_whole(path):
        fetch(store, key, folder)
    return path


def _found(store: Store, key: str, folder: Path, kept: int) -> Path | None:
    fetch(store, key, folder)
    found = newest_whole(folder)
    for path in checkpoints(folder):
        if found is None or path.name > found.name:
            shutil.rmtree(path)
    if found and ranks.world() > 1 and found.name != _pointed_to(store, key):
        upload(store, key, found, kept)
    return found


def _candidates(store: Store, key: str) -> list[str]:
    """Names of the checkpoints in S3, newest first: that which is pointed to, and those before it."""
    copied = _copied(store, key)
    newest = _pointed_to(store, key) or max(copied, default="")  # without a pointer their own hashes decide
    return sorted((name for name in copied if name <= newest), reverse=True)


def _pointed_to(store: Store, key: str) -> str | None:
    """None where nothing is pointed to, or the pointer is damaged."""
    try:
        body = store.get(f"checkpoints/{key}/{NEWEST}")
        name = json.loads(body)["newest"]
        return name if _pointer(name) == body else None
    except StoreError as error:
        if error.code not in _DAMAGED:
            raise
    except (ValueError, KeyError, TypeError):
        log.warning("what points to the newest checkpoint in S3 is damaged")
    return None


def _pointer(name: str) -> bytes:
    return json.dumps({"newest": name, "own": hashlib.sha256(name.encode()).hexdigest()}).encode()


def _copied(store: Store, key: str) -> set[str]:
    """Names of the checkpoints of which S3 has something."""
    found = (k.split("/") for k in store.list(f"checkpoints/{key}/"))
    return {parts[2] for parts in found if len(parts) == 4}
