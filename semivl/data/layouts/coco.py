"""COCO's layout: photos, and masks from its annotation files or from a folder of class ids."""

import json
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from semivl.config import DataConfig
from semivl.data.coco_json import AnnotationFile, ImageNotes, read_annotations
from semivl.data.layouts.folders import is_picture, published
from semivl.data.layouts.found import Found, Mask, Names, by_stem, names_below, stem, two_masks
from semivl.data.lists import find_file
from semivl.data.source_files import SourceFiles
from semivl.errors import DataError

_PARTS = ("train2017", "val2017")


def coco(files: SourceFiles, config: DataConfig) -> Found:
    if config.annotations:
        return _annotated(files, config)
    images = list(names_below(files, *_PARTS))
    by_id = by_stem(names_below(files, "masks"), "masks")
    ids = {image: PurePosixPath(image).stem for image in images}
    paired = {stem(image): by_id[number] for image, number in ids.items() if number in by_id}
    alone = by_id.keys() - ids.values()
    return Found(
        images=images,
        masks=paired | {number: by_id[number] for number in alone},
        mask_folder="masks",
        labelled_list=config.labelled_list,
        evaluation_list=published(config, "coco"),
    )


def _annotated(files: SourceFiles, config: DataConfig) -> Found:
    """Photos of train2017/ and val2017/; where there are none, all in the source that are no segments' PNGs."""
    parts = list(names_below(files, *_PARTS))
    pictures = parts or [name for name in names_below(files, "") if is_picture(name)]
    segments = set(names_below(files, *map(_segments_folder, config.annotations)))
    images = [name for name in pictures if name not in segments]
    annotated: dict[str, Mask] = {}
    absent: list[str] = []
    names = Names(images, "")
    for file in config.annotations:
        read = read_annotations(file, find_file(files, file))
        found = {notes.name: _image(notes.name, file, names) for notes in read.images}
        if not any(found.values()):
            raise DataError(
                "DATA114",
                f"of the {len(found)} images of {file} none is in {files.address}.",
                "Name the annotation file of these images, or mend its file names.",
            )
        absent += [name for name, image in found.items() if not image]
        for notes in read.images:
            image = found[notes.name] or names.placed(notes.name)
            mask = _mask(file, read, notes, config)
            if mask:
                annotated[image] = _both(image, annotated[image], mask) if image in annotated else mask
    return Found(
        images=images,
        annotated=annotated,
        mask_folder="masks",
        labelled_list=config.labelled_list,
        evaluation_list=published(config, "coco") if parts else config.evaluation_list,
        absent=absent,
    )


def _segments_folder(annotations: str) -> str:
    """Where a panoptic file's PNGs lie: beside it, in a folder of its name."""
    return annotations.removesuffix(".json")


def _image(name: str, annotations: str, names: Names) -> str | None:
    """The image of a file name: beside the annotations or in the folder that their name ends in, else anywhere."""
    path = PurePosixPath(annotations)
    beside = [path.parent.as_posix(), path.stem.rpartition("_")[2]]
    for folder in (*beside, *(f"images/{folder}" for folder in beside)):
        if (placed := names.placed(f"{folder}/{name}")) in names.images:
            return placed
    found = names.find(name)
    return found[0] if len(found) == 1 else None


def _mask(file: str, read: AnnotationFile, notes: ImageNotes, config: DataConfig) -> Mask | None:
    """What the file makes the image's mask of. An image without outlines shows nothing but background; one without
    segments has no mask."""
    names = {str(c): config.categories.get(read.categories[c], read.categories[c]) for c in notes.categories}
    told: dict[str, Any] = {"other": config.other_categories}
    texts, notes.texts = notes.texts, []
    if read.kind == "outlines":
        layer = _with_texts({"names": names}, "objects", texts)
        return Mask(None, "outlines", _with_texts(told | {"size": [notes.height, notes.width]}, "layers", [layer]))
    if notes.mask is None:
        return None
    return Mask(
        f"{_segments_folder(file)}/{notes.mask}", "panoptic", _with_texts(told | {"names": names}, "segments", texts)
    )


def _both(image: str, below: Mask, above: Mask) -> Mask:
    """The outlines of two files as layers of one mask. DATA111 where one of them has a PNG of its own."""
    if below.annotation is None or above.annotation is None or below.name or above.name:
        raise two_masks(image, below.name or "outlines", above.name or "outlines")
    layers = [layer for mask in (below, above) for layer in json.loads(mask.annotation or "")["layers"]]
    return Mask(None, "outlines", json.dumps(json.loads(below.annotation) | {"layers": layers}))


def _with_texts(told: dict[str, Any], key: str, texts: Iterable[str]) -> str:
    """The JSON of `told` and of a list whose elements are JSON already."""
    return f'{json.dumps(told)[:-1]}, "{key}": [{", ".join(texts)}]}}'
