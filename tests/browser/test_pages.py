"""What a person finds on MLflow's and Prefect's pages after one turn of the loop."""

import re
import uuid
from copy import deepcopy
from uuid import UUID

import pytest
from playwright.sync_api import Page, expect

from semivl.registry.package import model_version
from semivl.registry.tracking import run_address, version_address
from semivl.services import runs
from tests.loop import parameters

PATIENCE = 30_000
"""milliseconds; the pages are large programs themselves"""


@pytest.fixture(scope="module")
def turned(services) -> dict:
    """The outcome of a finished turn of the loop."""
    given = parameters(f"t-{uuid.uuid4().hex[:8]}")
    started = turn(given)
    return runs.outcome(started) | {
        "run": runs.page(started),
        "runs": runs.runs_page(),
        "form": deployment_page(),
        "given": given,
    }


def turn(given: dict) -> UUID:
    """The id of a finished turn of the loop."""
    started = runs.start(runs.PIPELINE, given)
    said: list[str] = []
    ended = runs.follow(started, said.append)
    assert ended.completed, (ended, said)
    return started


@pytest.fixture(scope="module")
def refused(turned) -> str:
    """The model, with a champion and a challenger that the gate refused: no lead exceeds its margin."""
    changed = deepcopy(turned["given"])
    changed["overrides"]["train"]["seed"] = 1
    changed["overrides"]["gate"] = {"margin": 100.0}
    assert runs.outcome(turn(changed))["gate"] == "kept out"
    return changed["overrides"]["model"]


def deployment_page() -> str:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name("semivl-train/local")
    return f"{runs.runs_page().removesuffix('/runs')}/deployments/deployment/{found.id}/run"


def test_mlflow_shows_the_champion(turned, page: Page, tmp_path):
    page.goto(turned["model page"])
    expect(page.get_by_text(re.compile(r"^@\s*champion$")).first).to_be_visible(timeout=PATIENCE)
    page.screenshot(path=tmp_path / "mlflow-champion.png", full_page=True)


def test_mlflow_shows_champion_and_challenger_side_by_side(turned, refused, page: Page, tmp_path):
    page.goto(version_address(refused, 1).removesuffix("/versions/1"))
    for alias in ("champion", "challenger"):
        expect(page.get_by_text(re.compile(rf"^@\s*{alias}$")).first).to_be_visible(timeout=PATIENCE)
    page.screenshot(path=tmp_path / "mlflow-model.png", full_page=True)


@pytest.mark.parametrize(("alias", "decided"), [("champion", "promoted"), ("challenger", "rejected")])
def test_mlflow_shows_the_decision_and_the_scores_of(turned, refused, alias, decided, page: Page, tmp_path):
    version = model_version(refused, alias)
    page.goto(version_address(refused, int(version.version)))
    expect(page.get_by_text(re.compile(rf"^@\s*{alias}$")).first).to_be_visible(timeout=PATIENCE)
    page.screenshot(path=tmp_path / f"mlflow-{alias}.png", full_page=True)
    for words in ("gate.decision", decided, "gate.reason", "gate.challenger_miou"):
        expect(page.get_by_text(words).first).to_be_visible(timeout=PATIENCE)
    assert version.run_id
    page.goto(run_address(version.run_id))
    expect(page.get_by_text("val/miou", exact=True).first).to_be_visible(timeout=PATIENCE)
    page.screenshot(path=tmp_path / f"mlflow-{alias}-run.png", full_page=True)


def test_mlflow_shows_the_report(turned, page: Page, tmp_path):
    page.goto(turned["report"])
    expect(page.frame_locator("iframe").get_by_text("mIoU").first).to_be_visible(timeout=PATIENCE)
    page.screenshot(path=tmp_path / "mlflow-report.png")


def test_prefect_shows_the_run_with_its_stages_and_outcome(turned, page: Page, tmp_path):
    page.goto(turned["runs"])
    expect(page.get_by_text("semivl-pipeline").first).to_be_visible(timeout=PATIENCE)
    page.screenshot(path=tmp_path / "prefect-runs.png")
    page.goto(turned["run"])
    expect(page.get_by_text("Completed").first).to_be_visible(timeout=PATIENCE)
    page.get_by_text("Artifacts", exact=True).first.click()
    expect(page.get_by_text("Outcome of demo-supervised").first).to_be_visible(timeout=PATIENCE)
    page.screenshot(path=tmp_path / "prefect-artifacts.png")


def test_prefect_shows_the_settings_as_a_form(turned, page: Page, tmp_path):
    page.goto(turned["form"])
    expect(page.get_by_text("name of a file in conf/experiment").first).to_be_visible(timeout=PATIENCE)
    page.get_by_text("ConfigOverrides", exact=True).click()
    expect(page.get_by_text("name in the model registry").first).to_be_visible(timeout=PATIENCE)
    page.screenshot(path=tmp_path / "prefect-form.png", full_page=True)
