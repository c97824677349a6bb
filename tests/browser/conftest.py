"""Headless Chromium, as it is installed on this machine."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The program's path."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.fail("no Chromium on this machine: apt-get install chromium", pytrace=False)
    return found


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    """A fresh page. Playwright's event loop ends with the test, so that Prefect's own calls do not meet it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        try:
            yield browser.new_page(viewport={"width": 1280, "height": 900})
        finally:
            browser.close()
