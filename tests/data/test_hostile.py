"""Files that mean harm, or came to it: each lands under its own code, and nothing else happens."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import hostile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semivl.data.checks import Checked, Files, Quarantined, examine
from semivl.data.sample import Source
from tests.data import pictures

FILES = hostile.corpus()
NAMES = [h.name for h in FILES]
NEED_A_PROCESS = {"DATA030", "DATA031"}
"""found by the bounds of a worker"""


@pytest.fixture(scope="module")
def told() -> list[list]:
    """Name, code and reason of each file, by workers of a process of its own; and their peaks in bytes."""
    command = [sys.executable, hostile.__file__, "json"]
    folders = os.pathsep.join(p for p in sys.path if p)
    run = subprocess.run(command, capture_output=True, check=True, env=os.environ | {"PYTHONPATH": folders})
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def found(told) -> dict[str, tuple[str, str]]:
    """Code and reason of each file."""
    return {name: (code, reason) for name, code, reason in told[:-1]}


def test_corpus_is_large_and_its_names_differ():
    assert len(set(NAMES)) == len(NAMES) >= 60


@pytest.mark.parametrize("name", NAMES)
def test_each_hostile_file_lands_under_its_code(found, name):
    expected = next(h for h in FILES if h.name == name)
    assert found[name][0] == expected.code, found[name][1]


@pytest.mark.parametrize("hostile_file", FILES, ids=NAMES)
def test_one_process_finds_the_same_for_the_same_reason(found, hostile_file):
    if hostile_file.code in NEED_A_PROCESS:
        pytest.skip("nothing bounds this process")
    got = examine(hostile.source_of(hostile_file), hostile_file.files, hostile.CLASSES, hostile.LIMITS)
    told = (got.code, got.reason) if isinstance(got, Quarantined) else (hostile.PASSES, "")
    assert told == found[hostile_file.name]


def test_reasons_can_be_read_and_hold_no_address_of_memory(found):
    for name, (code, reason) in found.items():
        assert bool(reason) == (code != hostile.PASSES), name
        assert not re.search(r"0x[0-9a-f]{6,}", reason), reason
        assert reason.isprintable()


def test_memory_of_workers_stays_within_the_bound(told):
    """The largest of all workers, those that ended early too, against one that saw a single small photo."""
    base, peak = told[-1]
    assert peak - base < hostile.MEMORY + (16 << 20), "a part of a library is read from disk when it is needed"


@settings(deadline=None, max_examples=300)
@given(
    which=st.sampled_from([h for h in FILES if h.code not in NEED_A_PROCESS and len(h.files.image) < 20_000]),
    changes=st.lists(st.tuples(st.floats(0, 0.9999), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_no_damage_to_any_of_them_makes_a_check_raise(which, changes):
    bodies = [bytearray(which.files.image), bytearray(which.files.mask or b"")]
    for share, value in changes:
        for body in bodies:
            if body:
                body[int(share * len(body))] = value
    files = type(which.files)(bytes(bodies[0]), bytes(bodies[1]) or None)
    got = examine(hostile.source_of(which), files, hostile.CLASSES, hostile.LIMITS)
    assert isinstance(got, Checked | Quarantined)


def test_scan_bomb_and_memory_hog_are_real():
    """Smaller ones decode: they are refused for what they cost, not for being broken."""
    for body in (pictures.many_scans(1024, 300), pictures.many_scans(1536, 3)):
        got = examine(Source(Path("a.jpg"), "train"), Files(body, None), hostile.CLASSES, hostile.LIMITS)
        assert isinstance(got, Checked), got
        assert got.row.brightness == 128
