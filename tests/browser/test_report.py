"""The report in a real browser: complete without a network, usable on a phone and without a mouse."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from playwright.sync_api import Page, expect

from semivl.config import load
from semivl.evaluation.drift import Drift, DriftTest
from semivl.evaluation.report import Tab, write_report
from semivl.evaluation.report_compare import Pair, compare_tab
from semivl.evaluation.report_figures import calibration_tab, drift_tab, slices_tab
from semivl.evaluation.report_pictures import Example
from semivl.evaluation.report_scores import extremes, scores_tab
from semivl.evaluation.scores import Bin, Evaluation, Latency, Scores, Slice, confusion, iou_points, mean_iou
from semivl.registry.decision import Decision, RuleResult
from semivl.registry.lineage import Lineage
from semivl.registry.report_tabs import decision_tab, lineage_tab
from semivl.registry.trained_on import TrainedOn

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
        boundary_iou=ious, boundary_miou=20.0, ece=5.0, confidence=55.0, model_bytes=113_000_000,
        latency=(Latency(width=320, height=240, ms=81.0, peak_memory_mib=900.0),),
        reliability=tuple(
            Bin(low=i / 15, high=(i + 1) / 15, pixels=1000 * i, confidence=100 * i / 15, accuracy=80 * i / 15)
            for i in range(15)
        ),
        slices=tuple(
            Slice(kind=kind, name=f"{name} {kind}", images=5, miou=miou)
            for kind in ("image size", "tag")
            for name, miou in (("some", 40.0), ("other", 71.5), ("unlabelled", None))
        ),
    )  # fmt: skip
    table = pa.table({name: [getattr(e, name) for e in shown.values()] for name in ("key", "source", "iou")})
    best, worst = extremes(table)
    pictures = [shown[r["key"]] for r in best], [shown[r["key"]] for r in worst]
    path = tmp_path_factory.mktemp("report") / "index.html"
    tabs = [
        scores_tab(Evaluation(scores, table, total), pictures),
        decision_tab([judged(), judged(promoted=False)]),
        compare_tab("version 3 (champion)", "version 4", [beside(e) for e in list(shown.values())[:4]]),
        slices_tab(scores),
        calibration_tab(scores),
        drift_tab(moved()),
        lineage_tab(traced()),
        Tab("late", "Not yet", absent="There is nothing to show yet."),
    ]
    write_report(path, scores, tabs)
    return path


def judged(promoted: bool = True) -> Decision:
    """A decision with a rule that is met and one that is not."""
    rules = (
        RuleResult(code="GATE001", demand="the lower bound of the lead exceeds the margin", met=True,
                   found="+1.20 points, at least +0.40", value=0.4, bound=0.0),
        RuleResult(code="GATE003", demand="no class falls by more than 5 points", met=promoted,
                   found="goat falls by 8.1 points on 6 images", value=8.1, bound=5.0),
    )  # fmt: skip
    return Decision(
        model="semivl-farm", challenger=4, champion=3, reign=1, dataset="farm", snapshot="0123456789abcdef",
        digest="d" * 16, images=14, challenger_miou=64.2, champion_miou=63.0, difference=1.2, low=0.4, high=2.1,
        confidence=0.95, margin=0.2, rules=rules, promoted=promoted, reason="leads by 1.20 points",
        settings="e" * 8, decided_at="2026-11-28T06:00:00+00:00", approved_by="Ada" if promoted else None,
    )  # fmt: skip


def beside(example: Example) -> Pair:
    """The image under another model, whose mask is the truth's."""
    before, after = example.iou, example.iou + (5 if int(example.key, 16) % 2 else -5)
    return Pair(example.source, before, after, example.photo, example.truth, example.truth, example.prediction)


def moved() -> Drift:
    random = np.random.default_rng(1)
    points = [(float(x), float(y), i >= 40) for i, (x, y) in enumerate(random.normal(0, 1, (60, 2)))]
    tests = (
        DriftTest(name="embedding", kind="embedding", statistic=0.021, p_value=0.0005, threshold=0.0017, drifted=True,
                  words="the means are 0.210 apart, of embeddings of length 1"),
        DriftTest(name="brightness", kind="images", statistic=0.1, p_value=0.4, threshold=0.0017, drifted=False,
                  words="median 110 before, 104 now (of 255)"),
    )  # fmt: skip
    return Drift(
        dataset="farm", reference="0123456789abcdef", current="fedcba9876543210", reference_images=40,
        current_images=20, compared=(40, 20), false_alarms=0.01, tests=tests, drifted=True,
        class_shares={name: (0.125, 0.1 + 0.01 * i) for i, name in enumerate(NAMES)}, points=tuple(points),
    )  # fmt: skip


