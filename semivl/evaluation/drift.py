"""Drift: whether new images are still such as the champion learned from.

Three kinds of test, each by permutation (semivl.evaluation.mmd): the embedding of the whole image, the classes that the
champion predicts in it, and four plain figures. What is compared are images, never pixels: those of one image are
alike, and a chi-square over all pixels, which counts each as independent, would find a drift between any two sets.

The threshold of every test is `false_alarms` by the number of tests (Bonferroni), so that a comparison of equal sets
tells of a drift no more often than that, however the tests hang together.
"""

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from pydantic import ValidationError

from semivl.config import DriftConfig, Record
from semivl.data.snapshot import Snapshot
from semivl.data.store import Store
from semivl.data.tables import compute, found_in, keys_of
from semivl.evaluation.mmd import Tested, ks_test, mmd_test

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["embedding", "classes", "images"]
_UNITS = {"brightness": "of 255", "width": "pixels", "height": "pixels", "aspect": "width by height"}
_TOLD_CLASSES, _DIGITS = 3, 5


class DriftTest(Record):
    """One test. `words` say what moved."""

    name: str
    kind: Kind
    statistic: float
    """MMD^2 of embeddings and classes, the Kolmogorov-Smirnov distance of single figures"""
    p_value: float
    threshold: float
    """a p-value that is not above it is an alarm"""
    drifted: bool
    words: str


class Drift(Record):
    """What was found of two sets of images. No test at all: no verdict, and `left_out` says why."""

    dataset: str
    reference: str
    current: str
    reference_images: int
    current_images: int
    """new ones: those of the current snapshot that the reference does not hold"""
    compared: tuple[int, int]
    """images of each side that were looked at, at most `drift.images`"""
    false_alarms: float
    tests: tuple[DriftTest, ...]
    drifted: bool
    left_out: tuple[str, ...] = ()
    """what was not tested, and why"""
    class_shares: dict[str, tuple[float, float]]
    """mean share of an image that the champion gives to a class, before and now; empty without a champion"""
    points: tuple[tuple[float, float, bool], ...]
    """the images on the first two principal components of their embeddings; True is new"""
    digest: str = ""
    """of the settings and models that this was found with"""


class Measured(NamedTuple):
    """What is compared of one side."""

    images: int
    """all there are; the fields below are of those that were drawn"""
    embedding: np.ndarray
    """(n, D)"""
    figures: dict[str, np.ndarray]
    """(n,) each, see `figures`"""
    shares: np.ndarray | None
    """(k, N), of images whose masks the champion did not learn from; None without a champion"""


class Found(NamedTuple):
    """The tests, what was left out of them and why, and the class shares."""

    tests: tuple[DriftTest, ...]
    left_out: tuple[str, ...]
    class_shares: dict[str, tuple[float, float]]


def new_samples(reference: Snapshot, current: Snapshot) -> "pa.Table":
    """The rows of the current snapshot's samples that the reference does not hold."""
    held, _ = found_in(keys_of(reference.index), keys_of(current.index))
    return current.index.take(np.flatnonzero(~held))


def drawn(index: "pa.Table", most: int) -> "pa.Table":
    """The rows, or `most` of them at random: the same tomorrow, and nearly the same when others have come.

    Keys are hashes. Read backwards they give an order that has nothing to do with the images, nor with the split, which
    the beginning of the hash decides.
    """
    letters = keys_of(index).view(np.uint8).reshape(len(index), 16)
    backwards = np.ascontiguousarray(letters[:, ::-1]).view("S16").ravel()
    return index.take(np.argsort(backwards, kind="stable")[:most])


def not_fitted(index: "pa.Table") -> "pa.Table":
    """The rows without those whose masks a training learns from: a model sees more in what it knows by heart."""
    pc = compute()
    fitted = pc.and_(pc.equal(index["split"], "train"), pc.equal(index["supervision"], "mask"))
    return index.filter(pc.invert(fitted))


def figures(index: "pa.Table") -> dict[str, np.ndarray]:
    """Brightness (0 to 255), width, height (pixels) and aspect (width by height) of every image."""
    brightness, width, height = (index[name].to_numpy().astype(float) for name in ("brightness", "width", "height"))
    return {"brightness": brightness, "width": width, "height": height, "aspect": width / np.maximum(height, 1)}


