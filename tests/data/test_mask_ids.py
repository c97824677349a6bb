"""A data set's own mask ids become class ids in what is kept, once, and nothing else changes."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from semivl.config import IGNORE, ClassDefinition, Classes, DataConfig
from semivl.data.checks import Checked, Limits, Quarantined, examine
from semivl.data.decode import decode_mask
from semivl.data.ingest import ingest
from semivl.data.mask_ids import MaskIds, class_ids, table
from semivl.data.outlines import drawn
from semivl.data.sample import Source
from semivl.data.source_files import LocalFiles, read_files
from semivl.errors import DataError


def png(values: np.ndarray, mode: str = "L") -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette(bytes(768))
    image.convert(mode).save(file, "PNG")
    return file.getvalue()


def classes(count: int) -> Classes:
    return named(*map(str, range(count)))


def named(*names: str) -> Classes:
    return Classes(classes=tuple(ClassDefinition(name=n) for n in names))  # pyright: ignore[reportCallIssue]


def check(source: Source, root: Path, classes: Classes, limits: Limits) -> Checked | Quarantined:
    read = read_files(LocalFiles(root), source, classes, limits)
    return read if isinstance(read, Quarantined) else examine(source, read, classes, limits)


def test_ade20k_ids_are_one_less_and_0_is_ignored():
    assert table("ade20k").tolist() == [IGNORE, *range(254), IGNORE]


def test_cityscapes_has_19_classes_and_the_rest_of_its_ids_are_ignored():
    found = table("cityscapes")[:34]
    assert sorted(found[found != IGNORE].tolist()) == list(range(19))
    named = {"road": 7, "sidewalk": 8, "vegetation": 21, "person": 24, "bus": 28, "train": 31, "bicycle": 33}
    assert [int(found[i]) for i in named.values()] == [0, 1, 8, 11, 15, 16, 18]
    assert table("cityscapes")[34:].tolist() == list(range(34, 256))


@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_mask_is_kept_as_class_ids(tmp_path, make, mode):
    make.photo(tmp_path / "a.jpg", size=(5, 4))
    values = np.array([[0, 1, 2, 150, 255]] * 4, np.uint8)
    (tmp_path / "a.png").write_bytes(png(values, mode))
    source = Source(Path("a.jpg"), "train", Path("a.png"), mask_ids="ade20k")
    found = check(source, tmp_path, classes(150), Limits())
    assert isinstance(found, Checked) and found.files.mask
    assert decode_mask(found.files.mask).tolist() == [[255, 0, 1, 149, 255]] * 4
    assert (found.row.ignored, found.row.pixels[0], found.row.pixels[149]) == (8, 4, 4)
    assert found.row.mask_bytes == len(found.files.mask)


def test_a_second_ingest_finds_the_rewritten_masks_unchanged(environment, dataset, tmp_path, make):
    for name in ("training/a", "training/b", "validation/c"):
        make.photo(tmp_path / f"images/{name}.jpg", ord(name[-1]))
        make.mask(tmp_path / f"annotations/{name}.png")
    (tmp_path / "val.txt").write_text("validation/c\n")
    config = DataConfig(dataset=dataset, source=tmp_path, layout="ade20k", evaluation_list="val.txt")
    first = ingest(config, classes(150))
    assert (first.samples, first.quarantined) == (3, 0)
    assert ingest(config, classes(150)) == first


def test_an_id_that_the_data_set_does_not_know_is_told(tmp_path, make):
    make.photo(tmp_path / "a.jpg", size=(5, 4))
    (tmp_path / "a.png").write_bytes(png(np.full((4, 5), 34, np.uint8)))
    source = Source(Path("a.jpg"), "train", Path("a.png"), mask_ids="cityscapes")
    found = check(source, tmp_path, classes(19), Limits())
    assert isinstance(found, Quarantined) and found.code == "DATA004"


@pytest.mark.parametrize("ids", ["ade20k", "cityscapes"])
def test_what_is_no_mask_is_left_to_the_checks(ids: MaskIds):
    colours = png(np.zeros((4, 5, 3), np.uint8), "RGB")
    for data in (b"", b"text", colours, colours[:30]):
        assert class_ids(data, ids) == data


def test_class_ids_stay_the_sources_own_bytes():
    data = png(np.zeros((4, 5), np.uint8))
    assert class_ids(data, "class") is data


def test_the_same_mask_gives_the_same_bytes():
    data = png(np.arange(20, dtype=np.uint8).reshape(4, 5))
    assert class_ids(data, "ade20k") == class_ids(data, "ade20k")


def values(data: bytes) -> list[list[int]]:
    return np.asarray(Image.open(io.BytesIO(data))).tolist()


@pytest.mark.parametrize("mode", ["L", "P"])
def test_ids_to_ignore_are_those_of_the_masks_themselves(mode):
    data = png(np.array([[0, 1, 11, 255]], np.uint8), mode)
    assert values(class_ids(data, "class", '{"ignore": [11]}')) == [[0, 1, 255, 255]]
    assert values(class_ids(data, "ade20k", '{"ignore": [1]}')) == [[255, 255, 10, 255]]


COLOURS = [[64, 128, 64, "Animal"], [0, 0, 0, "Void"], [192, 0, 128, "road"], [64, 128, 65, "cat"]]
COLOURED = np.array([[[64, 128, 64], [0, 0, 0], [192, 0, 128], [64, 128, 65]]], np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_become_classes_by_their_names(mode):
    file = io.BytesIO()
    image = Image.fromarray(COLOURED)
    (image.quantize(4) if mode == "P" else image.convert(mode)).save(file, "PNG")
    told = json.dumps({"other": "ignore", "colours": COLOURS})
    found = class_ids(file.getvalue(), "colours", told, named("background", "road", "cat"))
    assert values(found) == [[255, 255, 1, 2]]
    told = told.replace("ignore", "background")
    assert values(class_ids(file.getvalue(), "colours", told, named("cat", "road", "background"))) == [[2, 2, 1, 0]]


def test_colour_that_nobody_named_is_told():
    data = png(np.concatenate([COLOURED, COLOURED + 1]), "RGB")
    with pytest.raises(DataError, match=r"DATA117 4 pixels.*\(65, 129, 65\)"):
        class_ids(data, "colours", json.dumps({"other": "ignore", "colours": COLOURS}), named("road", "cat"))


def test_segment_that_nobody_named_is_told():
    data = png(np.array([[[0, 0, 0], [7, 1, 0]]], np.uint8), "RGB")
    told = {"other": "ignore", "names": {"5": "cat"}, "segments": [[263, 5]]}
    assert values(class_ids(data, "panoptic", json.dumps(told), named("road", "cat"))) == [[255, 1]]
    with pytest.raises(DataError, match=r"DATA117.*segment 263"):
        class_ids(data, "panoptic", json.dumps(told | {"segments": [[262, 5]]}), named("road", "cat"))


def test_background_must_be_a_class_to_become_one():
    told = json.dumps({"other": "background", "colours": COLOURS})
    with pytest.raises(DataError, match=r"DATA115 Animal"):
        class_ids(png(COLOURED, "RGB"), "colours", told, named("road", "cat"))


def test_mask_with_more_pixels_than_allowed_is_not_decoded():
    data = png(np.zeros((100, 100, 3), np.uint8), "RGB")
    told = json.dumps({"other": "ignore", "colours": COLOURS})
    assert class_ids(data, "colours", told, named("road", "cat"), max_pixels=9999) is data
    assert class_ids(data, "colours", told, named("road", "cat"), max_pixels=10000) is not data


SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: st.binary(min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]).map(
        lambda data: np.frombuffer(data, np.uint8).reshape(shape) % 2
    )
)


def outline(size: list, segmentation) -> dict:
    layer = {"names": {"1": "cat"}, "objects": [{"category_id": 1, "segmentation": segmentation}]}
    return {"other": "ignore", "size": size, "layers": [layer]}


@settings(deadline=None, max_examples=60)
@given(SHAPES)
def test_run_lengths_give_back_what_they_were_made_of(mask):
    """In both of COCO's forms: the list, counted here, and the text, written by pycocotools."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat, prepend=0, append=2))
    counts = np.diff(ends, prepend=0).tolist()
    text = coco.encode(np.asfortranarray(mask))["counts"].decode()
    for form in (counts, text):
        found = drawn(outline([*mask.shape], {"size": [*mask.shape], "counts": form}), lambda _: 1, 0, 1000)
        assert (found == mask).all()


