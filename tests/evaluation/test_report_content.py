"""The report is one file that says what the scores say."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from semivl.data.cache import ShardCache
from semivl.data.snapshot import Snapshot
from semivl.evaluation.by_strength import by_strength
from semivl.evaluation.evaluate import evaluate
from semivl.evaluation.report import write_report
from semivl.evaluation.report_figures import calibration_tab, slices_tab
from semivl.evaluation.report_scores import examples, extremes, scores_tab
from semivl.evaluation.scores import Evaluation
from tests.evaluation.conftest import ColourPredictor


class Links(HTMLParser):
    """Collects what a page loads or leads to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data", "action")]
        styled = [u for k, v in attrs if k == "style" for u in re.findall(r"url\(([^)]*)\)", v or "")]
        self.found += values + styled


@pytest.fixture
def evaluation(predictor: ColourPredictor, snapshot: Snapshot, cache: ShardCache) -> Evaluation:
    return evaluate(predictor, snapshot, cache).of("colours <b>&", 3)  # pyright: ignore[reportArgumentType]


def page_of(
    evaluation: Evaluation, predictor: ColourPredictor, snapshot: Snapshot, cache: ShardCache, path: Path
) -> str:
    pictures = examples(predictor, snapshot, cache, evaluation.per_image, count=2)  # pyright: ignore[reportArgumentType]
    scores = evaluation.scores
    write_report(path, scores, [scores_tab(evaluation, pictures), slices_tab(scores), calibration_tab(scores)])
    return path.read_text()


def test_the_report_loads_nothing_from_anywhere(
    evaluation: Evaluation, predictor: ColourPredictor, snapshot: Snapshot, cache: ShardCache, tmp_path: Path
) -> None:
    page = page_of(evaluation, predictor, snapshot, cache, tmp_path / "report" / "index.html")
    links = Links(page).found
    assert sum(link.startswith("data:image/") for link in links) == 12
    assert all(link.startswith(("data:image/", "#")) for link in links)
    assert [p.name for p in (tmp_path / "report").iterdir()] == ["index.html"]


def test_the_report_shows_the_scores_and_escapes_names(
    evaluation: Evaluation, predictor: ColourPredictor, snapshot: Snapshot, cache: ShardCache, tmp_path: Path
) -> None:
    page = page_of(evaluation, predictor, snapshot, cache, tmp_path / "index.html")
    scores = evaluation.scores
    assert "colours &lt;b&gt;&amp;" in page and "<b>&" not in page
    assert f"{scores.miou:.1f}" in page and snapshot.manifest.version in page and "version 3" in page
    assert "from the mean: unicorn." in page
    assert f"truth red, predicted green: {evaluation.confusion[1, 2]:,} of" in page
    assert all(f"{value:.1f}" in page for value in scores.iou.values() if value is not None)


def test_the_best_and_the_worst_are_the_best_and_the_worst(evaluation: Evaluation) -> None:
    ious = sorted(evaluation.per_image["iou"].to_pylist())
    best, worst = extremes(evaluation.per_image, 3)
    assert [r["iou"] for r in worst] == ious[:3]
    assert [r["iou"] for r in best] == ious[:-4:-1]


@pytest.mark.parametrize("images", [0, 1, 2, 5])
def test_no_image_is_both_best_and_worst(evaluation: Evaluation, images: int) -> None:
    best, worst = extremes(evaluation.per_image.slice(0, images), 6)
    assert len({r["key"] for r in best + worst}) == len(best + worst) == images


def test_the_report_sets_classes_known_by_tags_alone_apart(
    evaluation: Evaluation, predictor: ColourPredictor, snapshot: Snapshot, cache: ShardCache, tmp_path: Path
) -> None:
    assert "by tags alone" not in page_of(evaluation, predictor, snapshot, cache, tmp_path / "plain.html")
    apart = by_strength(evaluation.scores.iou, ("blue",))
    known = evaluation._replace(scores=evaluation.scores.model_copy(update={"by_strength": apart}))
    page = page_of(known, predictor, snapshot, cache, tmp_path / "index.html")
    assert apart and "classes known by tags alone: blue" in page and page.count("tags alone</small>") == 1
    assert all(f"{value:.1f}</td>" in page for value in (apart.strong_miou, apart.weak_miou, apart.harmonic))
