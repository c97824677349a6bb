"""A layout lists every image once, with the mask and the split that the source's lists give it, wherever it lies."""

import os
import pickle
from itertools import product
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from semivl.config import CONF, load
from semivl.data.layouts import list_sources
from semivl.data.source_files import open_source
from semivl.settings import ROOT
from tests.sources import Memory, Place, config, listed, place, refused, write


@pytest.fixture(params=["folder", "s3"])
def at(request) -> Place:
    return place(request)


@pytest.fixture
def voc(tmp_path) -> Path:
    for i in range(5):
        write(tmp_path, {f"JPEGImages/{i}.jpg": "image", f"SegmentationClass/{i}.png": "mask"})
    lists = {
        "splits/92/labeled.txt": "JPEGImages/0.jpg SegmentationClass/0.png\n\n1\n",
        "splits/val.txt": "JPEGImages/4.jpg SegmentationClass/4.png\r\n",
    }
    return write(tmp_path, lists)


def test_only_listed_masks_are_used(voc, at):
    found = listed(at(voc), layout="voc", labelled_list="splits/92/labeled.txt", evaluation_list="splits/val.txt")
    assert found == {
        "JPEGImages/0.jpg": ("train", "SegmentationClass/0.png"),
        "JPEGImages/1.jpg": ("train", "SegmentationClass/1.png"),
        "JPEGImages/2.jpg": ("train", None),
        "JPEGImages/3.jpg": ("train", None),
        "JPEGImages/4.jpg": ("val", "SegmentationClass/4.png"),
    }


def test_voc_without_lists_takes_its_image_sets(voc, at):
    write(voc, {"ImageSets/Segmentation/train.txt": "2\n", "ImageSets/Segmentation/val.txt": "3\n4\n"})
    found = listed(at(voc), layout="voc")
    assert [k for k, (split, _) in found.items() if split == "val"] == ["JPEGImages/3.jpg", "JPEGImages/4.jpg"]
    assert [k for k, (split, mask) in found.items() if split == "train" and mask] == ["JPEGImages/2.jpg"]


def test_only_images_of_the_train_list_are_trained_on(voc, at):
    source = at(write(voc, {"train.txt": "0\n1\n2\n"}))
    lists = {"labelled_list": "splits/92/labeled.txt", "evaluation_list": "splits/val.txt"}
    found = listed(source, layout="voc", train_list="train.txt", **lists)
    assert found == {k: v for k, v in listed(source, layout="voc", **lists).items() if "3" not in k}


def test_a_list_that_the_source_lacks_is_one_of_the_checkout(voc, at):
    write(voc, {"JPEGImages/2007_000733.jpg": "image"})
    lists = {"labelled_list": "conf/splits/voc/92.txt", "evaluation_list": "splits/val.txt"}
    found = listed(at(voc), layout="voc", **lists)
    assert found["JPEGImages/2007_000733.jpg"] == ("train", "SegmentationClass/2007_000733.png")
    assert sum(mask is not None for split, mask in found.values() if split == "train") == 92
    found = listed(at(write(voc, {"conf/splits/voc/92.txt": "2\n"})), layout="voc", **lists)
    assert [k for k, (split, mask) in found.items() if split == "train" and mask] == ["JPEGImages/2.jpg"]


def meanings(source: Path | str, layout: str, **fields) -> dict[str, tuple[str, str | None]]:
    found = list_sources(config(source, layout, **fields))
    return {s.mask.as_posix(): (s.mask_ids, s.annotation) for s in found if s.mask}


@pytest.fixture
def ade20k(tmp_path) -> Path:
    for name in ("training/ADE_train_00001609", "training/ADE_train_00000002", "validation/ADE_val_00000001"):
        write(tmp_path, {f"images/{name}.jpg": "image", f"annotations/{name}.png": "mask"})
    pair = "images/training/ADE_train_00001609.jpg annotations/training/ADE_train_00001609.png\n"
    return write(tmp_path, {"val.txt": "validation/ADE_val_00000001\n", "labelled.txt": pair})


