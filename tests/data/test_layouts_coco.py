"""COCO's annotation files give every image its mask, whichever of their forms they have."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semivl.config import IGNORE, ClassDefinition, Classes
from semivl.data.checks import Checked, Files, Limits, Quarantined, examine
from semivl.data.coco_json import read_annotations
from semivl.data.decode import decode_mask
from semivl.data.layouts import list_sources
from semivl.data.source_files import open_source, read_files
from tests.sources import Place, config, listed, place, refused, write

HEIGHT, WIDTH = 32, 48
FILE = "annotations/instances_train2017.json"
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 18, "name": "dog"}, {"id": 90, "name": "sky"}]


@pytest.fixture(params=["folder", "s3"])
def at(request) -> Place:
    return place(request)


def box(x0: int, y0: int, x1: int, y1: int) -> list[list[int]]:
    """The polygon that covers columns x0 to x1 - 1 and rows y0 to y1 - 1."""
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def instance(image: int, category: int, segmentation, **fields) -> dict:
    return {"id": 1, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": 0} | fields


def coco(images: dict[int, str], annotations: list[dict], categories=CATEGORIES) -> str:
    entries = [{"id": i, "file_name": n, "height": HEIGHT, "width": WIDTH} for i, n in images.items()]
    return json.dumps({"info": {"a": [1]}, "annotations": annotations, "images": entries, "categories": categories})


def photos(root: Path, make, *names: str) -> Path:
    for seed, name in enumerate(names):
        make.photo(root / name, seed, (WIDTH, HEIGHT))
    return root


def masks(source, classes, **fields) -> dict[str, np.ndarray]:
    """The class ids of every image that passes its checks with a mask."""
    settings = config(source, "coco", **fields)
    files, limits = open_source(settings), Limits()
    found = {}
    for each in list_sources(settings, files):
        read = read_files(files, each, classes, limits)
        assert not isinstance(read, Quarantined), read
        checked = examine(each, read, classes, limits)
        assert isinstance(checked, Checked), checked
        if checked.files.mask:
            assert checked.row.supervision == "mask"
            found[each.image.as_posix()] = decode_mask(checked.files.mask)
    return found


def drawn(*boxes: tuple[int, int, int, int, int], rest: int = 0) -> np.ndarray:
    ids = np.full((HEIGHT, WIDTH), rest, np.uint8)
    for x0, y0, x1, y1, class_id in boxes:
        ids[y0:y1, x0:x1] = class_id
    return ids


def test_instances_become_class_maps_and_the_smaller_of_two_is_on_top(tmp_path, make, classes, at):
    photos(tmp_path, make, "train2017/000000000007.jpg", "train2017/000000000008.jpg", "train2017/000000000009.jpg")
    counts = [0, 2, HEIGHT - 2, 2, HEIGHT * (WIDTH - 1) - 2]
    objects = [
        instance(7, 18, box(10, 5, 14, 9)),
        instance(7, 1, box(0, 0, 20, 20)),
        instance(8, 18, {"size": [HEIGHT, WIDTH], "counts": counts}, iscrowd=1),
    ]
    images = {7: "000000000007.jpg", 8: "000000000008.jpg", 9: "000000000009.jpg"}
    write(tmp_path, {FILE: coco(images, objects), "val.txt": "train2017/000000000008\n"})
    source = at(tmp_path)
    found = masks(source, classes, annotations=[FILE], evaluation_list="val.txt")
    assert found.keys() == {f"train2017/{name}" for name in images.values()}
    assert (found["train2017/000000000007.jpg"] == drawn((0, 0, 20, 20, 1), (10, 5, 14, 9, 2))).all()
    assert (found["train2017/000000000008.jpg"] == drawn((0, 0, 2, 2, 2))).all()
    assert (found["train2017/000000000009.jpg"] == 0).all(), "no object is in it: all is background"
    lists = {"annotations": [FILE], "evaluation_list": "val.txt"}
    assert [split for split, _ in listed(source, layout="coco", **lists).values()] == ["train", "val", "train"]


def test_panoptic_segments_become_class_maps(tmp_path, make, classes, at):
    photos(tmp_path, make, "train2017/7.jpg", "train2017/8.jpg", "train2017/9.jpg")
    segments = [{"id": 70_000, "category_id": 18}, {"id": 258, "category_id": 1}, {"id": 3, "category_id": 90}]
    numbers = np.zeros((HEIGHT, WIDTH), np.uint32)
    numbers[:, 10:20], numbers[:, 20:30], numbers[:, 30:40] = 70_000, 258, 3
    png = np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], axis=-1).astype(np.uint8)
    (tmp_path / "annotations/panoptic_train2017").mkdir(parents=True)
    Image.fromarray(png).save(tmp_path / "annotations/panoptic_train2017/7.png")
    file = "annotations/panoptic_train2017.json"
    told = [{"image_id": 7, "file_name": "7.png", "segments_info": segments}]
    write(tmp_path, {file: coco({7: "7.jpg", 8: "8.jpg"}, told), "val.txt": "train2017/7"})
    expected = drawn((10, 0, 20, HEIGHT, 2), (20, 0, 30, HEIGHT, 1), rest=IGNORE)
    lists = {"annotations": [file], "evaluation_list": "val.txt"}
    source = at(tmp_path)
    found = masks(source, classes, **lists)
    assert found.keys() == {"train2017/7.jpg"}, "an image without segments has no mask"
    assert (found["train2017/7.jpg"] == expected).all()
    expected[:, 30:40] = 0
    assert (masks(source, classes, other_categories="background", **lists)["train2017/7.jpg"] == expected).all()
    names = masks(source, classes, categories={"sky": "dog", "dog": "cat"}, **lists)["train2017/7.jpg"]
    assert (names[0, [15, 25, 35]] == [1, 1, 2]).all()


def test_later_files_lie_on_top_of_earlier_ones(tmp_path, make, classes):
    photos(tmp_path, make, "images/a.jpg")
    stuff = coco({5: "a.jpg"}, [instance(5, 183, box(0, 0, 48, 32))], [{"id": 183, "name": "cat"}])
    things = coco({1: "a.jpg"}, [instance(1, 183, box(0, 0, 5, 5)), instance(1, 2, box(4, 4, 40, 30))],
                  [{"id": 183, "name": "nothing"}, {"id": 2, "name": "dog"}])  # fmt: skip
    write(tmp_path, {"stuff.json": stuff, "things.json": things})
    found = masks(tmp_path, classes, annotations=["stuff.json", "things.json"])["images/a.jpg"]
    expected = drawn((4, 4, 40, 30, 2), (0, 0, 5, 5, IGNORE), rest=1)
    assert (found == expected).all()


def test_where_no_class_is_background_uncovered_pixels_are_ignored(tmp_path, make):
    classes = Classes(classes=tuple(ClassDefinition(name=n) for n in ("cat", "dog")))
    photos(tmp_path, make, "a.jpg")
    write(tmp_path, {"a.json": coco({1: "a.jpg"}, [instance(1, 18, box(0, 0, 4, 4))])})
    assert (masks(tmp_path, classes, annotations=["a.json"])["a.jpg"] == drawn((0, 0, 4, 4, 1), rest=IGNORE)).all()
    settings = config(tmp_path, "coco", annotations=["a.json"], other_categories="background")
    (source,) = list_sources(settings)
    assert isinstance(read_files(open_source(settings), source, classes, Limits()), Files)
    write(tmp_path, {"a.json": coco({1: "a.jpg"}, [instance(1, 90, box(0, 0, 4, 4))])})
    (source,) = list_sources(settings)
    fault = read_files(open_source(settings), source, classes, Limits())
    assert isinstance(fault, Quarantined) and (fault.code, "sky" in fault.reason) == ("DATA115", True)


@pytest.mark.parametrize(
    ("file", "named", "image"),
    [
        ("annotations/instances_val2017.json", "1.jpg", "val2017/1.jpg"),
        ("train/_annotations.coco.json", "1.jpg", "train/1.jpg"),
        ("annotations/instances_default.json", "1.jpg", "images/default/1.jpg"),
        ("labels.json", "deep/er/1.jpg", "deep/er/1.jpg"),
        ("labels.json", "1.jpg", "deep/er/1.jpg"),
        ("labels.json", "1.jpg", "1.jpg"),
    ],
)
def test_images_are_found_where_the_tools_put_them(tmp_path, at, file, named, image):
    write(tmp_path, {image: "x", "other/2.jpg": "x", file: coco({1: named}, [instance(1, 18, box(0, 0, 4, 4))])})
    if "2017" not in file:
        write(tmp_path, {"annotations/panoptic/1.png": "x", "readme.md": "x"})
    (tmp_path / "v.txt").write_text(image)
    found = list_sources(config(at(tmp_path), "coco", annotations=[file], evaluation_list="v.txt"))
    assert [(s.image.as_posix(), s.split) for s in found if s.annotation] == [(image, "val")]


def test_two_images_of_a_name_are_told_apart_by_the_folder_of_the_file(tmp_path):
    write(tmp_path, dict.fromkeys(("train/1.jpg", "valid/1.jpg"), "x"))
    for part, category in (("train", 1), ("valid", 18)):
        objects = [instance(1, category, box(0, 0, 4, 4))]
        write(tmp_path, {f"{part}/_annotations.coco.json": coco({1: "1.jpg"}, objects)})
    files = [f"{part}/_annotations.coco.json" for part in ("train", "valid")]
    found = {s.image.as_posix(): s.annotation for s in list_sources(config(tmp_path, "coco", annotations=files))}
    assert "cat" in (found["train/1.jpg"] or "") and "dog" in (found["valid/1.jpg"] or "")


def test_a_labelled_list_takes_the_other_masks_away(tmp_path, make, classes):
    photos(tmp_path, make, "a.jpg", "b.jpg", "c.jpg")
    objects = [instance(i, 18, box(0, 0, 4, 4)) for i in (1, 2, 3)]
    write(tmp_path, {"x.json": coco({1: "a.jpg", 2: "b.jpg", 3: "c.jpg"}, objects), "l.txt": "a\n", "v.txt": "b.jpg\n"})
    lists = {"labelled_list": "l.txt", "evaluation_list": "v.txt"}
    assert masks(tmp_path, classes, annotations=["x.json"], **lists).keys() == {"a.jpg", "b.jpg"}


def test_an_image_of_the_file_that_is_not_there_stays_in_the_list(tmp_path, make, classes):
    photos(tmp_path, make, "a.jpg")
    write(tmp_path, {"x.json": coco({1: "a.jpg", 2: "gone.jpg"}, [instance(2, 18, box(0, 0, 4, 4))])})
    settings = config(tmp_path, "coco", annotations=["x.json"])
    gone = list_sources(settings)[1]
    fault = read_files(open_source(settings), gone, classes, Limits())
    assert isinstance(fault, Quarantined) and (fault.source, fault.code) == ("gone.jpg", "DATA001")


def test_a_file_of_other_images_is_refused(tmp_path):
    write(tmp_path, {"a.jpg": "x", "x.json": coco({1: "b.jpg", 2: "c.jpg"}, [instance(2, 18, box(0, 0, 4, 4))])})
    error = refused(tmp_path, layout="coco", annotations=["x.json"])
    assert (error.code, "2 images of x.json" in str(error)) == ("DATA114", True)


def test_two_files_that_both_have_pngs_for_an_image(tmp_path):
    told = [{"image_id": 1, "file_name": "1.png", "segments_info": [{"id": 1, "category_id": 1}]}]
    write(tmp_path, {"a.jpg": "x", "x.json": coco({1: "a.jpg"}, told), "y.json": coco({1: "a.jpg"}, told)})
    error = refused(tmp_path, layout="coco", annotations=["x.json", "y.json"])
    assert (error.code, "x/1.png" in str(error), "y/1.png" in str(error)) == ("DATA111", True, True)


def test_a_file_that_the_source_lacks_names_the_near_one(tmp_path):
    write(tmp_path, {"a.jpg": "x", FILE: coco({1: "a.jpg"}, [])})
    error = refused(tmp_path, layout="coco", annotations=["annotations/instance_train2017.json"])
    assert (error.code, FILE in str(error)) == ("DATA103", True)


@pytest.mark.parametrize(
    ("images", "annotations", "categories", "word"),
    [
        ({1: "a.jpg"}, [{"image_id": 1, "caption": "x"}], CATEGORIES, "holds captions"),
        ({1: "a.jpg"}, [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}], CATEGORIES, "holds boxes"),
        ({1: "a.jpg"}, [], CATEGORIES, "no annotations"),
        ({1: "a.jpg"}, [instance(5, 18, box(0, 0, 4, 4))], CATEGORIES, "the image 5"),
        ({1: "a.jpg"}, [instance(1, 4, box(0, 0, 4, 4))], CATEGORIES, "the category 4"),
        ({1: "a.jpg"}, [instance(1, 18, box(0, 0, 4, 4))], [{"id": 18}], "name"),
        ({1: "a.jpg"}, [{"image_id": 1, "segmentation": []}], CATEGORIES, "category_id"),
        ({1: "a.jpg"}, [{"image_id": 1, "file_name": "1.png", "segments_info": [{"id": -1, "category_id": 1}]}],
         CATEGORIES, "segment id -1"),
        ({1: "a.jpg"}, [instance(1, [18], box(0, 0, 4, 4))], CATEGORIES, "category_id [18]"),  # pyright: ignore[reportArgumentType]
    ],
)  # fmt: skip
def test_json_of_another_kind(tmp_path, images, annotations, categories, word):
    write(tmp_path, {"a.jpg": "x", "x.json": coco(images, annotations, categories)})
    error = refused(tmp_path, layout="coco", annotations=["x.json"])
    assert (error.code, word in str(error), "x.json" in str(error)) == ("DATA113", True, True)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_file_cut_anywhere_is_refused(tmp_path, share):
    whole = coco({i: f"{i}.jpg" for i in range(9)}, [instance(1, 18, box(0, 0, 4, 4))])
    write(tmp_path, {"1.jpg": "x", "x.json": whole[: int(len(whole) * share)]})
    error = refused(tmp_path, layout="coco", annotations=["x.json"])
    assert (error.code, "no whole JSON" in str(error)) == ("DATA113", True)


def test_the_order_and_the_spaces_of_a_file_do_not_matter():
    told = json.loads(coco({1: "ä.jpg", 2: "b.jpg"}, [instance(1, 18, box(0, 0, 4, 4))]))
    forms = [json.dumps(told), json.dumps(told, indent=3, ensure_ascii=False), json.dumps(dict(reversed(told.items())))]
    read = [read_annotations("x.json", text.encode()) for text in forms]
    assert [[(n.name, [json.loads(t) for t in n.texts]) for n in r.images] for r in read] == [
        [("ä.jpg", told["annotations"]), ("b.jpg", [])]
    ] * 3
