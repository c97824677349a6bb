"""Layouts of folders: VOC, ADE20K, Cityscapes, and the plain ones."""

import re

from semivl.config import DataConfig
from semivl.data.layouts.found import Found, by_stem, names_below
from semivl.data.source_files import SourceFiles

_PICTURE = re.compile(r"\.(jpe?g|jpe|jfif|png|gif|webp|bmp|tiff?|heic|heif|avif|jp2|jxl)$", re.IGNORECASE)
"""endings of pictures: those that are no JPEG or PNG are listed too, so that the checks tell of them"""


def is_picture(name: str) -> bool:
    return _PICTURE.search(name) is not None


def voc(files: SourceFiles, config: DataConfig) -> Found:
    def usual(name: str) -> str | None:
        path = f"ImageSets/Segmentation/{name}.txt"
        return path if files.has(path) else None

    return Found(
        images=list(names_below(files, "JPEGImages")),
        masks=by_stem(names_below(files, "SegmentationClass"), "SegmentationClass"),
        folder="JPEGImages",
        mask_folder="SegmentationClass",
        labelled_list=config.labelled_list or usual("train"),
        evaluation_list=config.evaluation_list or (None if config.split_table else usual("val")),
    )


def ade20k(files: SourceFiles, config: DataConfig) -> Found:
    parts = ("training", "validation")
    return Found(
        images=list(names_below(files, *(f"images/{part}" for part in parts))),
        masks=by_stem(names_below(files, *(f"annotations/{part}" for part in parts)), "annotations"),
        folder="images",
        mask_folder="annotations",
        labelled_list=config.labelled_list,
        evaluation_list=published(config, "ade20k"),
        meanings={".png": ("ade20k", None)},
    )


def cityscapes(files: SourceFiles, config: DataConfig) -> Found:
    own = "_gtFine_labelIds.png"
    masks: dict[str, str] = {}
    names = list(names_below(files, "gtFine/train", "gtFine/val"))
    for ending in (own, "_gtFine_labelTrainIds.png"):  # the later, already made by Cityscapes' own script, win
        for name in names:
            if name.endswith(ending):
                masks[f"{name.removeprefix('gtFine/').removesuffix(ending)}_leftImg8bit"] = name
    return Found(
        images=list(names_below(files, "leftImg8bit/train", "leftImg8bit/val")),
        masks=masks,
        folder="leftImg8bit",
        mask_folder="gtFine",
        labelled_list=config.labelled_list,
        evaluation_list=published(config, "cityscapes"),
        meanings={own: ("cityscapes", None)},
    )


def folder(files: SourceFiles, config: DataConfig) -> Found:
    return Found(
        images=list(names_below(files, "images")),
        masks=by_stem(names_below(files, "masks"), "masks"),
        folder="images",
        mask_folder="masks",
        labelled_list=config.labelled_list,
        evaluation_list=config.evaluation_list,
    )


def images(files: SourceFiles, config: DataConfig) -> Found:
    return Found(
        images=[name for name in names_below(files, "") if is_picture(name)],
        labelled_list=config.labelled_list,
        evaluation_list=config.evaluation_list,
    )


def published(config: DataConfig, data_set: str) -> str | None:
    """The evaluation list that the settings name, else the published one."""
    return config.evaluation_list or (None if config.split_table else f"conf/splits/{data_set}/val.txt")
