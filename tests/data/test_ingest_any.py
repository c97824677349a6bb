"""Whatever files there are, wherever an ingest ends before its time, whatever the ranks: each sample once an epoch."""

import itertools
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semivl.data import snapshot
from semivl.data.ingest import ingest
from semivl.data.layouts import list_sources
from semivl.data.manifest import read_quarantine
from semivl.data.source_files import open_source
from semivl.data.store import Store
from semivl.data.stream import positions, share

KINDS = ("photo", "masked", "copy", "cut", "empty", "no picture", "mask of a photo that is not there")
_numbers = itertools.count()


class Ended(BaseException):
    """Stands for the end of the process: nothing catches it."""


def write(root: Path, kinds: list[str], make) -> None:
    """Two photos with masks, so that both splits have one, and the files drawn."""
    make.source(root, labelled=2, evaluation=1, unlabelled=0)
    for place, kind in enumerate(kinds):
        path = root / "images" / f"x{place:02}.jpg"
        if kind == "mask of a photo that is not there":
            make.mask(root / "masks" / f"x{place:02}.png")
            continue
        make.photo(path, 1 if kind == "copy" else 100 + place)
        if kind == "masked":
            make.mask(root / "masks" / f"x{place:02}.png")
        if kind == "cut":
            path.write_bytes(path.read_bytes()[:-40])
        if kind in ("empty", "no picture"):
            path.write_bytes(b"" if kind == "empty" else b"words")


def ending_at(write_number: int, put: Callable) -> Callable:
    """A `Store._put` at whose n-th call the process ends: before it was sent, or after."""
    calls = itertools.count()

    def put_or_end(self, *arguments):
        number = next(calls)
        if number == write_number // 2 and write_number % 2 == 0:
            raise Ended
        done = put(self, *arguments)
        if number == write_number // 2:
            raise Ended
        return done

    return put_or_end


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.lists(st.sampled_from(KINDS), max_size=9),
    ends=st.lists(st.integers(0, 13), max_size=3),
    world=st.sampled_from([1, 2, 3]),
)
def test_every_file_is_a_sample_or_told_and_each_sample_comes_once_an_epoch(
    kinds, ends, world, config, classes, store, make, tmp_path
):
    number = next(_numbers)
    root = tmp_path / str(number)
    write(root, kinds, make)
    config = config.model_copy(update={"source": root, "dataset": f"{config.dataset}-{number}", "shard_samples": 3})
    for write_number in ends:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Store, "_put", ending_at(write_number, Store._put))
            with suppress(Ended):
                ingest(config, classes, workers=1)
    manifest = ingest(config, classes, workers=1)
    rows = list(snapshot.read(store, config.dataset).rows())
    refused = {q.source for q in read_quarantine(store, manifest)}
    assert len(refused) >= sum(kind in ("cut", "empty", "no picture") for kind in kinds)
    assert {r.source for r in rows} | refused == {s.image.as_posix() for s in list_sources(config, open_source(config))}
    assert {r.source for r in rows}.isdisjoint(refused)
    assert len({r.key for r in rows}) == len({r.sha256 for r in rows}) == len(rows) == manifest.samples
    seen = [
        place
        for step in range(-(-len(rows) // 6))
        for rank in range(world)
        for place in positions(step, 6, len(rows), 0)[share(6, rank, world)]
    ]
    assert sorted(seen[: len(rows)]) == list(range(len(rows)))
