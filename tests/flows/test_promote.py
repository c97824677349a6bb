"""The gate on real models: what is better is promoted; equal, overfed and judged elsewhere is refused with its code."""

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from flows.ingest import ingest
from flows.promote import promote
from flows.train import train
from flows.validate import validate
from semivl.data.scenes import write_scenes
from semivl.registry.decision import of_version
from semivl.registry.frozen import frozen_set
from semivl.registry.package import alias_version, model_version
from semivl.registry.promotion import CHAMPION
from semivl.registry.reigns import reigns
from semivl.registry.rollback import rollback
from semivl.registry.tracking import client
from tests.loop import parameters

pytestmark = [pytest.mark.usefixtures("mlflow_server", "prefect_server"), pytest.mark.slow]
BUDGETS = {"latency_ratio": 20.0, "ece_rise": 100.0}
"""of models that take a few milliseconds on a busy machine"""


def given(dataset: str, source: Path, steps: int = 2, model: str | None = None, **gate) -> dict:
    made = parameters(dataset, steps=steps, source=source)
    made["overrides"] |= {"gate": BUDGETS | gate} | ({"model": model} if model else {})
    return made


def trained(arguments: dict) -> tuple[str, int]:
    """The version of the snapshot and of the model."""
    snapshot = ingest(**arguments)
    validate(**arguments)
    return snapshot, train(**arguments)


def with_copies(source: Path, judged: Path) -> Path:
    """The source with the evaluation photos of another one among its labelled photos, saved anew."""
    listed = (source / "labelled.txt").read_text().split()
    for name in (judged / "evaluation.txt").read_text().split():
        stem = f"seen-{Path(name).stem}"
        photo = next((judged / "images").glob(f"{Path(name).stem}.*"))
        file = io.BytesIO()
        Image.open(photo).save(file, "JPEG", quality=97)
        (source / "images" / f"{stem}.jpg").write_bytes(file.getvalue())
        shutil.copy(judged / "masks" / f"{Path(name).stem}.png", source / "masks" / f"{stem}.png")
        listed.append(stem if "." not in name else f"{stem}.jpg")
    (source / "labelled.txt").write_text("\n".join(listed) + "\n")
    return source


def test_real_models_meet_the_gate(store, dataset, tmp_path):
    judged, other = tmp_path / "judged", tmp_path / "other"
    write_scenes(judged, 5, 6, 6, 16, 64)
    write_scenes(other, 77, 6, 6, 5, 64)
    model = f"semivl-{dataset}"

    small = given(dataset, judged)
    snapshot, untrained = trained(small)
    first = promote(**small)
    assert first.promoted and first.champion is None and alias_version(model, CHAMPION) == untrained == 1
    frozen = frozen_set(store, model)
    assert frozen and (frozen.snapshot, frozen.digest, frozen.images) == (snapshot, first.digest, 16)

    longer = given(dataset, judged, steps=150)
    better = trained(longer)[1]
    second = promote(**longer)
    assert second.promoted and second.low is not None and second.low > 0, second.reason
    assert {rule.code for rule in second.rules} >= {"GATE004", "GATE005", "GATE007"}
    assert alias_version(model, CHAMPION) == better == 2

    known = model_version(model, better)
    tags = {name: known.tags[name] for name in ("semivl.dataset", "semivl.snapshot")}
    source = str(known.source)
    files = source.removeprefix("models:/")
    copy = client().create_model_version(model, source, known.run_id, tags=tags, model_id=files)
    equal = promote(**longer, version=int(copy.version))
    assert equal.failed == ("GATE004",) and equal.difference == 0
    assert promote(**small, version=1).failed[0] == "GATE004", "worse"

    source = with_copies(other, judged)
    for place in ("images", "masks"):
        for path in (other / place).glob("evaluation-*"):
            shutil.copy(path, judged / place / f"more-{path.name}")
    listed = (judged / "evaluation.txt").read_text().split()
    more = [f"more-{name}" for name in (other / "evaluation.txt").read_text().split()]
    (judged / "evaluation.txt").write_text("\n".join([*listed, *more]) + "\n")
    grown = ingest(**longer)
    assert grown != snapshot
    elsewhere = promote(**longer, version=int(copy.version), snapshot=grown)
    assert elsewhere.failed[0] == "GATE001" and elsewhere.images == 21
    assert promote(**longer, version=int(copy.version)) == equal, "without asking, it is the frozen set"

    overfed = given(f"{dataset}-x", source, steps=150, model=model)
    fed = trained(overfed)[1]
    third = promote(**longer, version=fed)
    assert "GATE002" in third.failed
    seen = next(rule for rule in third.rules if rule.code == "GATE002")
    assert seen.value and seen.value >= 14 and "looks like" in seen.found

    assert alias_version(model, CHAMPION) == better
    rollback(store, model, "it sees ghosts", "ann")
    assert "GATE011" in promote(**longer, version=better).failed
    assert [reign.version for reign in reigns(store, model)] == [1, 2, 1]
    assert len(of_version(store, model, better)) == 2