def compare(before: Measured, now: Measured, classes: tuple[str, ...], config: DriftConfig) -> Found:
    """The tests of the two sides; none where either has too few images for a verdict."""
    for what, side in (("new images", now), ("images in the reference", before)):
        if side.images < config.min_new:
            return Found((), (f"no verdict: {side.images} {what}, and drift.min_new is {config.min_new}",), {})
    said: list[tuple[str, Kind, Tested, str]] = [_embedding_test(before, now, config)]
    left_out, shares = (), {}
    if before.shares is None or now.shares is None:
        left_out = ("predicted classes: there is no champion to predict them",)
    elif min(len(before.shares), len(now.shares)) < config.min_new:
        counts = f"{len(before.shares)} before and {len(now.shares)} new"
        left_out = (f"predicted classes: {counts} images whose masks nobody learned from, fewer than drift.min_new",)
    else:
        shares = {
            name: (float(old), float(new))
            for name, old, new in zip(classes, before.shares.mean(0), now.shares.mean(0), strict=True)
        }
        tested = mmd_test(before.shares, now.shares, config.permutations)
        said.append(("predicted classes", "classes", tested, _moved(shares)))
    for name, values in before.figures.items():
        tested = ks_test(values, now.figures[name], config.permutations)
        medians = f"median {np.median(values):.4g} before, {np.median(now.figures[name]):.4g} now ({_UNITS[name]})"
        said.append((name, "images", tested, medians))
    threshold = config.false_alarms / len(said)
    tests = [
        DriftTest(
            name=name,
            kind=kind,
            statistic=tested.statistic,
            p_value=tested.p_value,
            threshold=threshold,
            drifted=tested.p_value <= threshold,
            words=words,
        )
        for name, kind, tested, words in said
    ]
    return Found(tuple(tests), left_out, shares)


def plane(before: np.ndarray, now: np.ndarray) -> tuple[tuple[float, float, bool], ...]:
    """The rows (n, D) and (m, D) on the first two principal components of both; True is now."""
    rows = np.concatenate([before, now]).astype(np.float64)
    if len(rows) < 2 or rows.shape[1] < 2:
        return ()
    centred = rows - rows.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][[0, 1], np.abs(axes[:2]).argmax(1)])[:, None]  # else a sign is up to chance
    places = (centred @ axes.T).round(_DIGITS).tolist()
    return tuple((x, y, place >= len(before)) for place, (x, y) in enumerate(places))


def read_drift(store: Store, dataset: str, reference: str, current: str) -> Drift | None:
    """What was kept of that comparison; None where there is nothing that can be read."""
    found = store.get_with_etag(_place(dataset, reference, current))
    try:
        return Drift.model_validate_json(found[0]) if found else None
    except ValidationError:  # of an earlier version: it is made again
        return None


def save_drift(store: Store, drift: Drift) -> None:
    """Keeps the comparison, over one that was made with other settings or models."""
    place = _place(drift.dataset, drift.reference, drift.current)
    store.put(place, drift.model_dump_json(indent=1).encode())


def table(drift: Drift) -> list[dict[str, str]]:
    """The tests as rows to print."""
    return [
        {
            "test": test.name,
            "statistic": f"{test.statistic:.4f}",
            "p-value": f"{test.p_value:.4f}",
            "alarm at": f"{test.threshold:.4f}",
            "drifted": "yes" if test.drifted else "no",
            "what moved": test.words,
        }
        for test in drift.tests
    ]


def verdict(drift: Drift) -> str:
    """The outcome in a sentence."""
    sides = f"{drift.current_images} new images of {drift.dataset}@{drift.current} against {drift.reference}"
    if not drift.tests:
        return f"{sides}: {'; '.join(drift.left_out)}"
    moved = ", ".join(test.name for test in drift.tests if test.drifted)
    found = f"drifted in {moved}" if moved else "no drift found"
    return f"{sides}: {found} ({drift.compared[0]} and {drift.compared[1]} images compared)"


def _embedding_test(before: Measured, now: Measured, config: DriftConfig) -> tuple[str, Kind, Tested, str]:
    tested = mmd_test(before.embedding, now.embedding, config.permutations)
    between = float(np.linalg.norm(before.embedding.mean(0) - now.embedding.mean(0)))
    return "embedding", "embedding", tested, f"the means are {between:.3f} apart, of embeddings of length 1"


def _moved(shares: dict[str, tuple[float, float]]) -> str:
    """The classes whose share moved most."""
    order = sorted(shares, key=lambda name: -abs(shares[name][1] - shares[name][0]))[:_TOLD_CLASSES]
    return ", ".join(f"{name} {100 * shares[name][0]:.1f} to {100 * shares[name][1]:.1f} %" for name in order)


def _place(dataset: str, reference: str, current: str) -> str:
    return f"drift/{dataset}/{reference}/{current}.json"
