"""The frozen evaluation set of a model: the images on which every challenger meets every champion.

It is the evaluation split of one snapshot, chosen at the model's first decision, and stays however the dataset grows,
so that scores compare and nobody moves the bar by adding images. `semivl freeze` moves it, deliberately and with a
reason; `gate.evaluation_snapshot` in an experiment outranks it.
"""

import logging
from collections.abc import Collection

from semivl.config import Config, Record
from semivl.data.snapshot import Snapshot, forgotten, head, read
from semivl.data.store import Store
from semivl.data.tables import where
from semivl.errors import DataError, RegistryError
from semivl.evaluation.scores import evaluation_rows, split_digest
from semivl.registry.reigns import now

_log = logging.getLogger(__name__)


class FrozenSet(Record):
    """Which images count for a model, and since when."""

    model: str
    dataset: str
    snapshot: str
    digest: str
    images: int
    since: str
    reason: str
    by: str | None = None


def frozen_set(store: Store, model: str) -> FrozenSet | None:
    """The set that is frozen for the model; None before its first decision."""
    found = store.get_with_etag(_key(model))
    return FrozenSet.model_validate_json(found[0]) if found else None


def freeze(store: Store, model: str, snapshot: Snapshot, reason: str, by: str | None = None) -> FrozenSet:
    """Makes the snapshot's evaluation images the ones that count from now on."""
    chosen = _described(model, snapshot, reason, by)
    store.put(_key(model), chosen.model_dump_json(indent=1).encode())
    return chosen


def evaluation_set(store: Store, config: Config, asked: str | None = None) -> tuple[Snapshot, str]:
    """The snapshot to compare on, and the digest that its evaluation images should have.

    Args:
        asked: a snapshot's version that was asked for; if its images are not the frozen ones, the gate refuses.

    Raises:
        DataError: DATA201, DATA202, DATA203 the snapshot that was asked for cannot be read.
        RegistryError: REG022 the frozen one cannot.
    """
    model, dataset = config.registered_model, config.data.dataset
    kept, pinned = frozen_set(store, model), config.gate.evaluation_snapshot
    if asked or pinned or kept is None:
        snapshot = read(store, dataset, asked or pinned or None)
    else:
        snapshot = _read_kept(store, kept)
        _tell_growth(store, kept)
    if config.gate.evaluation_digest:
        return snapshot, config.gate.evaluation_digest
    if pinned:
        return snapshot, split_digest(read(store, dataset, pinned))
    if kept is None:
        first = _described(model, snapshot, "the evaluation images of the model's first decision", None)
        store.put_if_absent(_key(model), first.model_dump_json(indent=1).encode())
        kept = frozen_set(store, model) or first
    return snapshot, kept.digest


def frozen_snapshots(store: Store, dataset: str) -> tuple[str, ...]:
    """Versions of the dataset that a frozen set is of, for `semivl gc` to keep; none that holds a forgotten sample."""
    kept = (FrozenSet.model_validate_json(store.get(key)) for key in store.list("frozen/"))
    gone = forgotten(store, dataset)
    return tuple(sorted({one.snapshot for one in kept if one.dataset == dataset and _may_stay(store, one, gone)}))


def _may_stay(store: Store, kept: FrozenSet, gone: Collection[str]) -> bool:
    try:
        index = read(store, kept.dataset, kept.snapshot).index
    except DataError:
        return False
    return not gone or len(where(index, "key", gone)) == 0


def _described(model: str, snapshot: Snapshot, reason: str, by: str | None) -> FrozenSet:
    manifest = snapshot.manifest
    return FrozenSet(
        model=model,
        dataset=manifest.dataset,
        snapshot=manifest.version,
        digest=split_digest(snapshot),
        images=len(evaluation_rows(snapshot, "val")),
        since=now(),
        reason=reason,
        by=by,
    )


def _read_kept(store: Store, kept: FrozenSet) -> Snapshot:
    try:
        return read(store, kept.dataset, kept.snapshot)
    except DataError as error:
        raise RegistryError(
            "REG022",
            f"the frozen evaluation set of {kept.model} cannot be read: {error.what}",
            "Choose another with `semivl freeze EXPERIMENT --reason ...`.",
        ) from None


def _tell_growth(store: Store, kept: FrozenSet) -> None:
    newest = head(store, kept.dataset)
    if newest in (None, kept.snapshot):
        return
    snapshot = read(store, kept.dataset, newest)
    if split_digest(snapshot) != kept.digest:
        _log.info(
            "%s is judged on its frozen set of %d evaluation images; snapshot %s has %d. `semivl freeze` moves it.",
            kept.model, kept.images, newest, len(evaluation_rows(snapshot, "val")),
        )  # fmt: skip


def _key(model: str) -> str:
    return f"frozen/{model}.json"
