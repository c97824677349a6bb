"""A data set's own mask ids become class ids in what is kept, once, and nothing else changes."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semivl.config import IGNORE, ClassDefinition, Classes, DataConfig
from semivl.data.checks import Checked, Quarantined, check, decode_mask
from semivl.data.ingest import ingest
from semivl.data.mask_ids import MaskIds, class_ids, table
from semivl.data.sample import Source


def png(values: np.ndarray, mode: str = "L") -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette(bytes(768))
    image.convert(mode).save(file, "PNG")
    return file.getvalue()


def classes(count: int) -> Classes:
    return Classes(classes=tuple(ClassDefinition(name=str(i)) for i in range(count)))


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
    found = check(source, tmp_path, classes(150), 10**6)
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
    found = check(source, tmp_path, classes(19), 10**6)
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
