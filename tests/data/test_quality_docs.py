"""The Data Docs: complete pages in the store, the same bytes for the same snapshot, safe whatever files are called."""

import posixpath
import re

import pytest

from semivl.data import data_docs
from semivl.data.checks import Quarantined
from semivl.data.quality import Validation, validate
from semivl.data.snapshot import Snapshot
from tests.made_shards import picture
from tests.made_snapshots import grown, sample, samples

EVIL = '<img src=x onerror="alert(1)">'


def left_out(code: str, count: int) -> list[Quarantined]:
    return [Quarantined(f"images/{code}-{n:04}.jpg", code, "damaged", 1000 + n) for n in range(count)]


@pytest.fixture
def snap(store, dataset, classes) -> Snapshot:
    refused = [*left_out("DATA003", 3), *left_out("DATA009", 1), Quarantined(EVIL, "DATA002", EVIL, None)]
    made = [*samples(), *(sample(f"{EVIL}{n}", picture(50 + n), phash="ba2a9781916963ed") for n in range(2))]
    return grown(store, dataset, classes, made, refused)


def pages(store, found: Validation) -> dict[str, str]:
    return {name: store.get(key).decode() for name, key in found.pages.items()}


def test_pages_lie_in_the_store_and_their_links_hold(snap, store):
    found = validate(store, snap)
    folder = posixpath.dirname(found.docs)
    store.put(f"{folder}/old.html", b"of an earlier version")
    found = validate(store, snap)
    keys = set(store.list(folder + "/"))
    assert keys == {found.docs, *found.pages.values()}
    for key in keys:
        for link in re.findall(r"""(?:href|src)=["']?([^"'\s>]+)""", store.get(key).decode()):
            if not link.startswith("data:") and "onerror" not in link and link != "x":
                target = posixpath.join(folder, link.split("#")[0]) if link[0] != "#" else key
                assert target in keys, (key, link)


def test_same_snapshot_gives_the_same_bytes(snap, store):
    first = pages(store, validate(store, snap))
    assert pages(store, validate(store, snap)) == first


def test_every_rule_stands_with_its_words_and_those_of_great_expectations(snap, store):
    found = validate(store, snap)
    page = pages(store, found)["expectations"]
    for told in (
        "DATA317", "widths are positive", "width values must be greater than or equal to 1.0",
        "the perceptual hashes of two pictures (across_splits) differ in more than 4 of 64 bits",
        "brightness is distributed as in the parent snapshot: Kolmogorov-Smirnov distance at most 0.2",
        "share_change of a class is at most 0.1, up or down, since the parent snapshot",
        "names a class or one of its definitions", "seen_in_train of a class is at least 3 masks",
    ):  # fmt: skip
        assert told in page, told
    assert all(sentence in page for sentence in found.summary)


def test_quarantine_is_counted_by_code_with_the_words_of_the_codes(snap, store):
    page = pages(store, validate(store, snap))["quarantine"]
    assert "5 files left out" in page and "DATA003 <small>3 files" in page
    means, do = data_docs.code_words()["DATA003"]
    assert means in page and do in page
    assert "images/DATA003-0002.jpg" in page and "1.0 kB" in page


def test_files_beyond_those_listed_are_counted(store, dataset, classes, monkeypatch):
    monkeypatch.setattr(data_docs, "LISTED_FILES", 2)
    snap = grown(store, dataset, classes, samples(), [*left_out("DATA003", 5), *left_out("DATA009", 1)])
    page = pages(store, validate(store, snap))["quarantine"]
    assert "5 files, the first 2 listed" in page and page.count("images/DATA003-") == 2
    assert "1 files<" in page and page.count("images/DATA009-") == 1


def test_names_of_files_are_text_and_never_markup(snap, store):
    found = validate(store, snap)
    for name, page in pages(store, found).items():
        assert "<img src=x" not in page, name
    assert pages(store, found)["near_duplicates"].count("&lt;img src=x") >= 2
    assert "&lt;img src=x" in pages(store, found)["quarantine"]


def test_signed_link_opens_the_page(snap, store):
    from urllib.request import urlopen

    found = validate(store, snap)
    with urlopen(store.link(found.pages["quarantine"])) as answer:
        assert answer.headers["Content-Type"].startswith("text/html") and b"files left out" in answer.read()
