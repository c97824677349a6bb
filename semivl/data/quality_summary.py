"""A validation in sentences: what the snapshot holds, and what changed since its parent."""

from typing import TYPE_CHECKING

import numpy as np

from semivl.data.manifest import Manifest, read_quarantine
from semivl.data.quality_pairs import MOST, Alike
from semivl.data.snapshot import Snapshot
from semivl.data.store import Store

if TYPE_CHECKING:
    import pandas as pd

_TOLD_CLASSES = 3
_TOLD_CHANGE = 0.005
"""half a point: a smaller change of a class's share is not worth a word"""


def summary(
    snapshot: Snapshot, parent: Snapshot | None, classes: "pd.DataFrame", alike: Alike, refused: "pd.DataFrame"
) -> tuple[str, ...]:
    """One sentence or two each on samples, their change, classes, light and size, look-alikes, and files left out."""
    sentences = [
        _samples(snapshot.manifest),
        _change(snapshot.manifest, parent),
        _classes(classes) if parent else "",
        _light_and_size(snapshot, parent),
        _alike(alike),
        _left_out(refused),
    ]
    return tuple(sentence for sentence in sentences if sentence)


def left_out(store: Store, manifest: Manifest) -> "pd.DataFrame":
    """The quarantine of the ingest that made the snapshot: source, code, reason, bytes (empty where not known)."""
    import pandas as pd

    rows = [vars(q) for q in read_quarantine(store, manifest)]
    return pd.DataFrame(rows, columns=["source", "code", "reason", "bytes"])


def _samples(manifest: Manifest) -> str:
    counts = manifest.counts
    masks, train = counts.get("train/mask", 0), counts.get("train", 0)
    kinds = [
        (counts.get("train/tags", 0), "without one but with tags"),
        (counts.get("train/caption", 0), "with a caption alone"),
    ]
    others = "".join(f", {number:,} {words}" for number, words in kinds if number)
    return (
        f"{manifest.samples:,} samples: {train:,} to train on, {masks:,} of them with a mask{others}, "
        f"and {counts.get('val', 0):,} to evaluate on."
    )


def _change(manifest: Manifest, parent: Snapshot | None) -> str:
    if manifest.parent is None:
        return "It is the first snapshot of the dataset, so that there is none to compare it with."
    if parent is None:
        return f"Its parent {manifest.parent} is no longer kept, so that there is none to compare it with."
    counts, before = manifest.counts, parent.manifest.counts
    kinds = [
        f"{counts.get(kind, 0) - before.get(kind, 0):+,} {words}"
        for kind, words in (("train/mask", "training masks"), ("train", "training samples"), ("val", "for evaluation"))
        if counts.get(kind, 0) != before.get(kind, 0)
    ]
    told = f"Since its parent {parent.manifest.version}: {', '.join(kinds) or 'as many samples of every kind'}"
    if manifest.added is None:
        return f"{told}."
    return f"{told}; {manifest.added:,} added, {manifest.changed or 0:,} changed, {manifest.removed or 0:,} forgotten."


def _classes(classes: "pd.DataFrame") -> str:
    figures = zip(classes["name"], classes["share"], classes["share_change"], strict=True)
    moved = sorted((f for f in figures if abs(f[2]) >= _TOLD_CHANGE), key=lambda f: -abs(f[2]))[:_TOLD_CLASSES]
    told = [f"{name} {100 * (share - change):.1f} to {100 * share:.1f} %" for name, share, change in moved]
    if not told:
        return "No class's share of the labelled training pixels moved by half a point."
    return f"Of the labelled training pixels: {', '.join(told)}; these moved most."


def _light_and_size(snapshot: Snapshot, parent: Snapshot | None) -> str:
    here = _median_picture(snapshot)
    if parent is None:
        return f"The median picture has {here}."
    before = _median_picture(parent)
    return (
        f"The median picture has {here}, as before."
        if before == here
        else f"The median picture has {here}; before, {before}."
    )


def _median_picture(snapshot: Snapshot) -> str:
    columns = {name: snapshot.index[name].drop_null().to_numpy() for name in ("width", "height", "brightness")}
    medians = {name: float(np.median(column)) for name, column in columns.items() if len(column)}
    told = "{width:.0f} x {height:.0f} pixels".format(**medians)
    return told + (" and a brightness of {brightness:.0f} of 255".format(**medians) if "brightness" in medians else "")


def _alike(alike: Alike) -> str:
    if not alike.searched:
        return "Pictures that look alike were not searched for: no rule of the suite looks at pairs."
    across = alike.table["across_splits"].count()
    told = f"{across:,} pairs of pictures look alike across the splits, {len(alike.table) - across:,} within one"
    if not alike.complete:
        told += f"; the search ended at {MOST:,} pairs"
    if alike.flat:
        told += f"; {alike.flat:,} pictures of one colour, or nearly so, could not be compared"
    return f"{told}."


def _left_out(refused: "pd.DataFrame") -> str:
    if not len(refused):
        return "No file was left out."
    codes = refused["code"].value_counts().sort_index()
    return f"{len(refused):,} files were left out: {', '.join(f'{code} {n:,}' for code, n in codes.items())}."