def test_ade20k_has_ids_of_its_own(ade20k, at):
    source, lists = at(ade20k), {"labelled_list": "labelled.txt", "evaluation_list": "val.txt"}
    assert listed(source, layout="ade20k", **lists) == {
        "images/training/ADE_train_00000002.jpg": ("train", None),
        "images/training/ADE_train_00001609.jpg": ("train", "annotations/training/ADE_train_00001609.png"),
        "images/validation/ADE_val_00000001.jpg": ("val", "annotations/validation/ADE_val_00000001.png"),
    }
    assert set(meanings(source, "ade20k", **lists).values()) == {("ade20k", None)}
    assert set(meanings(source, "ade20k", ignore_ids=(7, 9), **lists).values()) == {("ade20k", '{"ignore": [7, 9]}')}


def test_layouts_with_a_published_validation_set_take_its_list(ade20k, at):
    found = listed(at(ade20k), layout="ade20k", labelled_list="conf/splits/ade20k/158.txt")
    assert sum(split == "val" for split, _ in found.values()) == 2000
    assert sum(split == "train" and mask is not None for split, mask in found.values()) == 158
    assert found["images/training/ADE_train_00000002.jpg"] == ("train", None)


def test_cityscapes_takes_train_ids_where_there_are_any(tmp_path, at):
    names = ("train/jena/jena_000078_000019", "train/ulm/ulm_000001_000019", "val/lindau/lindau_000000_000019")
    for name, kind in product((*names, "test/bonn/bonn_000000_000019"), ("labelIds", "instanceIds", "color")):
        write(tmp_path, {f"leftImg8bit/{name}_leftImg8bit.png": "image", f"gtFine/{name}_gtFine_{kind}.png": "mask"})
    write(tmp_path, {f"gtFine/{names[0]}_gtFine_labelTrainIds.png": "mask", "val.txt": f"{names[2]}_leftImg8bit\n"})
    pairs = {f"leftImg8bit/{n}_leftImg8bit.png": f"gtFine/{n}_gtFine_labelIds.png" for n in names}
    pairs[f"leftImg8bit/{names[0]}_leftImg8bit.png"] = f"gtFine/{names[0]}_gtFine_labelTrainIds.png"
    source = at(tmp_path)
    found = listed(source, layout="cityscapes", evaluation_list="val.txt")
    assert found == {k: ("val" if "/val/" in k else "train", v) for k, v in pairs.items()}
    read = meanings(source, "cityscapes", evaluation_list="val.txt")
    assert read == {v: ("class" if "Train" in v else "cityscapes", None) for v in pairs.values()}


@pytest.mark.parametrize("line", ["train2017/000000000009", "train2017/000000000009.jpg masks/000000000009.png"])
def test_coco_has_one_folder_of_masks(tmp_path, at, line):
    for name in ("train2017/000000000009", "train2017/000000000025", "val2017/000000000139"):
        write(tmp_path, {f"{name}.jpg": "image", f"masks/{name[-12:]}.png": "mask"})
    write(tmp_path, {"labelled.txt": line, "val.txt": "val2017/000000000139\n"})
    assert listed(at(tmp_path), layout="coco", labelled_list="labelled.txt", evaluation_list="val.txt") == {
        "train2017/000000000009.jpg": ("train", "masks/000000000009.png"),
        "train2017/000000000025.jpg": ("train", None),
        "val2017/000000000139.jpg": ("val", "masks/000000000139.png"),
    }
    write(tmp_path, {"masks/000000000777.png": "mask"})
    found = listed(at(tmp_path), layout="coco", evaluation_list="val.txt")
    assert ("train", "masks/000000000777.png") in found.values()


def test_folder_pairs_by_name_in_subfolders_too(tmp_path, at):
    names = ("images/a b.jpg", "images/sub/c.v2.PNG", "images/plain.jpg", "masks/a b.png", "masks/sub/c.v2.png")
    write(tmp_path, dict.fromkeys((*names, "images/.DS_Store", "images/.cache/x.jpg"), "x") | {"val.txt": "sub/c.v2\n"})
    assert listed(at(tmp_path), evaluation_list="val.txt") == {
        "images/a b.jpg": ("train", "masks/a b.png"),
        "images/plain.jpg": ("train", None),
        "images/sub/c.v2.PNG": ("val", "masks/sub/c.v2.png"),
    }


