"""A layout lists every image once, with the mask and the split that the source's lists give it."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from semivl.config import DataConfig
from semivl.data.layouts import list_sources
from semivl.errors import DataError
from semivl.settings import ROOT


def config(source: Path, layout="folder", **fields) -> DataConfig:
    return DataConfig(dataset="d", source=source, layout=layout, **fields)


def listed(source: Path, **fields) -> dict[str, tuple[str, str | None]]:
    found = list_sources(config(source, **fields))
    assert [s.image.as_posix() for s in found] == sorted({s.image.as_posix() for s in found})
    return {s.image.as_posix(): (s.split, s.mask.as_posix() if s.mask else None) for s in found}


def refused(source: Path, **fields) -> DataError:
    with pytest.raises(DataError) as raised:
        list_sources(config(source, **fields))
    return raised.value


@pytest.fixture
def voc(tmp_path, make) -> Path:
    for i in range(5):
        make.photo(tmp_path / f"JPEGImages/{i}.jpg", i)
        make.mask(tmp_path / f"SegmentationClass/{i}.png")
    (tmp_path / "splits/92").mkdir(parents=True)
    (tmp_path / "splits/92/labeled.txt").write_text("JPEGImages/0.jpg SegmentationClass/0.png\n\n1\n")
    (tmp_path / "splits/val.txt").write_text("JPEGImages/4.jpg SegmentationClass/4.png\r\n")
    return tmp_path


def test_only_listed_masks_are_used(voc):
    found = listed(voc, layout="voc", labelled_list="splits/92/labeled.txt", evaluation_list="splits/val.txt")
    assert found == {
        "JPEGImages/0.jpg": ("train", "SegmentationClass/0.png"),
        "JPEGImages/1.jpg": ("train", "SegmentationClass/1.png"),
        "JPEGImages/2.jpg": ("train", None),
        "JPEGImages/3.jpg": ("train", None),
        "JPEGImages/4.jpg": ("val", "SegmentationClass/4.png"),
    }


def test_voc_without_lists_takes_its_image_sets(voc):
    (voc / "ImageSets/Segmentation").mkdir(parents=True)
    (voc / "ImageSets/Segmentation/train.txt").write_text("2\n")
    (voc / "ImageSets/Segmentation/val.txt").write_text("3\n4\n")
    found = listed(voc, layout="voc")
    assert [k for k, (split, _) in found.items() if split == "val"] == [
        "JPEGImages/3.jpg",
        "JPEGImages/4.jpg",
    ]
    assert [k for k, (split, mask) in found.items() if split == "train" and mask] == ["JPEGImages/2.jpg"]


def test_only_images_of_the_train_list_are_trained_on(voc):
    (voc / "train.txt").write_text("0\n1\n2\n")
    lists = {"labelled_list": "splits/92/labeled.txt", "evaluation_list": "splits/val.txt"}
    found = listed(voc, layout="voc", train_list="train.txt", **lists)
    assert found == {k: v for k, v in listed(voc, layout="voc", **lists).items() if "3" not in k}


def test_a_list_that_the_source_lacks_is_one_of_the_checkout(voc, make):
    make.photo(voc / "JPEGImages/2007_000733.jpg", 9)
    found = listed(voc, layout="voc", labelled_list="conf/splits/voc/92.txt", evaluation_list="splits/val.txt")
    assert found["JPEGImages/2007_000733.jpg"] == ("train", "SegmentationClass/2007_000733.png")
    assert sum(mask is not None for split, mask in found.values() if split == "train") == 92
    (voc / "conf/splits/voc").mkdir(parents=True)
    (voc / "conf/splits/voc/92.txt").write_text("2\n")
    found = listed(voc, layout="voc", labelled_list="conf/splits/voc/92.txt", evaluation_list="splits/val.txt")
    assert [k for k, (split, mask) in found.items() if split == "train" and mask] == ["JPEGImages/2.jpg"]


def meanings(source: Path, layout: str, **fields) -> dict[str, str]:
    return {s.mask.as_posix(): s.mask_ids for s in list_sources(config(source, layout, **fields)) if s.mask}


@pytest.fixture
def ade20k(tmp_path, make) -> Path:
    for name in ("training/ADE_train_00001609", "training/ADE_train_00000002", "validation/ADE_val_00000001"):
        make.photo(tmp_path / f"images/{name}.jpg", len(name))
        make.mask(tmp_path / f"annotations/{name}.png")
    (tmp_path / "val.txt").write_text("validation/ADE_val_00000001\n")
    (tmp_path / "labelled.txt").write_text(
        "images/training/ADE_train_00001609.jpg annotations/training/ADE_train_00001609.png\n"
    )
    return tmp_path


def test_ade20k_has_ids_of_its_own(ade20k):
    lists = {"labelled_list": "labelled.txt", "evaluation_list": "val.txt"}
    assert listed(ade20k, layout="ade20k", **lists) == {
        "images/training/ADE_train_00000002.jpg": ("train", None),
        "images/training/ADE_train_00001609.jpg": ("train", "annotations/training/ADE_train_00001609.png"),
        "images/validation/ADE_val_00000001.jpg": ("val", "annotations/validation/ADE_val_00000001.png"),
    }
    assert set(meanings(ade20k, "ade20k", **lists).values()) == {"ade20k"}


def test_layouts_with_a_published_validation_set_take_its_list(ade20k):
    found = listed(ade20k, layout="ade20k", labelled_list="conf/splits/ade20k/158.txt")
    assert sum(split == "val" for split, _ in found.values()) == 2000
    assert sum(split == "train" and mask is not None for split, mask in found.values()) == 158
    assert found["images/training/ADE_train_00000002.jpg"] == ("train", None)


def test_cityscapes_takes_train_ids_where_there_are_any(tmp_path, make):
    names = ("train/jena/jena_000078_000019", "train/ulm/ulm_000001_000019", "val/lindau/lindau_000000_000019")
    for i, name in enumerate((*names, "test/bonn/bonn_000000_000019")):
        make.photo(tmp_path / f"leftImg8bit/{name}_leftImg8bit.png", i)
        for kind in ("labelIds", "instanceIds", "color"):
            make.mask(tmp_path / f"gtFine/{name}_gtFine_{kind}.png")
    make.mask(tmp_path / f"gtFine/{names[0]}_gtFine_labelTrainIds.png")
    (tmp_path / "val.txt").write_text(f"{names[2]}_leftImg8bit\n")
    pairs = {f"leftImg8bit/{n}_leftImg8bit.png": f"gtFine/{n}_gtFine_labelIds.png" for n in names}
    pairs[f"leftImg8bit/{names[0]}_leftImg8bit.png"] = f"gtFine/{names[0]}_gtFine_labelTrainIds.png"
    found = listed(tmp_path, layout="cityscapes", evaluation_list="val.txt")
    assert found == {k: ("val" if "/val/" in k else "train", v) for k, v in pairs.items()}
    read = meanings(tmp_path, "cityscapes", evaluation_list="val.txt")
    assert read == {v: "class" if "Train" in v else "cityscapes" for v in pairs.values()}


@pytest.mark.parametrize("line", ["train2017/000000000009", "train2017/000000000009.jpg masks/000000000009.png"])
def test_coco_has_one_folder_of_masks(tmp_path, make, line):
    for i, name in enumerate(("train2017/000000000009", "train2017/000000000025", "val2017/000000000139")):
        make.photo(tmp_path / f"{name}.jpg", i)
        make.mask(tmp_path / f"masks/{name[-12:]}.png")
    (tmp_path / "labelled.txt").write_text(line + "\n")
    (tmp_path / "val.txt").write_text("val2017/000000000139\n")
    assert listed(tmp_path, layout="coco", labelled_list="labelled.txt", evaluation_list="val.txt") == {
        "train2017/000000000009.jpg": ("train", "masks/000000000009.png"),
        "train2017/000000000025.jpg": ("train", None),
        "val2017/000000000139.jpg": ("val", "masks/000000000139.png"),
    }
    make.mask(tmp_path / "masks/000000000777.png")
    assert ("train", "masks/000000000777.png") in listed(tmp_path, layout="coco", evaluation_list="val.txt").values()


def test_folder_pairs_by_name_in_subfolders_too(tmp_path, make):
    make.photo(tmp_path / "images/a b.jpg", 1)
    make.photo(tmp_path / "images/sub/c.v2.PNG", 2)
    make.photo(tmp_path / "images/plain.jpg", 3)
    make.mask(tmp_path / "masks/a b.png")
    make.mask(tmp_path / "masks/sub/c.v2.png")
    (tmp_path / "images/.DS_Store").write_bytes(b"hidden")
    (tmp_path / "val.txt").write_text("sub/c.v2\n")
    assert listed(tmp_path, evaluation_list="val.txt") == {
        "images/a b.jpg": ("train", "masks/a b.png"),
        "images/plain.jpg": ("train", None),
        "images/sub/c.v2.PNG": ("val", "masks/sub/c.v2.png"),
    }


@pytest.mark.parametrize("line", ["b", "b.jpg", "images/b.jpg", "images/b.jpg masks/b.png"])
def test_list_names_an_image_in_any_usual_way(tmp_path, make, line):
    for name in "ab":
        make.photo(tmp_path / f"images/{name}.jpg", ord(name))
        make.mask(tmp_path / f"masks/{name}.png")
    (tmp_path / "val.txt").write_text(f"\ufeff{line}\n", encoding="utf-8")
    assert listed(tmp_path, evaluation_list="val.txt")["images/b.jpg"] == ("val", "masks/b.png")


def test_tags_and_captions_are_attached(tmp_path, make):
    make.photo(tmp_path / "images/a.jpg")
    (tmp_path / "tags.jsonl").write_text(json.dumps({"image": "a.jpg", "tags": ["cat", "dog"]}) + "\n\n")
    (tmp_path / "captions.jsonl").write_text(json.dumps({"image": "a.jpg", "caption": "a cat, äöü"}))
    (source,) = list_sources(config(tmp_path))
    assert (source.tags, source.caption) == (("cat", "dog"), "a cat, äöü")


def test_several_captions_and_tags_of_an_image_are_all_kept(tmp_path, make):
    for name in "ab":
        make.photo(tmp_path / f"images/{name}.jpg")
    lines = [
        {"image": "a.jpg", "caption": "a cat"},
        {"image": "b.jpg", "caption": ""},
        {"image": "a.jpg", "caption": "it sits"},
    ]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    lines = [{"image": "a.jpg", "tags": ["cat", "dog"]}, {"image": "a.jpg", "tags": ["dog", "mat"]}]
    (tmp_path / "tags.jsonl").write_text("\n".join(map(json.dumps, lines)))
    a, b = list_sources(config(tmp_path))
    assert (a.caption, a.tags) == ("a cat\nit sits", ("cat", "dog", "mat"))
    assert (b.caption, b.tags) == (None, ())


def test_what_is_named_and_not_there_stays_in_the_list(tmp_path, make):
    make.photo(tmp_path / "images/a.jpg")
    make.mask(tmp_path / "masks/orphan.png")
    (tmp_path / "val.txt").write_text("a\ngone\n../outside\n/etc/hostname\n")
    (tmp_path / "tags.jsonl").write_text('{"image": "untagged.jpg", "tags": ["cat"]}')
    assert listed(tmp_path, evaluation_list="val.txt") == {
        "/etc/hostname": ("val", "/etc/hostname.png"),
        "images/../outside": ("val", "masks/../outside.png"),
        "images/a.jpg": ("val", "masks/a.png"),
        "images/gone": ("val", "masks/gone.png"),
        "images/orphan.png": ("train", "masks/orphan.png"),
        "images/untagged.jpg": ("train", None),
    }


@examples(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.05, 0.95), left_out=st.integers(0, 39))
def test_held_out_images_do_not_hang_on_the_others(forty, share, left_out):
    """A threshold on the content's hash: taking one image away moves no other one."""
    whole = listed(forty, evaluation_share=share)
    gone = forty / f"images/{left_out:02}.jpg"
    gone.rename(forty / "away.jpg")
    try:
        fewer = listed(forty, evaluation_share=share)
    finally:
        (forty / "away.jpg").rename(gone)
    fewer.pop(f"images/{left_out:02}.png")  # its mask is listed alone now
    assert fewer.items() <= whole.items()


