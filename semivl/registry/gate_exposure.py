"""Whether a model has seen the images that it is judged on, itself or through a model that it learned from."""

from collections.abc import Sequence

from semivl.config import Record
from semivl.data.sample import Row
from semivl.data.snapshot import read
from semivl.data.store import Store
from semivl.errors import DataError, RegistryError
from semivl.evaluation.overlap import Overlap, overlap
from semivl.registry.trained_on import TrainedOn, trained_on, untraced


class Exposure(Record):
    """What was found of the evaluation images in each snapshot that a version learned from."""

    overlaps: tuple[Overlap, ...]
    unknown: tuple[str, ...] = ()
    """why some of it cannot be known"""


def exposure(store: Store, model: str, version: int, rows: Sequence[Row], digest: str, bits: int) -> Exposure:
    """What the version's lineage holds of the evaluation images of that digest.

    What was found is kept in S3, so that it is still known when `semivl gc` has removed the snapshot.
    """
    try:
        seen, unknown = trained_on(model, version), list(untraced(model, version))
    except RegistryError as error:
        if error.code not in ("REG004", "REG020"):
            raise
        return Exposure(overlaps=(), unknown=(error.what,))
    found = []
    for one in {(each.dataset, each.snapshot): each for each in seen}.values():
        try:
            found.append(_held_against(store, one, rows, digest, bits))
        except DataError as error:
            learner = f"version {one.model_version} of {one.model}"
            unknown.append(f"{learner} learned from {one.dataset}@{one.snapshot}: {error.what}")
    return Exposure(overlaps=tuple(found), unknown=tuple(unknown))


def _held_against(store: Store, one: TrainedOn, rows: Sequence[Row], digest: str, bits: int) -> Overlap:
    key = f"overlaps/{digest}/{one.dataset}-{one.snapshot}-{bits}.json"
    kept = store.get_with_etag(key)
    if kept:
        return Overlap.model_validate_json(kept[0])
    found = overlap(rows, read(store, one.dataset, one.snapshot), bits)
    store.put_if_absent(key, found.model_dump_json(indent=1).encode())
    return found
