"""A snapshot that a training must not learn from fails its validation, and the validation says why."""

import posixpath
import re
from dataclasses import replace

import pytest

from semivl.config import DataConfig
from semivl.data import snapshot
from semivl.data.ingest import ingest
from semivl.data.quality import require_valid, validate, validation_of
from semivl.data.snapshot import Snapshot
from semivl.data.tables import index_table
from semivl.errors import DataError


@pytest.fixture
def snap(config: DataConfig, classes, store) -> Snapshot:
    ingest(config, classes)
    return snapshot.read(store, config.dataset)


def codes(found: tuple[str, ...]) -> list[str]:
    return [words.split()[0] for words in found]


def changed(snap: Snapshot, change) -> Snapshot:
    """The snapshot with other rows: what no ingest makes, so that the suite has something to find."""
    return Snapshot(snap.manifest, index_table(change(snap.rows())))


def all_rows(**fields):
    return lambda rows: [replace(row, **fields) for row in rows]


def masked_rows(**fields):
    return lambda rows: [replace(r, **fields) if r.supervision == "mask" else r for r in rows]


def in_both_splits(rows):
    twin = next(r for r in rows if r.split == "val")
    return [*rows, replace(twin, split="train", sha256="0" * 64)]


def test_sound_snapshot_passes_and_is_remembered(snap, store, config):
    assert validation_of(store, config.dataset, snap.manifest.version) is None
    with pytest.raises(DataError) as raised:
        require_valid(store, snap)
    assert (raised.value.code, "semivl-validate" in str(raised.value)) == ("DATA301", True)
    found = validate(store, snap)
    assert (found.success, found.failed, found.checked) == (True, (), 14)
    assert codes(found.warnings) == ["DATA332"]
    assert "dog" in found.warnings[0]
    assert require_valid(store, snap) == found == validation_of(store, config.dataset, snap.manifest.version)


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        (lambda rows: [r for r in rows if r.split == "val" or r.supervision == "none"], "DATA311", "none"),
        (lambda rows: [r for r in rows if r.split == "train"], "DATA312", "none"),
        (
            lambda rows: [replace(r, split="val") if r.supervision == "none" else r for r in rows],
            "DATA313",
            "u000",
        ),
        (in_both_splits, "DATA314", "for 2"),
        (in_both_splits, "DATA315", "images/v"),
        (all_rows(sha256="0" * 64), "DATA316", "for 13"),
        (all_rows(width=0), "DATA317", "for 13"),
        (all_rows(height=-1), "DATA318", "for 13"),
        (masked_rows(pixels=(1, 2)), "DATA319", "for 7"),
        (masked_rows(pixels=(0, 0, 0), ignored=48 * 32), "DATA320", "m000"),
        (masked_rows(ignored=1), "DATA321", "m000"),
        (all_rows(split="test"), "DATA322", "for 13"),
    ],
)
def test_each_fault_fails_under_its_code(snap, store, change, code, word):
    found = validate(store, changed(snap, change))
    assert not found.success
    assert code in codes(found.failed)
    assert word in next(words for words in found.failed if words.startswith(code))
    with pytest.raises(DataError) as raised:
        require_valid(store, snap)
    assert (raised.value.code, code in str(raised.value)) == ("DATA302", True)


def test_class_seen_in_evaluation_alone_is_a_warning(snap, store):
    only = changed(
        snap, lambda rows: [replace(r, pixels=(0, 0, sum(r.pixels))) if r.split == "val" else r for r in rows]
    )
    found = validate(store, only)
    assert found.success
    assert [w for w in found.warnings if w.startswith("DATA331")] and "dog" in found.warnings[0]


def test_pages_lie_in_the_store_and_their_links_hold(snap, store):
    validate(store, snap)
    found = validate(store, snap)
    prefix = posixpath.dirname(found.docs)
    keys = set(store.list(prefix + "/"))
    pages = [key for key in keys if key.endswith(".html")]
    assert len([p for p in pages if "/validations/" in p]) == 2  # the first run's are gone
    index = store.get(found.docs).decode()
    assert all(posixpath.relpath(page, prefix) in index for page in pages if page != found.docs)
    for page in pages:
        html = store.get(page).decode()
        for link in re.findall(r"""(?:href|src)=["']?([^"'#?\s>]+)""", html):
            if re.match(r"[a-z]+:", link) or link.endswith("favicon.ico"):  # the library miscounts its levels
                continue
            target = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
            assert target in keys, (page, link)
    assert any("DATA311 a training sample has a mask" in store.get(p).decode() for p in pages)


def test_validation_says_nothing_and_leaves_nothing_behind(snap, store, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    capfd.readouterr()
    validate(store, snap)
    assert capfd.readouterr() == ("", "")
    assert list((tmp_path / "scratch").iterdir()) == []