def traced() -> Lineage:
    return Lineage(
        model="semivl-farm", version=4, run_id="0" * 32, registered="2026-11-28T05:00:00+00:00", experiment="demo",
        method="semivl", train_key="a" * 16, commit="b" * 40, environment={"python": "3.11.7", "torch": "2.13.0"},
        weights="c" * 64, parent=3, config=load("demo"),
        seen=(TrainedOn(dataset="farm", snapshot="0123456789abcdef", model="semivl-farm", model_version=4),),
    )  # fmt: skip


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
    expect(opened.locator("#classes tbody tr")).to_have_count(len(NAMES))
    expect(opened.locator(".heat tbody tr")).to_have_count(len(NAMES) - 1)
    expect(opened.locator(".example")).to_have_count(12)
    loaded = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
    assert opened.evaluate(loaded)
    opened.screenshot(path=tmp_path / "report.png", full_page=True)


TABS = ("scores", "decision", "compare", "slices", "calibration", "drift", "lineage", "late")


@pytest.mark.parametrize("width", [1200, PHONE["width"]])
def test_every_tab_fits_the_screen(opened: Page, width: int, tmp_path: Path) -> None:
    opened.set_viewport_size({"width": width, "height": 844})
    for key in TABS:
        opened.locator(f"#tab-{key}").click()
        expect(opened.locator(f"#{key}")).to_be_visible()
        assert opened.locator(".panel:visible").count() == 1
        assert opened.evaluate("document.documentElement.scrollWidth") <= width, key
        opened.screenshot(path=tmp_path / f"{key}-{width}.png", full_page=True)


def test_the_tabs_are_walked_by_keyboard_and_found_by_address(opened: Page, report: Path) -> None:
    opened.locator("#tab-scores").focus()
    for key in (*TABS[1:], TABS[0]):
        opened.keyboard.press("ArrowRight")
        expect(opened.locator(f"#tab-{key}")).to_be_focused()
        expect(opened.get_by_role("tab", selected=True)).to_have_id(f"tab-{key}")
        expect(opened.get_by_role("tabpanel")).to_have_id(key)
    opened.keyboard.press("End")
    expect(opened.get_by_text("There is nothing to show yet.")).to_be_visible()
    opened.goto(f"{report.as_uri()}#drift")
    expect(opened.get_by_role("heading", name="Drift of the data")).to_be_visible()
    opened.goto(f"{report.as_uri()}#worst")
    expect(opened.locator("#worst")).to_be_in_viewport()


def test_paper_and_a_browser_without_scripts_show_every_tab(opened: Page, report: Path) -> None:
    opened.emulate_media(media="print")
    assert opened.locator(".panel:visible").count() == len(TABS)
    browser = opened.context.browser
    assert browser
    plain = browser.new_context(java_script_enabled=False).new_page()
    plain.goto(report.as_uri())
    assert plain.locator(".panel:visible").count() == len(TABS)
    plain.context.close()


def test_the_slider_wipes_between_the_two_masks_by_keyboard(opened: Page) -> None:
    opened.locator("#tab-compare").click()
    slider = opened.get_by_role("slider").first
    width = opened.locator(".wipe .both").first.evaluate("e => e.clientWidth")
    for key, share in (("Home", 0.0), ("End", 1.0)):
        slider.focus()
        opened.keyboard.press(key)
        line = opened.locator(".wipe .both i").first.evaluate("e => e.offsetLeft")
        assert abs(line - share * width) <= 2
        clips = [opened.locator(f".wipe .{side}").first.evaluate("e => getComputedStyle(e).clipPath")
                 for side in ("left", "right")]  # fmt: skip
        assert clips == [f"inset(0px {100 - 100 * share:.0f}% 0px 0px)", f"inset(0px 0px 0px {100 * share:.0f}%)"]


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
    for key, selector in SEEN:
        opened.locator(f"#tab-{key}").click()
        ratio = opened.evaluate(CONTRAST, selector)
        assert ratio >= 4.5, (selector, ratio)


SEEN = (
    ("scores", "h1"), ("scores", ".under"), ("scores", ".hint"), ("scores", ".heat td"), ("scores", "nav a"),
    ("decision", "#decision .verdict"), ("decision", "#decision td"), ("drift", "#drift .verdict"),
    ("lineage", "#lineage dt"), ("slices", "#slices th"), ("compare", "#compare figcaption"),
)  # fmt: skip
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
