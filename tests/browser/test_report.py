"""The report in a real browser: complete without a network, usable on a phone and without a mouse."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from playwright.sync_api import Page, expect

from semivl.evaluation.report import Example, extremes, write_report
from semivl.evaluation.scores import Scores, confusion, iou_points, mean_iou

NAMES = ("meadow", "sheep", "goat", "barn", "road", "tractor", "horse", "unicorn")
PHONE = {"width": 390, "height": 844}


def picture(seed: int) -> Example:
    """A photo of coloured areas; the prediction is the truth with a border shifted."""
    random = np.random.default_rng(seed)
    truth = np.kron(random.integers(0, 7, (6, 8)), np.ones((40, 40), int)).astype(np.uint8)
    prediction = np.roll(truth, int(random.integers(0, 30)), axis=int(random.integers(0, 2)))
    colours = random.integers(0, 256, (8, 3))
    photo = (colours[truth] + random.normal(0, 12, (*truth.shape, 3))).clip(0, 255).astype(np.uint8)
    truth[:6] = 255
    matrix = confusion(torch.from_numpy(truth), torch.from_numpy(prediction), len(NAMES)).numpy()
    return Example(f"{seed:016x}", f"photos/scene_{seed}.jpg", mean_iou(matrix) or 0.0, photo, truth, prediction)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shown = {e.key: e for e in map(picture, range(14))}
    total = sum(
        confusion(torch.from_numpy(e.truth), torch.from_numpy(e.prediction), len(NAMES)).numpy() for e in shown.values()
    )
    ious = {n: None if np.isnan(v) else float(v) for n, v in zip(NAMES, iou_points(total), strict=True)}
    scores = Scores(
        model="semivl-farm", model_version=4, dataset="farm", snapshot="0123456789abcdef", split="val", digest="d" * 16,
        images=14, pixels=int(total.sum()), miou=mean_iou(total) or 0.0, iou=ious, ms_per_image=81.0,
        accuracy=float(100 * total.trace() / total.sum()), peak_memory_mib=900.0, class_accuracy=ious,
        boundary_iou=ious, boundary_miou=20.0, ece=5.0, confidence=55.0, reliability=(), slices=(), latency=(),
        model_bytes=1000,
    )  # fmt: skip
    table = pa.table({name: [getattr(e, name) for e in shown.values()] for name in ("key", "source", "iou")})
    best, worst = extremes(table)
    path = tmp_path_factory.mktemp("report") / "index.html"
    write_report(path, scores, table, total, ([shown[r["key"]] for r in best], [shown[r["key"]] for r in worst]))
    return path


@pytest.fixture
def opened(page: Page, report: Path) -> Page:
    """The report, opened without a network; it must ask for nothing and say no error."""
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.context.set_offline(True)
    page.goto(report.as_uri())
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert errors == []
    return page


def test_the_report_is_complete_without_a_network(opened: Page, tmp_path: Path) -> None:
    expect(opened.get_by_role("heading", name="semivl-farm")).to_be_visible()
    expect(opened.locator(".bars tbody tr")).to_have_count(len(NAMES))
    expect(opened.locator(".heat tbody tr")).to_have_count(len(NAMES) - 1)
    expect(opened.locator(".example")).to_have_count(12)
    loaded = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
    assert opened.evaluate(loaded)
    opened.screenshot(path=tmp_path / "report.png", full_page=True)


def test_the_report_fits_a_phone(opened: Page, tmp_path: Path) -> None:
    opened.set_viewport_size(PHONE)  # pyright: ignore[reportArgumentType]
    assert opened.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    boxes = [frame.bounding_box() for frame in opened.locator(".example").first.locator(".frame").all()]
    assert len(boxes) == 3 and len({round(b["y"]) for b in boxes if b}) == 1, "side by side"
    opened.screenshot(path=tmp_path / "phone.png", full_page=True)


def test_an_image_is_enlarged_and_put_back_by_keyboard(opened: Page) -> None:
    first = opened.locator(".example").first
    first.focus()
    opened.keyboard.press("Enter")
    dialog = opened.get_by_role("dialog")
    expect(dialog).to_be_visible()
    expect(dialog.locator(".frame")).to_have_count(3)
    opened.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(first).to_be_focused()


def test_every_control_is_reached_by_the_tab_key(opened: Page) -> None:
    reached = set()
    for _ in range(40):
        opened.keyboard.press("Tab")
        reached.add(opened.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"skip", "scroll", "tint", "example"} <= reached


def test_the_masks_fade_by_keyboard(opened: Page) -> None:
    opened.locator("#tint").focus()
    opened.keyboard.press("Home")
    assert opened.locator(".frame img").first.evaluate("e => getComputedStyle(e).opacity") == "0"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(opened: Page, scheme: str) -> None:
    """WCAG contrast of at least 4.5 for the page's text, the hints and the filled cells of the matrix."""
    opened.emulate_media(color_scheme=scheme)  # pyright: ignore[reportArgumentType]
    for selector in ("h1", ".under", ".hint", ".heat td", "nav a"):
        ratio = opened.evaluate(CONTRAST, selector)
        assert ratio >= 4.5, (selector, ratio)


CONTRAST = """selector => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const luminance = colours => {
    canvas.fillStyle = "#fff"; canvas.fillRect(0, 0, 1, 1);
    for (const c of colours) { canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); }
    const parts = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => v / 255)
      .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * parts[0] + .7152 * parts[1] + .0722 * parts[2];
  };
  return Math.min(...[...document.querySelectorAll(selector)].filter(e => e.textContent.trim()).map(e => {
    const behind = [];
    for (let at = e; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
    const a = luminance([...behind, getComputedStyle(e).color]), b = luminance(behind);
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  }));
}"""