def test_images_in_any_folders_need_no_masks(tmp_path, at):
    names = ("a.jpg", "deep/er/b.JPEG", "deep/c.png", "deep/d.webp", "read.me", "deep/notes.txt", "deep/.e.jpg")
    source = at(write(tmp_path, dict.fromkeys(names, "x")))
    assert listed(source, layout="images") == dict.fromkeys(sorted(names[:4]), ("train", None))


@pytest.mark.parametrize(
    "line", ["b", "b.jpg", "images/sub/b.jpg", "sub/b", "./sub//b.jpg", "sub/b.jpg masks/sub/b.png"]
)
def test_list_names_an_image_in_any_usual_way(tmp_path, at, line):
    names = ("images/a.jpg", "images/sub/b.jpg", "masks/a.png", "masks/sub/b.png")
    source = at(write(tmp_path, dict.fromkeys(names, "x") | {"val.txt": f"\ufeff{line}\n"}))
    assert listed(source, evaluation_list="val.txt")["images/sub/b.jpg"] == ("val", "masks/sub/b.png")


def test_a_file_name_that_two_images_have_names_neither(tmp_path):
    write(tmp_path, dict.fromkeys(("images/x/b.jpg", "images/y/b.jpg", "masks/x/b.png"), "x") | {"val.txt": "b.jpg"})
    found = listed(tmp_path, evaluation_list="val.txt")
    assert [k for k, (split, _) in found.items() if split == "val"] == ["images/b.jpg"]


def test_what_is_named_and_not_there_stays_in_the_list(tmp_path, at):
    files = {
        "images/a.jpg": "image",
        "masks/orphan.png": "mask",
        "val.txt": "a\ngone\n../outside\n/etc/hostname\n",
        "tags.jsonl": '{"image": "untagged.jpg", "tags": ["cat"]}',
    }
    assert listed(at(write(tmp_path, files)), evaluation_list="val.txt") == {
        "/etc/hostname": ("val", "/etc/hostname.png"),
        "images/../outside": ("val", "masks/../outside.png"),
        "images/a.jpg": ("val", "masks/a.png"),
        "images/gone": ("val", "masks/gone.png"),
        "images/orphan.png": ("train", "masks/orphan.png"),
        "images/untagged.jpg": ("train", None),
    }


def test_without_lists_the_split_of_masked_images_alone_is_open(tmp_path, at):
    """Whatever else is there: the split of none hangs on the others, or on its place."""
    names = ("images/a.jpg", "images/b.jpg", "images/c.jpg", "masks/b.png")
    source = at(write(tmp_path, dict.fromkeys(names, "x")))
    assert {k: split for k, (split, _) in listed(source).items()} == {
        "images/a.jpg": "train",
        "images/b.jpg": None,
        "images/c.jpg": "train",
    }


def test_pipe_with_a_mask_does_not_block(tmp_path):
    write(tmp_path, {"images/a.jpg": "image", "masks/pipe.png": "mask"})
    os.mkfifo(tmp_path / "images/pipe.jpg")
    assert listed(tmp_path)["images/pipe.jpg"] == (None, "masks/pipe.png")


def test_the_list_is_the_same_of_a_source_that_went_to_another_process(voc, at):
    settings = config(at(voc), "voc", evaluation_list="splits/val.txt")
    travelled = pickle.loads(pickle.dumps(open_source(settings)))
    assert list_sources(settings, travelled) == list_sources(settings)


