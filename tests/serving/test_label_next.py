"""The way round: a champion chooses, annotators correct what it drew, that comes back, and the samples have masks."""

import base64
import csv
import json
import re
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from semivl.config import Config, DataConfig
from semivl.data.cache import ShardCache, read_sample
from semivl.data.decode import decode_image, decode_mask
from semivl.data.ingest import ingest
from semivl.data.sample import key_of
from semivl.data.snapshot import read
from semivl.errors import LabelError, RegistryError
from semivl.evaluation.scores import predicted_mask
from semivl.registry.package import load_predictor, register
from semivl.registry.runs import open_run
from semivl.registry.tracking import client
from semivl.serving import label_scoring
from semivl.serving.label_import import import_labels
from semivl.serving.label_next import label_next
from semivl.serving.label_rle import brush, from_box_runs, from_brush
from tests.conftest import forget_settings
from tests.label_world import NAMES, UNLABELLED, bundle, world

FREE = UNLABELLED - 2
"""u002 looks like a labelled image, and u000 like u001"""


@pytest.fixture(scope="module")
def made(new_store, mlflow_server, tmp_path_factory) -> Iterator[tuple[Config, Path]]:
    """An experiment whose dataset is ingested and whose champion is in the registry, and a choice of all there is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMIVL_S3_BUCKET", new_store().bucket)
        forget_settings()
        folder = tmp_path_factory.mktemp("label-next")
        config, manifest = world(folder, f"label-{uuid.uuid4().hex[:8]}")
        with open_run(config, manifest, {}) as run:
            run.metrics(1, {"train/total": 1.0})
        version = register(run.run_id, bundle(folder / "bundle", config), config, manifest)
        client().set_registered_model_alias(config.registered_model, "champion", str(version))
        label_next(config, 20, folder / "choice")
        yield config, folder
    forget_settings()


def tasks(folder: Path) -> list[dict]:
    return json.loads((folder / "label-studio" / "tasks.json").read_text())


def lines(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "choice.csv").open(newline="")))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_unlabelled_training_images_are_chosen_once_and_look_alikes_left_out(made):
    config, folder = made
    snapshot = read_snapshot(config)
    chosen = [snapshot.find(line["key"]) for line in lines(folder / "choice")]
    assert len({row.key for row in chosen if row}) == len(chosen) == FREE
    assert all(row and row.split == "train" and row.supervision == "none" for row in chosen)
    names = {row.source for row in chosen if row}
    assert "images/u002.jpg" not in names
    assert len(names & {"images/u000.jpg", "images/u001.jpg"}) == 1


def test_the_same_again_is_the_same_bytes_and_asks_the_model_only_for_what_it_draws(made, monkeypatch):
    config, folder = made
    asked = []
    said = label_scoring.said
    monkeypatch.setattr("semivl.serving.label_pool.said", lambda *given: asked.append(1) or said(*given))
    label_next(config, 20, folder / "again")
    assert files(folder / "again") == files(folder / "choice")
    assert asked == []
    label_next(config, 20, folder / "again", seed=1)
    assert sorted(line["key"] for line in lines(folder / "again")) == sorted(
        line["key"] for line in lines(folder / "choice")
    )
    assert lines(folder / "again") != lines(folder / "choice"), "another order"
    assert not list(folder.glob(".again*"))


def test_tasks_hold_the_images_own_bytes_and_what_the_model_draws(made):
    config, folder = made
    snapshot, predictor = read_snapshot(config), load_predictor(config.registered_model, "champion")
    for task in tasks(folder / "choice"):
        image = base64.b64decode(task["data"]["image"].partition("base64,")[2])
        assert key_of(image) == task["data"]["key"]
        row = snapshot.find(key_of(image))
        assert row
        mask = predicted_mask(predictor, decode_image(image))
        (prediction,) = task["predictions"]
        drawn = np.zeros_like(mask)
        for result in prediction["result"]:
            (label,) = result["value"]["brushlabels"]
            drawn[from_brush(result["value"]["rle"], row.height, row.width)] = NAMES.index(label)
        assert (drawn == mask).all()
        assert 0 <= prediction["score"] <= 1
    interface = ElementTree.parse(folder / "choice" / "label-studio" / "interface.xml")
    brushes, outlines = ([e.get("value") for e in interface.iter(tag)] for tag in ("Label", "Label"))
    assert brushes == outlines == [*NAMES, *NAMES]


def test_cvats_package_holds_the_images_and_the_same_masks(made):
    _, folder = made
    cvat = folder / "choice" / "cvat"
    with zipfile.ZipFile(cvat / "images.zip") as file:
        images = {Path(name).stem: file.read(name) for name in file.namelist()}
    assert {key: key_of(image) for key, image in images.items()} == {
        t["data"]["key"]: t["data"]["key"] for t in tasks(folder / "choice")
    }
    document = ElementTree.parse(cvat / "annotations.xml")
    assert document.findtext("version") == "1.1"
    assert [e.text for e in document.iter("name")] == list(NAMES)
    by_key = {t["data"]["key"]: t["predictions"][0]["result"] for t in tasks(folder / "choice")}
    for image in document.iter("image"):
        height, width = int(image.get("height", 0)), int(image.get("width", 0))
        drawn = {m.get("label"): region(m, height, width) for m in image.iter("mask")}
        same = {
            r["value"]["brushlabels"][0]: from_brush(r["value"]["rle"], height, width)
            for r in by_key[Path(image.get("name", "")).stem]
        }
        assert drawn.keys() == same.keys()
        assert all((drawn[label] == same[label]).all() for label in drawn)
    assert [label["name"] for label in json.loads((cvat / "labels.json").read_text())] == list(NAMES)


def test_the_gallery_is_one_file_that_tells_why(made):
    config, folder = made
    page = (folder / "choice" / "index.html").read_text()
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page), "it needs nothing else"
    for line in lines(folder / "choice"):
        assert line["source"] in page
        assert f"{float(line['uncertainty']):.3f}" in page
        assert f"to {line['nearest_labelled']}" in page
    assert "dog &amp; co" in page
    assert "Left out as near-duplicates: 1 of labelled images, 1 of chosen ones" in page
    assert config.registered_model in page


def test_a_choice_that_annotators_corrected_comes_back_as_masks_of_the_next_snapshot(made):
    config, folder = made
    first, second, *_ = tasks(folder / "choice")
    row = read_snapshot(config).find(first["data"]["key"])
    assert row
    cat = np.zeros((row.height, row.width), bool)
    cat[5:20, 10:30] = True
    result = {
        "id": "new", "type": "brushlabels", "from_name": "mask", "to_name": "image", "original_width": row.width,
        "original_height": row.height, "image_rotation": 0,
        "value": {"format": "rle", "rle": brush(cat), "brushlabels": ["cat"]},
    }  # fmt: skip
    exported = [
        {**first, "id": 1, "annotations": [{"id": 7, "result": [result], "updated_at": "2026-01-02T03:04:05Z"}]},
        {**second, "id": 2, "annotations": [{"id": 8, "result": second["predictions"][0]["result"]}]},
        *tasks(folder / "choice")[2:],
    ]
    export = folder / "export.json"
    export.write_text(json.dumps(exported))
    done = import_labels(config, export, "label-studio", folder / "labels")
    assert (done.images, done.undrawn) == (2, FREE - 2)
    same = import_labels(config, folder / "choice" / "cvat" / "annotations.xml", "cvat", folder / "from-cvat")
    drawn_by_cvat = decode_mask((folder / "from-cvat" / "masks" / f"{second['data']['key']}.png").read_bytes())
    drawn_by_studio = decode_mask((folder / "labels" / "masks" / f"{second['data']['key']}.png").read_bytes())
    assert (drawn_by_cvat == drawn_by_studio).all()
    assert same.images + same.undrawn == FREE
    data = DataConfig.model_validate(
        config.data.model_dump()
        | {"source": folder / "labels", "evaluation_list": None, "split_table": "splits.csv", "layout": "folder"}
    )
    before = read_snapshot(config).manifest
    after = ingest(data, config.classes, workers=1)
    assert after.samples == before.samples
    assert after.counts["train/mask"] == before.counts["train/mask"] + 2
    found = read_snapshot(config).find(row.key)
    assert found and found.supervision == "mask"
    mask = read_sample(ShardCache(store_of(), config.data.dataset, folder / "shards"), found)[1]
    assert mask and (decode_mask(mask) == cat).all()
    label_next(config, 20, folder / "next-round")
    left = {line["key"] for line in lines(folder / "next-round")}
    assert left == {line["key"] for line in lines(folder / "choice")} - {first["data"]["key"], second["data"]["key"]}


def test_a_pool_larger_than_is_looked_at_is_drawn_from_and_told(made):
    config, folder = made
    head = label_next(config, 2, folder / "few", most=3)
    assert (head.scored, head.asked) == (3, 2)
    assert head.chosen in (1, 2), "the three may look the same"
    assert head.unlabelled > 3
    assert "3 drawn at random were looked at" in (folder / "few" / "index.html").read_text()


def test_what_cannot_be_chosen_from_is_refused(made, tmp_path, monkeypatch):
    config, folder = made
    with pytest.raises(RegistryError, match="REG004 model none-such has no version or alias champion"):
        label_next(config, 2, tmp_path / "out", model="none-such@champion")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(LabelError, match="LABEL002"):
        label_next(config, 2, tmp_path / "full")
    (tmp_path / "file").write_text("x")
    with pytest.raises(LabelError, match="LABEL002"):
        label_next(config, 2, tmp_path / "file")
    monkeypatch.setattr("semivl.serving.label_files.card", lambda *given: 1 / 0)
    before = files(folder / "choice")
    with pytest.raises(ZeroDivisionError):
        label_next(config, 2, folder / "choice")
    assert files(folder / "choice") == before, "what was there stays until all of the new is written"
    assert not list(folder.glob(".choice*"))


def store_of():
    from semivl.data.store import open_store

    return open_store()


def read_snapshot(config: Config):
    return read(store_of(), config.data.dataset)


def region(mask, height: int, width: int) -> np.ndarray:
    box = [int(mask.get(side)) for side in ("left", "top", "width", "height")]
    return from_box_runs([int(n) for n in mask.get("rle").split(",")], (box[0], box[1], box[2], box[3]), height, width)
