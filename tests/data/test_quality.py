"""A snapshot that a training must not learn from fails its validation, and the validation says why."""

from dataclasses import replace

import pytest

from semivl.config import Suite, load_suite
from semivl.data.quality import Validation, require_valid, validate, validation_of
from semivl.data.snapshot import Snapshot
from semivl.data.tables import index_table
from semivl.errors import DataError
from tests.made_snapshots import grown, samples


@pytest.fixture
def snap(store, dataset, classes) -> Snapshot:
    return grown(store, dataset, classes, samples())


def codes(found: tuple[str, ...]) -> list[str]:
    return [words.split()[0] for words in found]


def changed(snap: Snapshot, change) -> Snapshot:
    """The snapshot with other rows: what no ingest makes, so that the suite has something to find."""
    return Snapshot(snap.manifest, index_table(change(list(snap.rows()))))


def all_rows(**fields):
    return lambda rows: [replace(row, **fields) for row in rows]


def masked_rows(**fields):
    return lambda rows: [replace(r, **fields) if r.supervision == "mask" else r for r in rows]


def in_both_splits(rows):
    twin = next(r for r in rows if r.split == "val")
    return [*rows, replace(twin, split="train", sha256="0" * 64)]


def refused(store, snap: Snapshot, suite: Suite | None = None) -> DataError:
    with pytest.raises(DataError) as raised:
        require_valid(store, snap, suite)
    return raised.value


def test_sound_snapshot_passes_and_is_remembered(snap, store):
    at = snap.manifest.dataset, snap.manifest.version
    assert validation_of(store, *at) is None
    error = refused(store, snap)
    assert (error.code, "semivl-validate" in str(error)) == ("DATA301", True)
    found = validate(store, snap)
    assert (found.success, found.failed, found.checked) == (True, (), len(load_suite().rules))
    assert codes(found.warnings) == ["DATA332"]
    assert "dog" in found.warnings[0]
    assert require_valid(store, snap, load_suite()) == found == validation_of(store, *at)


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        (lambda rows: [r for r in rows if r.split == "train"], "DATA312", "found 0"),
        (
            lambda rows: [replace(r, split="val") if r.supervision == "none" else r for r in rows],
            "DATA313",
            "u000.jpg (none)",
        ),
        (in_both_splits, "DATA314", "for 2 of 14"),
        (in_both_splits, "DATA315", "images/v"),
        (all_rows(sha256="0" * 64), "DATA316", "for 13 of 13"),
        (all_rows(width=0), "DATA317", "for 13 of 13"),
        (all_rows(height=-1), "DATA318", "m000.jpg (-1)"),
        (masked_rows(pixels=(1, 2)), "DATA319", "for 7 of 7"),
        (masked_rows(pixels=(0, 0, 0), ignored=48 * 32), "DATA320", "m000"),
        (masked_rows(ignored=1), "DATA321", "m000"),
        (all_rows(split="test"), "DATA322", "for 13 of 13"),
    ],
)
def test_each_fault_fails_under_its_code(snap, store, change, code, word):
    found = validate(store, changed(snap, change))
    assert not found.success
    assert code in codes(found.failed)
    assert word in next(words for words in found.failed if words.startswith(code))
    assert found.remedies[code]
    error = refused(store, snap)
    assert (error.code, code in str(error)) == ("DATA302", True)


def test_names_beyond_the_first_twenty_are_counted(store, dataset, classes):
    snap = grown(store, dataset, classes, samples(unlabelled=30))
    found = validate(store, changed(snap, all_rows(width=0)))
    told = next(words for words in found.failed if words.startswith("DATA317"))
    assert told.count(".jpg") == 20 and told.endswith("and 17 more")


def test_classes_that_masks_hardly_show_are_warnings(snap, store):
    def seen_once_and_in_evaluation(rows):
        masks = [r for r in rows if r.supervision == "mask"]
        once = next(r for r in masks if r.split == "train")
        others = [replace(r, pixels=(1500, 0, 0) if r.split == "train" else (0, 0, 1500)) for r in masks if r != once]
        return [once, *others]

    found = validate(store, changed(snap, seen_once_and_in_evaluation))
    assert found.success and set(codes(found.warnings)) == {"DATA331", "DATA333"}
    told = " ".join(found.warnings)
    assert "in a training mask: not so for 1 of 3: dog" in told and "not so for 1 of 2: cat (1)" in told


def test_a_snapshot_without_training_masks_is_told_and_no_more(snap, store):
    found = validate(
        store, changed(snap, lambda rows: [r for r in rows if r.split == "val" or r.supervision == "none"])
    )
    assert found.success and "DATA311" in codes(found.warnings)


def test_tags_of_no_class_are_named(snap, store):
    def tagged(rows):
        told = [("cat",), ("Dog", "doog"), ("quince", "doog"), (), ("quince",)]
        return [replace(r, tags=t) for r, t in zip(rows, told, strict=False)] + rows[len(told) :]

    [told] = [w for w in validate(store, changed(snap, tagged)).warnings if w.startswith("DATA334")]
    assert "not so for 3 of 13" in told
    assert {word for word in ("doog", "quince", "cat)") if word in told} == {"doog", "quince"}
    assert "DATA334" not in codes(validate(store, snap).warnings)


def test_edited_suite_means_validating_again(snap, store):
    validate(store, snap)
    edited = load_suite().model_dump()
    edited["rules"]["DATA333"]["arguments"]["at_least"] = 5
    suite = Suite.model_validate(edited)
    error = refused(store, snap, suite)
    assert (error.code, "semivl-validate" in str(error)) == ("DATA303", True)
    found = validate(store, snap, suite)
    assert set(codes(found.warnings)) == {"DATA332", "DATA333"}
    assert require_valid(store, snap, suite) == found
    assert refused(store, snap, load_suite()).code == "DATA303"


def test_validation_of_before_suites_had_digests_is_made_again(snap, store):
    now = validate(store, snap).model_dump(exclude={"suite", "summary", "remedies", "not_compared"})
    old = Validation.model_validate(now)
    store.put(f"datasets/{old.dataset}/validations/{old.version}.json", old.model_dump_json().encode())
    assert refused(store, snap, load_suite()).code == "DATA303"


def test_validation_says_nothing_and_leaves_nothing_behind(snap, store, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    capfd.readouterr()
    validate(store, snap)
    assert capfd.readouterr() == ("", "")
    assert list((tmp_path / "scratch").iterdir()) == []
