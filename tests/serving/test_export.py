"""An exported model says what PyTorch says, at any size that it takes; what differs is never left behind."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from semivl.config import Config, EvaluationConfig, MethodConfig
from semivl.errors import ExportError, RegistryError, SemivlError, TrainingError
from semivl.methods import create
from semivl.methods import names as method_names
from semivl.serving import export as room
from semivl.serving.export import INFORMATION, export, read_onnx, read_torch, smallest_side
from semivl.serving.export_check import Difference, Run, require_equal
from semivl.serving.finished import load_model
from semivl.training.bundle import Predictor, load_bundle, save_bundle
from tests.test_cli import semivl
from tests.tiny import CLASSES, PATCH, SHAPE, N, tiny_vlm

SMALLEST = 2 * PATCH * SHAPE.pool
DECODER = {"decoder": SHAPE.model_dump(mode="json")}
HEAD = {"head": {"features": 8, "channels": [8, 8, 8, 8]}}
SETTINGS: dict[str, dict[str, Any]] = {
    "supervised": DECODER,
    "semivl": DECODER | {"average": True},
    "unimatch": {},
    "unimatch_v2": HEAD,
    "co_decomposition": {"regions": {"stages": 1}},
}
NOT_HERE = {"transfer", "spatial_grouping"}
"""transfer's finished model is semivl's or unimatch's; spatial_grouping's is no graph, which is told"""
SIZES = ((1, 64, 64), (3, 65, 71), (1, 130, 90))
READERS = {"onnx": read_onnx, "torch": read_torch}


def saved(folder: Path, method: str, **settings: Any) -> Path:
    """A bundle of random weights."""
    config = MethodConfig(name=method, settings=SETTINGS[method] | settings)
    vlm = tiny_vlm()
    chosen = create(config)
    model = chosen.build(CLASSES, vlm, not chosen.reads_text)
    any_config = Config.model_construct(
        name="tiny", method=config, classes=CLASSES, evaluation=EvaluationConfig(window=96, stride=64)
    )
    save_bundle(folder, any_config, model, vlm.encoder.architecture)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("bundle"), "supervised")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos, one of them too small."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name, size in (("a.jpg", (100, 120)), ("b.png", (64, 70)), ("c.jpg", (30, 200))):
        small = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        small.resize(size, Image.Resampling.BICUBIC).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def written(bundle: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, room.Exported]:
    """The supervised model in both formats."""
    folder = tmp_path_factory.mktemp("written")
    return {
        name: export(load_bundle(bundle), "tiny/3", folder / f"model{ending}", photos=photos)
        for ending, name in room.SUFFIXES.items()
    }


@pytest.fixture(scope="module")
def runs(written: dict[str, room.Exported]) -> dict[str, Run]:
    """Both files, read."""
    return {name: READERS[name](done.path) for name, done in written.items()}


def equal_at_all_sizes(predictor: Predictor, run: Run) -> None:
    torch.manual_seed(1)
    for batch, height, width in SIZES:
        images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
        expected = predictor.logits(images.float() / 255)
        torch.testing.assert_close(run(images), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_an_export_equals_pytorch_at_sizes_it_has_never_seen(bundle: Path, written, runs, format: str) -> None:
    done = written[format]
    equal_at_all_sizes(load_bundle(bundle), runs[format])
    assert done.smallest_side == SMALLEST
    assert done.made.is_small and done.made.images == 4 and done.made.logits < 1e-4
    assert (done.photos.images, done.photos.left_out) == (2, 1) and done.photos.is_small


def test_every_method_is_tried_here() -> None:
    assert set(SETTINGS) | NOT_HERE == set(method_names())


def test_groups_are_no_graph_and_that_is_told(tmp_path: Path) -> None:
    settings = {"groups": {"side": 32, "count": 3}}
    model = create(MethodConfig(name="spatial_grouping", settings=settings)).build(CLASSES, tiny_vlm(), False)
    config = Config.model_construct(
        name="tiny",
        method=MethodConfig(name="spatial_grouping", settings=settings),
        classes=CLASSES,
        evaluation=EvaluationConfig(window=96, stride=64),  # pyright: ignore[reportCallIssue]
    )
    save_bundle(tmp_path / "bundle", config, model, tiny_vlm().encoder.architecture)
    with pytest.raises(ExportError, match="EXP007"):
        export(load_bundle(tmp_path / "bundle"), "tiny", tmp_path / "tiny.pt2")
    assert not list(tmp_path.glob("*tiny.pt2"))


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torch"])
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("semivl", {}), ("semivl", {"text": "averages"}), ("unimatch", {}), ("unimatch", {"features": "clip"}),
        ("co_decomposition", {}),
        ("unimatch_v2", {}), ("supervised", {"decoder": DECODER["decoder"] | {"canvas": 80}}),
    ],
)  # fmt: skip
def test_every_method_exports(tmp_path: Path, method: str, settings: dict, format: str) -> None:
    predictor = load_bundle(saved(tmp_path / "bundle", method, **settings))
    done = export(predictor, "tiny", tmp_path / "model", format)
    equal_at_all_sizes(predictor, READERS[format](done.path))


def test_onnx_gives_masks_and_tells_what_they_mean(bundle: Path, written) -> None:
    import onnx
    import onnxruntime

    path = written["onnx"].path
    model = onnx.load(path)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", room.OPSET)]
    facts = {p.key: p.value for p in model.metadata_props}
    assert json.loads(facts["semivl.classes"]) == list(CLASSES.names)
    assert facts["semivl.model"] == "tiny/3" and facts["semivl.smallest_side"] == str(SMALLEST)
    assert json.loads(facts["semivl.normalisation"])["mean"] == [0.5, 0.5, 0.5]
    assert json.loads(facts["semivl.evaluation"])["window"] == 96
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [image] = session.get_inputs()
    assert (image.name, image.type, image.shape[1]) == ("image", "tensor(uint8)", 3)
    logits, mask = session.run(None, {"image": np.full((2, 3, 70, 80), 90, np.uint8)})
    assert logits.shape == (2, N, 70, 80) and mask.shape == (2, 70, 80)
    assert mask.dtype == np.uint8 and (mask == logits.argmax(1)).all()


@pytest.mark.slow
def test_a_pt2_runs_without_semivl(written) -> None:
    code = (
        "import sys, json, torch\n"
        "extra = {'semivl.json': ''}\n"
        "program = torch.export.load(sys.argv[1], extra_files=extra)\n"
        "logits, mask = program.module()(torch.zeros(1, 3, 70, 81, dtype=torch.uint8))\n"
        "ours = 'semivl' in sys.modules\n"
        "print(json.dumps([list(logits.shape), list(mask.shape), ours, json.loads(extra['semivl.json'])]))"
    )
    done = subprocess.run([sys.executable, "-c", code, written["torch"].path], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    logits, mask, ours, facts = json.loads(done.stdout)
    assert (logits, mask, ours) == ([1, N, 70, 81], [1, 70, 81], False)
    assert json.loads(facts["semivl.classes"]) == list(CLASSES.names) and INFORMATION == "semivl.json"


def test_smaller_images_are_refused_or_right_but_never_wrong(bundle: Path, runs) -> None:
    predictor = load_bundle(bundle)
    for side in (SMALLEST - 1, SMALLEST // 2, SMALLEST // 2 - PATCH, PATCH):
        images = torch.randint(0, 256, (1, 3, side, 90), dtype=torch.uint8)
        expected = predictor.logits(images.float() / 255)
        for run in runs.values():
            try:
                found = run(images)
            except Exception:  # each runtime has its own
                continue
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_what_differs_is_not_left_behind(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bent(path: Path) -> Any:
        run = read_torch(path)
        return lambda images: run(images) + 0.02

    monkeypatch.setitem(room.READERS, "torch", bent)
    with pytest.raises(ExportError, match=r"EXP005.*0\.02.*not written"):
        export(load_bundle(bundle), "tiny", tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("logits", "largest", "equal", "small"),
    [
        (0.0, 0.0, 1.0, True), (1e-3, 0.5, 1.0, True), (1.1e-3, 0.5, 1.0, False), (9e-3, 10.0, 1.0, True),
        (1e-6, 1.0, 0.998, False), (float("inf"), 1.0, 1.0, False), (float("nan"), 1.0, 1.0, False),
    ],
)  # fmt: skip
def test_the_tolerance_is_of_logits_and_of_classes(logits: float, largest: float, equal: float, small: bool) -> None:
    found = Difference(images=1, logits=logits, largest=largest, equal=equal)
    assert found.is_small == small
    if not small:
        with pytest.raises(ExportError, match="EXP005"):
            require_equal(found, Path("x"))


@pytest.mark.parametrize(
    ("output", "format", "code"),
    [
        ("model.tflite", None, "EXP002"),
        ("model.onnx", "coreml", "EXP002"),
        ("model", None, "EXP002"),
        ("there.pt2", None, "EXP003"),
        ("nowhere/model.pt2", None, "EXP003"),
    ],
)
def test_an_output_that_cannot_be_is_told_at_once(
    bundle: Path, tmp_path: Path, output: str, format: str | None, code: str
) -> None:
    (tmp_path / "there.pt2").write_bytes(b"kept")
    with pytest.raises(ExportError, match=code):
        export(load_bundle(bundle), "tiny", tmp_path / output, format)
    assert (tmp_path / "there.pt2").read_bytes() == b"kept"


def test_onnx_without_its_packages_says_what_to_install(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(ExportError, match=r"EXP001.*no_such_package.*semivl\[export\]"):
        export(load_bundle(bundle), "tiny", tmp_path / "model.onnx")


def test_photos_that_cannot_be_compared_on_are_told(bundle: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    Image.new("RGB", (40, 300)).save(tmp_path / "small" / "a.png")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes((photos / "a.jpg").read_bytes()[:200])
    for folder, words in (("small", "1 smaller"), ("none", "0 smaller"), ("broken", "a.jpg cannot be decoded")):
        with pytest.raises(ExportError, match=f"EXP004.*{words}"):
            export(load_bundle(bundle), "tiny", tmp_path / "model.pt2", photos=tmp_path / folder)


@pytest.mark.parametrize("source", ["semivl-photos", "a@b@c", "a/b/c", "a/", "@champion", "nowhere/7x"])
def test_a_model_is_named_by_alias_version_or_folder(source: str) -> None:
    with pytest.raises(RegistryError, match="PRED001"):
        load_model(source)


def test_a_folder_without_a_model_is_told(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(TrainingError, match="TRAIN004"):
        load_model(str(tmp_path))
    model = load_model(str(bundle))
    assert model.named == bundle.name and smallest_side(model.predictor.model) == SMALLEST


@pytest.mark.slow
def test_the_command_writes_and_tells_how_near_it_is(bundle: Path, photos: Path, tmp_path: Path) -> None:
    done = semivl("export", str(bundle), str(tmp_path / "model.pt2"), "--check", str(photos))
    assert done.returncode == 0, done.stderr
    assert "made images" in done.stdout and "photos" in done.stdout and "64 pixels a side" in done.stdout
    again = semivl("export", str(bundle), str(tmp_path / "model.pt2"))
    assert again.returncode == 2 and again.stderr.startswith("error: EXP003") and again.stderr.count("\n") == 1


def test_a_name_that_is_not_registered_is_a_clear_error(mlflow_server: str) -> None:
    with pytest.raises(SemivlError, match="REG004"):
        load_model("no-such-model@champion")
