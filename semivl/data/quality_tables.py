"""The tables that the rules of a suite look at, made of a snapshot's index column by column, no object a row.

`samples` has a row a sample, `classes` a row a class, `pairs` a row for two pictures that look alike. In every table
`name` is what a message calls a row. A cell is empty where its column does not hold for the row: the expectations pass
over it. docs/validation.md says what each column is.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from semivl.data.sample import SPLITS
from semivl.data.snapshot import Snapshot
from semivl.data.tables import compute
from semivl.data.tags import classes_by_tag

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_KEPT = ("key", "sha256", "split", "supervision", "caption", "width", "height", "brightness", "image_bytes", "ignored")
_MADE = ("train_mask", "val", "val_supervision", "splits", "uncounted_classes", "labelled", "uncovered", "strange_tag")
_OF_CLASSES = ("train_masks", "val_masks", "seen_in_train", "only_in_val", "in_no_mask", "share", "share_change")
_OF_PAIRS = ("key", "source", "split", "other_key", "other_source", "other_split", "across_splits", "within_split")
COLUMNS = {
    "samples": ("name", *_KEPT, *_MADE),
    "classes": ("name", *_OF_CLASSES),
    "pairs": ("name", *_OF_PAIRS),
}
_ROWS_AT_ONCE = 1 << 16
"""a million masks of 150 classes are more numbers than should be in memory twice"""


def sample_table(snapshot: Snapshot) -> "pd.DataFrame":
    """A row a sample."""
    index = snapshot.index
    table = index.select(["source", *_KEPT]).to_pandas().rename(columns={"source": "name"})
    masked, val = table["supervision"] == "mask", table["split"] == "val"
    lengths, labelled = _counted(index)
    table["train_mask"] = (masked & ~val).astype(int)
    table["val"] = val.astype(int)
    table["val_supervision"] = table["supervision"].where(val)
    table["splits"] = _splits_of_keys(table)
    table["uncounted_classes"] = abs(lengths - len(snapshot.manifest.classes))
    table["labelled"] = labelled
    table["uncovered"] = table["width"].astype("int64") * table["height"] - labelled - table["ignored"]
    for column in ("uncounted_classes", "labelled", "uncovered"):
        table[column] = table[column].where(masked)
    table["strange_tag"] = _strange_tags(index, set(classes_by_tag(snapshot.manifest.classes)))
    return table


def _strange_tags(index: "pa.Table", known: set[str]) -> np.ndarray:
    """(n,) the first tag of each row that stands for no class; None where each does."""
    pc = compute()
    import pyarrow as pa

    tags = index["tags"].combine_chunks()
    words, owners = pc.list_flatten(tags), pc.list_parent_indices(tags).to_numpy()
    strange = [word for word in pc.unique(words).to_pylist() if word.casefold() not in known]
    places = np.flatnonzero(pc.is_in(words, pa.array(strange, pa.string())).to_numpy(zero_copy_only=False))
    rows, first = np.unique(owners[places], return_index=True)
    found = np.full(len(index), None, object)
    found[rows] = words.take(pa.array(places[first])).to_pylist()
    return found


def class_table(snapshot: Snapshot, parent: Snapshot | None) -> "pd.DataFrame":
    """A row a class: in how many masks of each split it is seen, and its share of the labelled training pixels."""
    import pandas as pd

    classes = len(snapshot.manifest.classes)
    masks, share = class_figures(snapshot)
    table = pd.DataFrame({"name": snapshot.manifest.classes.names})
    for split in SPLITS:
        table[f"{split}_masks"] = masks[split]
    missing = table["train_masks"] == 0
    table["seen_in_train"] = table["train_masks"].where(~missing)
    table["only_in_val"] = table["name"].where(missing & (table["val_masks"] > 0))
    table["in_no_mask"] = table["name"].where(missing & (table["val_masks"] == 0))
    table["share"] = share
    table["share_change"] = share - class_figures(parent)[1] if parent else np.full(classes, np.nan)
    return table


def class_figures(snapshot: Snapshot) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(N,) masks that show each class by split, and (N,) its share, 0 to 1, of the labelled training pixels."""
    pc = compute()

    classes = len(snapshot.manifest.classes)
    masks = {split: np.zeros(classes, np.int64) for split in SPLITS}
    pixels = np.zeros(classes)
    for part, lengths, values in _pixel_lists(snapshot.index):
        ends = np.cumsum(lengths)
        ids = np.arange(len(values)) - np.repeat(ends - lengths, lengths)
        seen = (values > 0) & (ids < classes)  # a mask counted by another class map is DATA319's to tell
        for split, counts in masks.items():
            of_split = seen & np.repeat(pc.equal(part["split"], split).to_numpy(), lengths)
            counts += np.bincount(ids[of_split], minlength=classes)
            if split == "train":
                pixels += np.bincount(ids[of_split], weights=values[of_split], minlength=classes)
    return masks, pixels / max(pixels.sum(), 1)


def _counted(index: "pa.Table") -> tuple[np.ndarray, np.ndarray]:
    """(n,) classes by which each mask was counted, and (n,) its labelled pixels."""
    lengths, sums = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for _, counts, values in _pixel_lists(index):
        totals = np.concatenate([[0], np.cumsum(values)])
        ends = np.cumsum(counts)
        lengths.append(counts)
        sums.append(totals[ends] - totals[ends - counts])
    return np.concatenate(lengths), np.concatenate(sums)


def _pixel_lists(index: "pa.Table") -> Iterator[tuple["pa.Table", np.ndarray, np.ndarray]]:
    """The index in parts, with (n,) how long each row's `pixels` are, and all of them on end."""
    pc = compute()

    index = index.select(["split", "pixels"])
    for first in range(0, len(index), _ROWS_AT_ONCE):
        part = index.slice(first, _ROWS_AT_ONCE)
        lengths = pc.fill_null(pc.list_value_length(part["pixels"]), 0).to_numpy().astype(np.int64)
        yield part, lengths, pc.list_flatten(part["pixels"]).to_numpy().astype(np.int64, copy=False)


def _splits_of_keys(table: "pd.DataFrame") -> "pd.Series":
    """In how many splits each row's key is; looked at only where a key stands twice."""
    import pandas as pd

    splits = pd.Series(1, index=table.index)
    double = table.duplicated("key", keep=False)
    splits[double] = table[double].groupby("key")["split"].transform("nunique")
    return splits