HOSTILE = {
    "no outline": [],
    "nothing": None,
    "a word": "cat",
    "a box": [[1, 2, 3, 4]],
    "half a point": [[0, 0, 3, 0, 3, 3, 0]],
    "words": [["0", 0, 3, 0, 3, 3]],
    "flat list": [0, 0, 3, 0, 3, 3],
    "no number": [[float("nan"), 0, 3, 0, 3, 3]],
    "endless": [[float("inf"), 0, 3, 0, 3, 3]],
    "far away": [[0, 0, 1e9, 0, 3, 3]],
    "beyond integers": [[0, 0, 10**400, 0, 3, 3]],
    "other size": {"size": [5, 4], "counts": [20]},
    "no counts": {"size": [4, 5]},
    "too few": {"size": [4, 5], "counts": [3, 4]},
    "too many": {"size": [4, 5], "counts": [3, 10**9]},
    "negative": {"size": [4, 5], "counts": [25, -5]},
    "halves": {"size": [4, 5], "counts": [10.0, 10.0]},
    "empty text": {"size": [4, 5], "counts": ""},
    "bad text": {"size": [4, 5], "counts": "\x7f~~~"},
    "endless text": {"size": [4, 5], "counts": "o" * 10_000},
}


@pytest.mark.parametrize("segmentation", HOSTILE.values(), ids=HOSTILE)
def test_outline_that_cannot_be_drawn_is_told(segmentation):
    told = json.dumps(outline([4, 5], segmentation))
    with pytest.raises(DataError, match="DATA116"):
        class_ids(None, "outlines", told, named("background", "cat"))


@pytest.mark.parametrize("size", [[0, 5], [4, None], [4.0, 5], [10**6, 10**6], [True, 5]])
def test_size_that_no_image_has_is_told(size):
    with pytest.raises(DataError, match="DATA116"):
        class_ids(None, "outlines", json.dumps(outline(size, [[0, 0, 3, 0, 3, 3]])), named("background", "cat"))


def test_the_same_annotation_gives_the_same_bytes_in_any_process():
    told = json.dumps(outline([40, 50], [[1.5, 2, 33.25, 4, 30, 38.5, -1, 20]]))
    code = (
        "import sys; from semivl.data.mask_ids import class_ids; from semivl.config import *; "
        "names = [ClassDefinition(name=n) for n in ('background', 'cat')]; "
        "sys.stdout.write(class_ids(None, 'outlines', sys.argv[1], Classes(classes=tuple(names))).hex())"
    )
    other = subprocess.run([sys.executable, "-c", code, told], capture_output=True, text=True, check=True).stdout
    assert class_ids(None, "outlines", told, named("background", "cat")).hex() == other
