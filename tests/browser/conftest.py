"""Headless Chromium, as it is installed on this machine."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

from semivl.services.doctor import browser

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="session")
def chromium() -> str:
    """The program's path."""
    found = browser()
    if not found:
        pytest.fail("no Chromium on this machine: apt-get install chromium", pytrace=False)
    return found


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    """A fresh page. Playwright's event loop ends with the test, so that Prefect's own calls do not meet it."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        try:
            yield launched.new_page(viewport={"width": 1280, "height": 900})
        finally:
            launched.close()
