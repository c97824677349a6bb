"""Every photo of a source gets its mask and its row, once, whatever else lies there and whoever kills the run."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from semivl.data.checks import Limits
from semivl.errors import SemivlError
from semivl.evaluation.scores import predicted_mask
from semivl.evaluation.window import sliding_logits
from semivl.serving import predict as predicting
from semivl.serving.finished import Model, load_model
from semivl.serving.predict import PredictSettings, Summary, predict
from semivl.serving.predict_ahead import Room
from semivl.serving.predict_outputs import LocalOutputs, Outputs, S3Outputs, open_outputs
from semivl.serving.predict_photos import open_photos
from semivl.training.bundle import load_bundle
from tests.conftest import free_port
from tests.data import hostile, pictures
from tests.serving.conftest import photo, write

NOT_HERE = (hostile.PASSES, "DATA014", "DATA030", "DATA031")
"""within the bounds of a prediction, which are wider than those of the corpus"""


@pytest.fixture(scope="module")
def model(bundle: Path) -> Iterator[Model]:
    """The model, on one thread: on a busy machine, threads that wait for each other take ten times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_model(str(bundle))
    torch.set_num_threads(threads)


def run(model: Model, source: Path | str, output: Path | Outputs, split=None, **settings: object) -> Summary:
    outputs = LocalOutputs(output) if isinstance(output, Path) else output
    return predict(model, open_photos(str(source), split, Limits()), outputs, PredictSettings(**settings))  # pyright: ignore


def manifest(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]


def contents(output: Path) -> dict[str, bytes]:
    """All that a run leaves, but for the times that it took."""
    files = {p.relative_to(output).as_posix(): p.read_bytes() for p in output.rglob("*") if p.is_file()}
    assert files.pop("timings.jsonl") is not None
    return files


