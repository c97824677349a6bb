"""CamVid's two forms: masks in colours that a text explains, and SegNet's folders of class ids."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from semivl.config import ClassDefinition, Classes
from semivl.data.checks import Checked, Files, Limits, Quarantined, examine
from semivl.data.decode import decode_mask
from semivl.data.layouts import list_sources
from semivl.data.source_files import open_source, read_files
from tests.sources import Place, config, listed, place, refused, write


@pytest.fixture(params=["folder", "s3"])
def at(request) -> Place:
    return place(request)


def png(pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.array(pixels, np.uint8)).save(file, "PNG")
    return file.getvalue()


COLOURS = "64 128 64\tAnimal\n\n128 0 64\t\tTrain \r\n0 0 0  Void\n192 0 128 Traffic Cone\n"


@pytest.mark.parametrize(("photos", "labels", "ending"), [("701_StillsRaw_full", "LabeledApproved_full", "_L"), ("images", "labels", "")])  # fmt: skip  # noqa: E501
@pytest.mark.parametrize("inside", [True, False])
def test_colour_masks_become_classes(tmp_path, make, at, photos, labels, ending, inside):
    make.photo(tmp_path / f"{photos}/0001TP_1.png", 1, (4, 1))
    make.photo(tmp_path / f"{photos}/0001TP_2.png", 2, (4, 1))
    mask = png([[[64, 128, 64], [128, 0, 64], [0, 0, 0], [192, 0, 128]]])
    place = f"{labels}/label_colors.txt" if inside else "label_colors.txt"
    write(tmp_path, {f"{labels}/0001TP_1{ending}.png": mask, place: COLOURS})
    classes = Classes(classes=tuple(ClassDefinition(name=n) for n in ("cone", "Train", "Animal")))
    settings = config(at(tmp_path), "camvid", categories={"Traffic Cone": "cone"})
    files = open_source(settings)
    first, second = list_sources(settings, files)
    assert (first.split, second.split, second.mask, second.masked) == (None, "train", None, False)
    read = read_files(files, first, classes, Limits())
    assert isinstance(read, Files) and read.mask
    assert decode_mask(read.mask).tolist() == [[2, 1, 255, 0]]
    assert isinstance(examine(first, read, classes, Limits()), Checked)


def test_colour_that_the_text_lacks_costs_its_image_alone(tmp_path, make):
    make.photo(tmp_path / "images/a.png", 1, (4, 1))
    write(tmp_path, {"labels/a.png": png([[[1, 2, 3]] * 4]), "label_colors.txt": COLOURS})
    settings = config(tmp_path, "camvid")
    (source,) = list_sources(settings)
    classes = Classes(classes=(ClassDefinition(name="Train"), ClassDefinition(name="Animal")))
    fault = read_files(open_source(settings), source, classes, Limits())
    assert isinstance(fault, Quarantined)
    assert (fault.code, fault.source, "(1, 2, 3)" in fault.reason) == ("DATA117", "labels/a.png", True)


def test_segnets_folders_are_the_splits_and_test_is_left_alone(tmp_path, at):
    for part, names in {"train": "ab", "val": "c", "test": "d"}.items():
        write(tmp_path, {f"{part}/{n}.png": "x" for n in names} | {f"{part}annot/{n}.png": "x" for n in names})
    write(tmp_path, {"train/e.png": "x", "l.txt": "train/a\n", "v.txt": "test/d.png testannot/d.png\n"})
    source = at(tmp_path)
    expected = {
        "train/a.png": ("train", "trainannot/a.png"),
        "train/b.png": ("train", "trainannot/b.png"),
        "train/e.png": ("train", None),
        "val/c.png": ("val", "valannot/c.png"),
    }
    assert listed(source, layout="camvid") == expected
    expected["train/b.png"] = ("train", None)
    assert listed(source, layout="camvid", labelled_list="l.txt") == expected
    found = listed(source, layout="camvid", evaluation_list="v.txt")
    assert [k for k, (split, _) in found.items() if split == "val"] == ["test/d.png"]
    assert found["val/c.png"] == ("train", "valannot/c.png")
    (told,) = {s.annotation for s in list_sources(config(source, "camvid", ignore_ids=(11,))) if s.mask}
    assert json.loads(told or "") == {"ignore": [11]}


def test_mask_of_segnets_without_its_image_stays_in_the_list(tmp_path):
    write(tmp_path, {"train/a.png": "x", "trainannot/b.png": "x"})
    assert listed(tmp_path, layout="camvid")["train/b.png"] == (None, "trainannot/b.png")


@pytest.mark.parametrize("line", ["64 128 Animal", "64 128 256 Animal", "64,128,64,Animal", "1 2 3", "² 2 3 Animal"])
def test_line_of_colours_with_another_shape(tmp_path, line):
    write(tmp_path, {"images/a.png": "x", "label_colors.txt": f"1 2 3 Cat\n{line}\n"})
    error = refused(tmp_path, layout="camvid")
    assert (error.code, "line 2" in str(error)) == ("DATA121", True)
