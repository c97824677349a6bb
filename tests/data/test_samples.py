"""Samples are a sequence of rows that are made when they are asked for."""

import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from semivl.data.sample import Row
from semivl.data.samples import Samples
from semivl.data.tables import index_table

_text = st.text(max_size=6)
rows = st.lists(
    st.builds(
        Row,
        key=st.text("0123456789abcdef", min_size=16, max_size=16),
        shard=st.sampled_from(["s1", "s2"]),
        image_offset=st.integers(0, 2**40),
        image_bytes=st.integers(1, 2**33),
        mask_offset=st.none() | st.integers(0, 2**40),
        mask_bytes=st.none() | st.integers(0, 2**33),
        sha256=_text,
        mask_sha256=st.none() | _text,
        phash=_text,
        width=st.integers(1, 9),
        height=st.integers(1, 9),
        orientation=st.integers(1, 8),
        split=st.sampled_from(["train", "val"]),
        supervision=st.sampled_from(["mask", "none"]),
        tags=st.lists(_text, max_size=3).map(tuple),
        caption=st.none() | _text,
        pixels=st.lists(st.integers(0, 2**40), max_size=3).map(tuple),
        ignored=st.integers(0, 9),
        brightness=st.floats(0, 255),
        source=_text,
    ),
    max_size=6,
)


@examples(deadline=None)
@given(rows, st.slices(6))
def test_any_index_and_slice_is_that_of_the_list(expected, part):
    samples = Samples(index_table(expected))
    assert (len(samples), list(samples)) == (len(expected), expected)
    for place in range(-len(expected), len(expected)):
        assert samples[place] == expected[place]
    assert list(samples[part]) == expected[part]
    for place in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError):
            samples[place]


@examples(deadline=None)
@given(rows)
def test_pickled_samples_keep_what_reading_them_takes(expected):
    left_behind = dict.fromkeys(("sha256", "mask_sha256", "phash", "pixels", "ignored", "brightness", "source"))
    copy = pickle.loads(pickle.dumps(Samples(index_table(expected))))
    assert list(copy) == [replace(row, **left_behind) for row in expected]
    assert list(pickle.loads(pickle.dumps(copy))) == list(copy)
    assert list(copy[::-1]) == list(copy)[::-1]


def test_pickled_sample_is_small():
    made = [
        Row(f"{n:016x}", f"{n // 500:064}", n * 99_999, 99_000 + n, None, None, f"{n:064x}", None, "f" * 16, 500, 375,
            1, "train", "none", (), False, None, (), 0, 99.5, f"images/{n}.jpg")
        for n in range(20_000)
    ]  # fmt: skip
    assert len(pickle.dumps(Samples(index_table(made)))) < 100 * len(made)
    assert len(pickle.dumps(made)) > 150 * len(made)