def opened(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_masks_are_those_of_the_evaluation_and_rows_say_what_is_in_them(model, bundle, photos, tmp_path):
    write(photos / "cut.jpg", photo(0)[:500])
    write(photos / "notes.txt", b"no picture")
    done = run(model, photos, tmp_path / "out", confidence=True, overlays=True)
    header, *rows = manifest(tmp_path / "out")
    assert (done.photos, done.predicted, done.refused) == (14, 13, {"DATA003": 1})
    assert [row["name"] for row in rows] == sorted(row["name"] for row in rows) and len(rows) == 14
    assert header["version"] is None and len(header["weights"]) == 64
    own = load_bundle(bundle)
    for row in rows:
        if row["name"] == "cut.jpg":
            assert row["refused"]["code"] == "DATA003" and "mask" not in row
            continue
        seen = ImageOps.exif_transpose(Image.open(photos / row["name"]).convert("RGB"))
        mask = opened(tmp_path / "out" / row["mask"])
        assert np.array_equal(mask, predicted_mask(own, np.asarray(seen)))
        assert seen.size == (row["width"], row["height"])
        told = {header["categories"][i]["name"]: 100 * (mask == i).mean() for i in np.unique(mask)}
        assert row["classes"] == pytest.approx(told, abs=1e-4)
        sure = opened(tmp_path / "out" / row["confidence_map"])
        assert row["mean_confidence"] == pytest.approx(sure.mean() / 2.55, abs=0.006)
        assert opened(tmp_path / "out" / row["overlay"]).shape == (*mask.shape, 3)
    assert Image.open(tmp_path / "out/masks/a/00.png").mode == "P"


def test_confidence_is_the_softmax_of_the_averaged_logits(model, photos, tmp_path):
    run(model, photos, tmp_path / "out", confidence=True)
    pixels = np.asarray(Image.open(photos / "a/00.jpg"))
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
    with torch.inference_mode():
        logits = sliding_logits(model.predictor.logits, image, 3, model.predictor.evaluation)
    expected = 255 * logits.softmax(0).amax(0).numpy()
    assert np.abs(opened(tmp_path / "out/confidence/a/00.png") - expected).max() <= 0.51


class DiesError(Exception):
    pass


class Dying(LocalOutputs):
    """A folder whose writer dies before one of its writes."""

    left = 0

    def put(self, name: str, body: bytes) -> None:
        Dying.left -= 1
        if Dying.left < 0:
            raise DiesError
        super().put(name, body)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_run_that_dies_again_and_again_ends_with_the_bytes_of_one_that_did_not(
    model, photos, tmp_path, monkeypatch, batch
):
    monkeypatch.setattr(predicting, "_CHUNK", 4)
    write(photos / "broken.png", b"no picture")
    run(model, photos, tmp_path / "whole", batch=batch, coco=True)
    for writes in (0, 1, 4, 9, 12):
        Dying.left = writes
        with pytest.raises(DiesError):
            run(model, photos, Dying(tmp_path / "killed"), batch=batch, coco=True)
        assert not (tmp_path / "killed/predictions.jsonl").exists()
    done = run(model, photos, tmp_path / "killed", batch=batch, coco=True)
    assert 0 < done.reused < 13 and done.predicted + done.reused == 13
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_what_changed_is_predicted_again_and_what_went_away_goes(model, photos, tmp_path):
    run(model, photos, tmp_path / "out")
    before = contents(tmp_path / "out")
    assert run(model, photos, tmp_path / "out").predicted == 0 and contents(tmp_path / "out") == before
    write(photos / "a/00.jpg", photo(50))
    write(photos / "a/new.png", pictures.saved(pictures.pixels(51), "PNG"))
    (photos / "b/01.jpg").unlink()
    (tmp_path / "out/masks/a/02.png").unlink()
    done = run(model, photos, tmp_path / "out")
    assert (done.predicted, done.reused) == (3, 10)
    run(model, photos, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_other_weights_or_settings_predict_all_anew(model, photos, tmp_path):
    run(model, photos, tmp_path / "out")
    other = model._replace(weights="0" * 64)
    assert run(other, photos, tmp_path / "out").predicted == 13
    assert run(other, photos, tmp_path / "out", confidence=True).predicted == 13


def test_photos_of_one_name_but_for_the_ending_keep_their_masks_apart(model, tmp_path):
    write(tmp_path / "in/a.jpg", photo(1))
    write(tmp_path / "in/a.png", pictures.saved(pictures.pixels(2), "PNG"))
    run(model, tmp_path / "in", tmp_path / "out")
    assert {row["mask"] for row in manifest(tmp_path / "out")[1:]} == {"masks/a.jpg.png", "masks/a.png.png"}


def test_coco_json_loads_in_cocos_own_code_and_its_annotations_are_results(model, photos, tmp_path, capsys):
    from pycocotools.coco import COCO

    run(model, photos, tmp_path / "out", coco=True)
    loaded = COCO(tmp_path / "out/coco.json")
    found = loaded.loadRes(json.loads((tmp_path / "out/coco.json").read_text())["annotations"])
    assert len(loaded.getImgIds()) == 13 and found.getAnnIds()
    for image in loaded.loadImgs(loaded.getImgIds()[:3]):
        drawn = np.full((image["height"], image["width"]), 255, np.uint8)
        for annotation in loaded.loadAnns(loaded.getAnnIds(image["id"])):
            drawn[loaded.annToMask(annotation) == 1] = annotation["category_id"]
        assert np.array_equal(drawn, opened(tmp_path / "out/masks" / Path(image["file_name"]).with_suffix(".png")))


def test_photos_together_differ_from_photos_alone_in_hardly_a_pixel(model, photos, tmp_path):
    run(model, photos, tmp_path / "alone")
    run(model, photos, tmp_path / "together", batch=8)
    for path in (tmp_path / "alone/masks").rglob("*.png"):
        other = opened(tmp_path / "together" / path.relative_to(tmp_path / "alone"))
        assert (opened(path) != other).mean() < 0.005


def test_s3_gives_and_takes_the_same_bytes(model, photos, tmp_path, store):
    for path in photos.rglob("*.jpg"):
        store.put(f"in/{path.relative_to(photos).as_posix()}", path.read_bytes())
    outputs = open_outputs(store.address("out"), store.address("in"))
    assert isinstance(outputs, S3Outputs)
    run(model, store.address("in"), outputs)
    run(model, photos, tmp_path / "out")
    assert run(model, store.address("in"), outputs).predicted == 0
    theirs = {name: outputs.get(name) for name in outputs.names()}
    ours = contents(tmp_path / "out")
    assert {n: b for n, b in theirs.items() if n.startswith("masks/")} == {n: ours[n] for n in ours if n[0] == "m"}
    assert theirs["predictions.jsonl"].split(b"\n", 1)[1] == ours["predictions.jsonl"].split(b"\n", 1)[1]


def test_a_snapshots_split_is_predicted_by_its_keys(model, store, tmp_path):
    from semivl.config import DataConfig
    from semivl.data.ingest import ingest
    from tests.tiny import CLASSES

    for number in range(6):
        write(tmp_path / f"in/images/{number}.jpg", photo(number))
        mask = np.full((32, 40 + 8 * (number % 3)), number % 3, np.uint8)
        write(tmp_path / f"in/masks/{number}.png", pictures.saved(mask, "PNG"))
    write(tmp_path / "in/val.txt", b"0\n1\n")
    config = DataConfig(dataset="t-predict", source=tmp_path / "in", evaluation_list="val.txt")  # pyright: ignore
    version = ingest(config, CLASSES).version
    done = run(model, f"t-predict@{version}", tmp_path / "out", "val")
    header, *rows = manifest(tmp_path / "out")
    assert done.predicted == 2 and header["source"] == f"t-predict@{version} val"
    assert {row["source"] for row in rows} == {"images/0.jpg", "images/1.jpg"}
    assert all(row["mask"] == f"masks/{row['name']}.png" and len(row["name"]) == 16 for row in rows)
    assert run(model, "t-predict@HEAD", tmp_path / "all").predicted == 6


def test_a_whole_corpus_of_hostile_files_becomes_rows_with_codes(model, tmp_path):
    expected = {}
    for number, each in enumerate(h for h in hostile.corpus() if h.files.mask is None):
        if len(each.files.image) < 500_000 and each.code not in NOT_HERE:
            write(tmp_path / f"in/{number:03}.jpg", each.files.image)
            expected[f"{number:03}.jpg"] = each.code
    run(model, tmp_path / "in", tmp_path / "out", max_pixels=hostile.LIMITS.max_pixels, file_seconds=hostile.SECONDS)
    found = {row["name"]: row.get("refused", {}).get("code", "passes") for row in manifest(tmp_path / "out")[1:]}
    assert {name: (code, expected[name]) for name, code in found.items() if code != expected[name]} == {}
    assert len(found) > 60


@pytest.mark.parametrize(
    ("source", "output", "code"),
    [
        ("absent", "out", "PRED003"),
        ("empty", "out", "PRED008"),
        ("in", "in", "PRED005"),
        ("in", "in/out", "PRED005"),
        ("in", ".", "PRED005"),
        ("in", "mine", "PRED007"),
        ("in", "mine/file", "PRED006"),
        ("in", "s3://", "PRED004"),
        ("in", "s3://somebody-elses/out", "PRED004"),
        ("s3://no-such-bucket-here", "out", "DATA101"),
        ("no-such-dataset@HEAD", "out", "DATA201"),
    ],
)
def test_a_source_or_an_output_that_cannot_be_used_is_told(model, store, tmp_path, monkeypatch, source, output, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "in/a.jpg", photo(0))
    write(tmp_path / "mine/file", b"dear")
    with pytest.raises(SemivlError) as fault:
        photos = open_photos(source, None, Limits())
        predict(model, photos, open_outputs(output, photos.address), PredictSettings())  # pyright: ignore
    assert fault.value.code == code
    assert (tmp_path / "mine/file").read_bytes() == b"dear"


@pytest.mark.parametrize(
    ("address", "code"), [("nothing", "PRED001"), ("a/b/c", "PRED001"), ("name@", "PRED001"), ("folder", "TRAIN004")]
)
def test_a_model_that_cannot_be_used_is_told(tmp_path, monkeypatch, address, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(SemivlError) as fault:
        load_model(address)
    assert fault.value.code == code


@pytest.mark.parametrize("damage", ["model.safetensors", "model.json"])
def test_a_damaged_bundle_is_told(bundle, tmp_path, damage):
    for name in ("model.safetensors", "model.json"):
        body = (bundle / name).read_bytes()
        write(tmp_path / name, body[: len(body) // 2] if name == damage else body)
    with pytest.raises(SemivlError, match="PRED002"):
        load_model(str(tmp_path))


def test_room_bounds_what_is_held_and_lets_one_giant_in_alone():
    room = Room(100)
    assert room.take(60) and room.take(40)
    room.give_back(60)
    room.give_back(40)
    assert room.take(1000)
    room.give_back(1000)
    assert room.take(100)
    room.close()
    assert not room.take(1)


def test_the_command_needs_no_service_for_a_bundle(bundle, photos, tmp_path):
    from tests.test_cli import semivl

    environment = {"SEMIVL_HOME": str(tmp_path / "home"), "SEMIVL_MLFLOW_PORT": str(free_port())}
    environment["OMP_NUM_THREADS"] = "1"
    done = semivl("predict", str(photos), str(tmp_path / "out"), "--model", str(bundle), **environment)
    assert done.returncode == 0, done.stderr
    assert "13 of 13 photos" in done.stdout and done.stdout.splitlines()[-1].endswith("out/predictions.jsonl")


def test_16_bit_and_transparent_pictures_are_predicted_as_they_are_seen(model, bundle, tmp_path):
    clear = np.dstack([pictures.pixels(3), np.full((32, 48), 128, np.uint8)])
    write(tmp_path / "in/clear.png", pictures.saved(clear, "PNG"))
    run(model, tmp_path / "in", tmp_path / "out")
    white = Image.new("RGB", (48, 32), "white")
    white.paste(Image.open(io.BytesIO(pictures.saved(clear, "PNG"))), mask=Image.fromarray(clear[..., 3]))
    expected = predicted_mask(load_bundle(bundle), np.asarray(white))
    assert np.array_equal(opened(tmp_path / "out/masks/clear.png"), expected)
