"""Pictures that look alike are found without comparing all; those across the splits keep a training from starting."""

import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from semivl.data import quality_pairs
from semivl.data.near_duplicates import from_hex, is_flat, near_pairs, near_pairs_within
from semivl.data.quality import require_valid, validate
from semivl.data.quality_pairs import find_alike, phashes
from semivl.errors import DataError
from tests.made_shards import encoded, picture
from tests.made_snapshots import grown, sample, samples

HASH = st.integers(0, 2**64 - 1)


def pairs_of(parts) -> list[tuple[int, int]]:
    return [(int(i), int(j)) for first, second in parts for i, j in zip(first, second, strict=True)]


@st.composite
def clustered(draw) -> np.ndarray:
    """Hashes of which many are near others."""
    centres = draw(st.lists(HASH, min_size=1, max_size=4))
    flips = st.lists(st.integers(0, 63), max_size=12)
    made = draw(st.lists(st.tuples(st.sampled_from(centres), flips), max_size=30))
    return np.array([c ^ sum(1 << bit for bit in set(bits)) for c, bits in made], np.uint64)


@settings(max_examples=60, deadline=None)
@given(clustered(), clustered(), st.integers(0, 10))
def test_every_near_pair_is_found_once_and_no_other(left, right, distance):
    found = pairs_of(near_pairs(left, right, distance))
    near = {
        (i, j) for i, one in enumerate(left.tolist()) for j, other in enumerate(right.tolist())
        if (one ^ other).bit_count() <= distance
    }  # fmt: skip
    assert len(found) == len(set(found)) and set(found) == near
    within = pairs_of(near_pairs_within(left, distance))
    assert sorted(within) == sorted(p for p in pairs_of(near_pairs(left, left, distance)) if p[0] < p[1])


def test_many_near_hashes_are_given_in_parts_of_bounded_size(monkeypatch):
    monkeypatch.setattr("semivl.data.near_duplicates._STEP", 1000)
    hashes = np.arange(300, dtype=np.uint64)
    parts = list(near_pairs_within(hashes, 8))
    assert max(len(first) for first, _ in parts) <= 1000
    expected = sum((i ^ j).bit_count() <= 8 for i in range(300) for j in range(i))
    assert sum(len(first) for first, _ in parts) == expected


@settings(deadline=None)
@given(st.lists(HASH, max_size=20))
def test_hashes_are_read_from_their_digits(values):
    digits = [f"{value:016x}" for value in values]
    assert from_hex(np.array(digits, "S16")).tolist() == values
    assert phashes(pa.table({"phash": pa.array(["f" * 16, *digits])}).slice(1)).tolist() == values


def jpeg(pixels: np.ndarray, quality: int = 85) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


@pytest.mark.parametrize("low, high", [(0, 0), (255, 255), (90, 91), (0, 200)])
def test_flat_pictures_and_gradients_are_not_taken_for_copies(store, dataset, classes, low, high):
    gradient = np.linspace(low, high, 64, dtype=np.uint8)[None, :, None]
    flats = [np.broadcast_to(gradient, (48 + n, 64, 3)) for n in range(4)]
    mask = (700, 800, 0)
    made = [sample(f"f{n}", encoded(flat, "PNG"), ("train", "val")[n % 2], mask) for n, flat in enumerate(flats)]
    snap = grown(store, dataset, classes, [*samples(), *made])
    assert is_flat(phashes(snap.index)).sum() == 4
    found = validate(store, snap)
    assert found.success and not [w for w in found.warnings if w.startswith("DATA324")]
    assert any("4 pictures of one colour" in sentence for sentence in found.summary)


def test_dark_noise_is_not_taken_for_copies(store, dataset, classes):
    random = np.random.default_rng(0)
    night = [sample(f"n{n}", jpeg(random.normal(2, 1, (48, 64, 3)).clip(0, 9).astype(np.uint8))) for n in range(40)]
    snap = grown(store, dataset, classes, [*samples(), *night])
    assert len(find_alike(snap, 4).table) == 0


def saved_again(image: bytes) -> bytes:
    """The picture smaller, and as a worse JPEG."""
    opened = Image.open(io.BytesIO(image))
    return jpeg(np.asarray(opened.resize((opened.width * 3 // 4, opened.height * 3 // 4))), 60)


def test_evaluation_picture_that_was_saved_again_for_training_blocks(store, dataset, classes):
    image = picture(900, 240, 160)
    evaluated, copy = sample("evaluated", image, "val", (700, 800, 0)), sample("copy", saved_again(image))
    snap = grown(store, dataset, classes, [*samples(), evaluated, copy])
    found = validate(store, snap)
    (told,) = found.failed
    assert told.startswith("DATA323") and "not so for 1 pairs" in told
    assert f"val {evaluated[1].key} images/evaluated.jpg and train {copy[1].key} images/copy.jpg" in told
    with pytest.raises(DataError, match="DATA302"):
        require_valid(store, snap)
    page = store.get(found.pages["near_duplicates"]).decode()
    assert page.count("data:image/jpeg;base64,") == 2 and copy[1].key in page


def test_copies_within_a_split_are_a_warning_with_the_pairs(store, dataset, classes):
    images = [picture(900 + n, 240, 160) for n in range(2)]
    twice = [sample(f"one{n}", image) for n, image in enumerate(images)]
    twice += [sample(f"copy{n}", saved_again(image)) for n, image in enumerate(images)]
    found = validate(store, grown(store, dataset, classes, [*samples(), *twice]))
    assert found.success
    told = next(words for words in found.warnings if words.startswith("DATA324"))
    assert "copy0.jpg" in told and "copy1.jpg" in told and "for 2 pairs" in told


def test_search_that_ends_early_has_looked_across_the_splits_and_says_so(store, dataset, classes, monkeypatch):
    monkeypatch.setattr(quality_pairs, "MOST", 30)
    monkeypatch.setattr("semivl.data.quality_summary.MOST", 30)
    same = "ba2a9781916963ed"
    film = [sample(f"f{n:02}", picture(2000 + n), phash=same) for n in range(20)]
    evaluated = sample("v", picture(3000), "val", (700, 800, 0), phash=same)
    snap = grown(store, dataset, classes, [*samples(), *film, evaluated])
    alike = find_alike(snap, 4)
    assert not alike.complete and len(alike.table) == 30
    assert alike.table["across_splits"].count() == 20, "all of them, before any within a split"
    found = validate(store, snap)
    assert found.failed[0].startswith("DATA323") and "the search ended at 30" in " ".join(found.summary)
