"""The table `pairs`: pictures of a snapshot that look alike, found by their perceptual hashes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from semivl.data.near_duplicates import Pairs, from_hex, is_flat, near_pairs, near_pairs_within
from semivl.data.snapshot import Snapshot
from semivl.data.tables import compute

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FARTHEST = 8
"""bits that two pictures may be apart to be looked for"""
MOST = 200_000
"""pairs. So many are a fault of the source, and more of them tell nothing new: the search ends there and says so"""


@dataclass(frozen=True)
class Alike:
    """What a search for pictures that look alike gave."""

    table: "pd.DataFrame"
    """a row a pair, those across the splits first, of which the evaluation sample comes first; then the nearest"""
    complete: bool
    """False: there are more than MOST pairs, those across splits being searched first"""
    searched: bool
    """False: no rule of the suite looks at pairs"""
    flat: int
    """pictures that were not looked at: one colour or nearly so, whose hashes tell nothing of them"""


def find_alike(snapshot: Snapshot, distance: int) -> Alike:
    """The pairs of pictures whose hashes differ in at most `distance` bits."""
    pc = compute()

    hashes = phashes(snapshot.index)
    val = pc.equal(snapshot.index["split"], "val").to_numpy()
    flat = is_flat(hashes)
    parts, found = [(np.zeros(0, np.int64), np.zeros(0, np.int64))], 0
    for pairs in _searched(hashes, np.flatnonzero(val & ~flat), np.flatnonzero(~val & ~flat), distance):
        parts.append(pairs)
        found += len(pairs[0])
        if found > MOST:
            break
    first, second = map(np.concatenate, zip(*parts, strict=True))
    bits = np.bitwise_count(hashes[first] ^ hashes[second])
    order = np.lexsort((second, first, bits, val[first] == val[second]))[:MOST]
    return Alike(
        _pair_table(snapshot.index, first[order], second[order], bits[order]),
        found <= MOST,
        distance >= 0,
        int(flat.sum()),
    )


def phashes(index: "pa.Table") -> np.ndarray:
    """(N,) uint64, the column `phash`."""
    import pyarrow as pa

    digits = index["phash"].cast(pa.binary()).cast(pa.binary(16)).combine_chunks()
    return from_hex(np.frombuffer(digits.buffers()[1] or b"", "S16")[digits.offset : digits.offset + len(digits)])


def _searched(hashes: np.ndarray, val: np.ndarray, train: np.ndarray, distance: int) -> Iterator[Pairs]:
    for first, second in near_pairs(hashes[val], hashes[train], distance):
        yield val[first], train[second]
    for split in (val, train):
        for first, second in near_pairs_within(hashes[split], distance):
            yield split[first], split[second]


def _pair_table(index: "pa.Table", first: np.ndarray, second: np.ndarray, bits: np.ndarray) -> "pd.DataFrame":
    import pandas as pd

    columns = ["key", "source", "split"]
    one, other = (index.select(columns).take(side).to_pandas() for side in (first, second))
    table = pd.concat([one, other.add_prefix("other_")], axis=1)
    across = table["split"] != table["other_split"]
    table["name"] = _told(one) + " and " + _told(other)
    table["across_splits"] = pd.Series(bits, dtype=float).where(across)
    table["within_split"] = pd.Series(bits, dtype=float).where(~across)
    return table


def _told(samples: "pd.DataFrame") -> Any:
    return samples["split"] + " " + samples["key"] + " " + samples["source"]
