"""The Data Docs in a real browser, as S3 serves them: nothing is fetched from elsewhere, and a person can read them."""

from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from semivl.config import ClassDefinition, Classes
from semivl.data.checks import Quarantined
from semivl.data.quality import Validation, validate
from semivl.data.store import Store
from tests.browser.test_report import CONTRAST
from tests.made_shards import picture
from tests.made_snapshots import grown, sample, samples

PHONE = {"width": 390, "height": 844}
SAME = "ba2a9781916963ed"


@pytest.fixture(scope="module")
def docs(new_store) -> tuple[Store, Validation]:
    """The pages of a snapshot that failed: with copies across the splits, warnings, and files left out."""
    store = new_store()
    classes = Classes(classes=tuple(ClassDefinition(name=n) for n in ("meadow", "sheep", "goat")))  # pyright: ignore[reportCallIssue]
    grown(store, "farm", classes, samples())
    copies = [sample(f"herd{n}", picture(40 + n, 240, 160), phash=SAME) for n in range(3)]
    copies.append(sample("evaluated", picture(50, 240, 160), "val", (700, 800, 0), phash=SAME))
    refused = [Quarantined(f"images/{n:03}.jpg", "DATA003", "it ends after 512 bytes", 512) for n in range(30)]
    return store, validate(store, grown(store, "farm", classes, copies, refused))


@pytest.fixture
def opened(page: Page, docs) -> Page:
    """The page that watches what is asked for, where, and with which errors."""
    page.asked, page.errors = [], []  # pyright: ignore[reportAttributeAccessIssue]
    page.on("request", lambda request: page.asked.append(request.url))  # pyright: ignore[reportAttributeAccessIssue]
    page.on("console", lambda said: page.errors.append(said.text) if said.type == "error" else None)  # pyright: ignore[reportAttributeAccessIssue]
    page.on("pageerror", lambda error: page.errors.append(str(error)))  # pyright: ignore[reportAttributeAccessIssue]
    return page


def show(page: Page, docs: tuple[Store, Validation], name: str) -> None:
    """Opens a page by its signed link, as the artifacts give it."""
    store, found = docs
    page.goto(store.link(found.pages[name]))


@pytest.mark.parametrize("name", ["expectations", "near_duplicates", "quarantine"])
def test_page_fetches_nothing_but_itself(opened: Page, docs, name, tmp_path) -> None:
    show(opened, docs, name)
    outside = [url for url in opened.asked if urlsplit(url).hostname != "127.0.0.1" and not url.startswith("data:")]  # pyright: ignore[reportAttributeAccessIssue]
    assert outside == []
    assert len([url for url in opened.asked if not url.startswith("data:")]) == 1  # pyright: ignore[reportAttributeAccessIssue]
    assert opened.errors == []  # pyright: ignore[reportAttributeAccessIssue]
    assert opened.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    opened.screenshot(path=tmp_path / f"{name}.png", full_page=True)


def test_what_failed_stands_out_with_the_keys_and_what_to_do(opened: Page, docs) -> None:
    show(opened, docs, "expectations")
    expect(opened.locator(".verdict")).to_have_text("failed")
    first = opened.locator(".card").first
    expect(first).to_contain_text("DATA323 failed")
    expect(first).to_contain_text("images/evaluated.jpg")
    expect(opened.locator("#samples tbody tr")).to_have_count(17)
    styled = "getComputedStyle(document.querySelector('section')).borderTopLeftRadius"
    assert opened.evaluate(styled) == "12px"


def test_pairs_are_shown_as_pictures(opened: Page, docs) -> None:
    show(opened, docs, "near_duplicates")
    expect(opened.locator(".pair")).to_have_count(6)
    expect(opened.locator(".pair img")).to_have_count(12)
    expect(opened.get_by_text("across splits", exact=True)).to_have_count(3)


def test_signed_page_offers_no_link_that_its_signature_does_not_open(opened: Page, docs) -> None:
    show(opened, docs, "quarantine")
    expect(opened.get_by_role("navigation")).to_be_hidden()
    expect(opened.locator(".signed")).to_be_visible()


def test_pages_of_a_folder_lead_to_each_other(opened: Page, docs, tmp_path) -> None:
    store, found = docs
    for key in found.pages.values():
        (tmp_path / key.rsplit("/", 1)[1]).write_bytes(store.get(key))
    opened.context.set_offline(True)
    opened.goto((tmp_path / "index.html").as_uri())
    opened.get_by_role("link", name="Quarantine").click()
    expect(opened.get_by_role("heading", name="30 files left out")).to_be_visible()
    opened.get_by_role("link", name="Near duplicates").click()
    expect(opened.get_by_role("heading", name="6 pairs that look alike")).to_be_visible()
    opened.get_by_role("link", name="Expectations").click()
    opened.get_by_role("link", name="Look at the pairs").first.click()
    assert opened.errors == []  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("name", ["expectations", "near_duplicates", "quarantine"])
def test_pages_fit_a_phone(opened: Page, docs, name) -> None:
    opened.set_viewport_size(PHONE)  # pyright: ignore[reportArgumentType]
    show(opened, docs, name)
    assert opened.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(opened: Page, docs, scheme) -> None:
    opened.emulate_media(color_scheme=scheme)
    show(opened, docs, "expectations")
    for selector in ("h1", ".under", ".hint", ".verdict", ".card .label", "td.status", "td .soft", "summary"):
        ratio = opened.evaluate(CONTRAST, selector)
        assert ratio >= 4.5, (selector, ratio)