@pytest.fixture(scope="module")
def forty(tmp_path_factory, make) -> Path:
    root = tmp_path_factory.mktemp("forty")
    for i in range(40):
        make.photo(root / f"images/{i:02}.jpg", i, size=(8, 8))
        make.mask(root / f"masks/{i:02}.png", size=(8, 8))
    return root


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_two_masked_images_fall_on_both_sides(tmp_path, make, share):
    make.source(tmp_path, labelled=2, evaluation=0, unlabelled=2)
    found = listed(tmp_path, evaluation_share=share)
    assert sorted(split for split, mask in found.values() if mask) == ["train", "val"]
    assert all(split == "train" for split, mask in found.values() if not mask)


def test_pipe_with_a_mask_does_not_block(tmp_path, make):
    make.source(tmp_path, labelled=2, evaluation=0, unlabelled=0)
    os.mkfifo(tmp_path / "images/pipe.jpg")
    make.mask(tmp_path / "masks/pipe.png")
    assert listed(tmp_path)["images/pipe.jpg"] == ("train", "masks/pipe.png")


def test_wrong_split_name_names_the_near_one(voc):
    error = refused(voc, layout="voc", labelled_list="splits/92/labelled.txt")
    assert error.code == "DATA103"
    assert "splits/92/labeled.txt" in str(error)
    assert "val.txt" in str(refused(voc, layout="voc", evaluation_list="zzzzzzzz"))
    error = refused(voc, layout="voc", labelled_list="conf/splits/voc/93.txt")
    assert "conf/splits/voc/92.txt" in str(error)
    assert str(voc) in str(error) and str(ROOT) in str(error), "both places are named"