def test_wrong_split_name_names_the_near_one(voc, at):
    source = at(voc)
    error = refused(source, layout="voc", labelled_list="splits/92/labelled.txt")
    assert error.code == "DATA103"
    assert "splits/92/labeled.txt" in str(error)
    assert "val.txt" in str(refused(source, layout="voc", evaluation_list="zzzzzzzz"))
    error = refused(source, layout="voc", labelled_list="conf/splits/voc/93.txt")
    assert "conf/splits/voc/92.txt" in str(error)
    assert str(source).rstrip("/") in str(error) and str(ROOT) in str(error), "both places are named"


def test_missing_and_empty_folders(tmp_path):
    assert refused(tmp_path / "nowhere").code == "DATA101"
    error = refused(tmp_path)
    assert (error.code, "images/" in str(error)) == ("DATA102", True)
    for layout, folder in {
        "voc": "JPEGImages",
        "ade20k": "annotations",
        "camvid": "label_colors.txt",
        "cityscapes": "gtFine",
        "coco": "masks",
        "images": "pictures",
        "webdataset": "tars",
    }.items():
        error = refused(tmp_path, layout=layout)
        assert (error.code, folder in str(error)) == ("DATA102", True)


def test_missing_bucket_and_prefix(store):
    error = refused("s3://semivl-no-such-bucket/photos")
    assert (error.code, "semivl-no-such-bucket" in str(error)) == ("DATA101", True)
    error = refused(f"s3://{store.bucket}/photos")
    assert (error.code, f"s3://{store.bucket}/photos/images" in str(error)) == ("DATA102", True)


def test_image_in_both_lists(voc, at):
    error = refused(at(voc), layout="voc", labelled_list="splits/val.txt", evaluation_list="splits/val.txt")
    assert (error.code, "JPEGImages/4.jpg" in str(error)) == ("DATA106", True)


def test_mask_that_two_images_could_own(tmp_path, at):
    write(tmp_path, dict.fromkeys(("images/a.jpg", "images/a.png"), "x"))
    assert len(listed(at(tmp_path))) == 2
    write(tmp_path, {"masks/a.png": "x"})
    assert refused(at(tmp_path)).code == "DATA107"


def test_image_with_two_masks(tmp_path, at):
    names = ("images/a.jpg", "masks/a.png", "masks/a.PNG")
    error = refused(at(write(tmp_path, dict.fromkeys(names, "x"))))
    assert (error.code, "masks/a.PNG" in str(error), "masks/a.png" in str(error)) == ("DATA111", True, True)


def test_what_an_editor_leaves_beside_a_mask_is_no_mask(tmp_path):
    write(tmp_path, dict.fromkeys(("images/a.jpg", "masks/a.json", "masks/a.png", "masks/a.xcf"), "x"))
    assert listed(tmp_path) == {"images/a.jpg": (None, "masks/a.png")}


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00a"])
def test_list_that_names_nothing(tmp_path, at, content):
    source = at(write(tmp_path, {"images/a.jpg": "image", "val.txt": content}))
    assert refused(source, evaluation_list="val.txt").code == "DATA104"


@pytest.mark.parametrize("layout", ["folder", "images", "voc"])
def test_listing_opens_no_picture(layout):
    names = [f"{folder}/{i}.{kind}" for i in range(9) for folder, kind in (("images", "jpg"), ("masks", "png"))]
    names += [f"{folder}/{i}.png" for i in range(9) for folder in ("JPEGImages", "SegmentationClass")]
    files = Memory(dict.fromkeys(names, b"x"))
    assert len(list_sources(config("memory", layout), files)) >= 9
    assert files.reads == []


@pytest.mark.parametrize("name", sorted(p.stem for p in (CONF / "data").glob("*.yaml")))
def test_every_shipped_source_has_settings_that_are_known(name):
    assert load("demo", {"data": OmegaConf.to_container(OmegaConf.load(CONF / f"data/{name}.yaml"))}).data.dataset


def test_listed_image_without_a_mask_is_not_its_own_mask(tmp_path):
    write(tmp_path, {"a.png": b"image", "val.txt": b"a.png\n"})
    chosen = config(tmp_path, "images", evaluation_list="val.txt")
    (source,) = list_sources(chosen, open_source(chosen))
    assert source.split == "val" and source.mask == Path("a.mask.png")
