"""The report: one HTML file a model version, which needs no network and no other file.

The page is a row of tabs. Each is made elsewhere (report_*.py here, and in semivl.registry what only MLflow and the
gate know) and drawn by templates/tab_KEY.html.j2. Without JavaScript, and on paper, all of them are shown.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semivl.data.html import environment
from semivl.evaluation.scores import Scores


@dataclass(frozen=True)
class Tab:
    """One tab of the page."""

    key: str
    """its anchor, and the name of its template"""
    title: str
    values: dict[str, Any] = field(default_factory=dict)
    """what its template shows, as `values`"""
    absent: str = ""
    """why there is nothing to show, in a sentence"""


def write_report(path: Path, scores: Scores, tabs: Sequence[Tab]) -> None:
    """Writes the page to `path`, whole or not at all."""
    pages = environment(Path(__file__).parent / "templates")
    page = pages.get_template("report.html.j2").render(scores=scores, tabs=tabs)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(path)
