"""Evaluation images that a training saw: the same bytes, or a picture that looks the same."""

from collections.abc import Sequence

import numpy as np

from semivl.config import Record
from semivl.data.near_duplicates import from_hex, is_flat, near_pairs
from semivl.data.quality_pairs import phashes
from semivl.data.sample import Row
from semivl.data.snapshot import Snapshot
from semivl.data.tables import compute, where

EXAMPLES = 5


class Overlap(Record):
    """What of a set of evaluation images is among the training images of a snapshot, with a mask or without."""

    dataset: str
    snapshot: str
    images: int
    """training images that were looked at"""
    exact: int
    """evaluation images whose bytes are among them"""
    near: int
    """further evaluation images that look like one of them"""
    examples: tuple[str, ...]


def overlap(evaluation: Sequence[Row], training: Snapshot, bits: int) -> Overlap:
    """The evaluation images that are in the snapshot's training split; quick at a million of these.

    Pictures look alike where their 64-bit perceptual hashes differ in at most `bits`. Those with next to nothing in
    them, whose hash tells nothing, are compared by their bytes alone.
    """
    import pyarrow as pa

    pc = compute()
    index = where(training.index, "split", ["train"])
    ours = pa.array([row.sha256 for row in evaluation], index["sha256"].type)
    exact = pc.is_in(ours, value_set=index["sha256"].combine_chunks()).to_numpy(zero_copy_only=False)
    hashes, theirs = from_hex(np.array([row.phash.encode() for row in evaluation], "S16")), phashes(index)
    left, right = np.flatnonzero(~exact & ~is_flat(hashes)), np.flatnonzero(~is_flat(theirs))
    twins: dict[int, int] = {}
    for first, second in near_pairs(hashes[left], theirs[right], bits):
        twins |= {int(left[a]): int(right[b]) for a, b in zip(first, second, strict=True)}
    named = [f"{row.source} is {training.manifest.dataset}'s training image too" for row in _picked(evaluation, exact)]
    sources = index["source"]
    named += [f"{evaluation[a].source} looks like {sources[b].as_py()}" for a, b in sorted(twins.items())]
    return Overlap(
        dataset=training.manifest.dataset,
        snapshot=training.manifest.version,
        images=len(index),
        exact=int(exact.sum()),
        near=len(twins),
        examples=tuple(named[:EXAMPLES]),
    )


def _picked(rows: Sequence[Row], chosen: np.ndarray) -> list[Row]:
    return [rows[place] for place in np.flatnonzero(chosen)[:EXAMPLES]]