def test_missing_and_empty_folders(tmp_path):
    assert refused(tmp_path / "nowhere").code == "DATA101"
    error = refused(tmp_path)
    assert (error.code, "images/" in str(error)) == ("DATA102", True)
    for layout, folder in (
        ("voc", "JPEGImages"),
        ("ade20k", "annotations"),
        ("cityscapes", "gtFine"),
        ("coco", "masks"),
    ):
        assert folder in str(refused(tmp_path, layout=layout))


def test_image_in_both_lists(voc):
    error = refused(voc, layout="voc", labelled_list="splits/val.txt", evaluation_list="splits/val.txt")
    assert (error.code, "JPEGImages/4.jpg" in str(error)) == ("DATA106", True)


def test_mask_that_two_images_could_own(tmp_path, make):
    make.photo(tmp_path / "images/a.jpg")
    make.photo(tmp_path / "images/a.png")
    assert len(listed(tmp_path)) == 2
    make.mask(tmp_path / "masks/a.png")
    assert refused(tmp_path).code == "DATA107"


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00a"])
def test_list_that_names_nothing(tmp_path, make, content):
    make.photo(tmp_path / "images/a.jpg")
    (tmp_path / "val.txt").write_bytes(content)
    assert refused(tmp_path, evaluation_list="val.txt").code == "DATA104"


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"image": "a.jpg"}', '{"image": 3, "tags": []}', '{"image": "a", "tags": "cat"}']
)
def test_line_of_tags_with_another_shape(tmp_path, make, line):
    make.photo(tmp_path / "images/a.jpg")
    (tmp_path / "tags.jsonl").write_text('{"image": "a.jpg", "tags": ["cat"]}\n' + line)
    error = refused(tmp_path)
    assert (error.code, "line 2" in str(error)) == ("DATA105", True)
