"""Layouts: how a source is arranged, turned into the list of its images. The first step of an ingest.

No picture is opened here, and nothing is copied: a layout reads names, and the small files that say something of the
images. A name that a list gives and the source lacks stays in the list, so that the checks quarantine and count it;
only what spoils the whole source is raised. docs/layouts.md shows every layout.

A new layout is one function in LAYOUTS that returns a Found.
"""

from collections.abc import Callable

from semivl.config import DataConfig
from semivl.data.layouts.camvid import camvid
from semivl.data.layouts.coco import coco
from semivl.data.layouts.folders import ade20k, cityscapes, folder, images, voc
from semivl.data.layouts.found import Found
from semivl.data.layouts.joined import joined
from semivl.data.layouts.webdataset import webdataset
from semivl.data.sample import Named, Source
from semivl.data.source_files import SourceFiles, open_source
from semivl.errors import DataError

__all__ = ["LAYOUTS", "list_named", "list_sources"]

LAYOUTS: dict[str, Callable[[SourceFiles, DataConfig], Found]] = {
    "voc": voc,
    "folder": folder,
    "images": images,
    "ade20k": ade20k,
    "camvid": camvid,
    "cityscapes": cityscapes,
    "coco": coco,
    "webdataset": webdataset,
}
_ARRANGED = {
    "ade20k": "The layout `ade20k` has images/training, images/validation and annotations/ with the same names.",
    "camvid": "The layout `camvid` has images/, labels/ and label_colors.txt, or train/, trainannot/, val/, valannot/.",
    "cityscapes": "The layout `cityscapes` has leftImg8bit/train, leftImg8bit/val and gtFine/ with the same cities.",
    "coco": "The layout `coco` has train2017/, val2017/ and masks/ with a PNG of class ids for each image's number, "
    "or any folders of images and `data.annotations`.",
    "voc": "The layout `voc` has JPEGImages/ and SegmentationClass/.",
    "folder": "The layout `folder` has images/ and, for some of them, masks/ with a PNG of the same name.",
    "images": "The layout `images` has pictures in any folders.",
    "webdataset": "The layout `webdataset` has tars whose members of one key are a sample: KEY.jpg, KEY.mask.png.",
}


def list_sources(config: DataConfig, files: SourceFiles | None = None) -> list[Source]:
    """As `list_named`, as sources."""
    return [named.source() for named in list_named(config, files)]


def list_named(config: DataConfig, files: SourceFiles | None = None) -> list[Named]:
    """Every image of the source with its split and what belongs to it, sorted by path, which is relative.

    A split of None is open: no list, column or folder decides it, and the hash of the image's bytes will.

    Raises:
        DataError: DATA101 no such source, DATA102 no images in it, DATA103 a file of the settings that is not there,
            DATA104 a list that cannot be used, DATA105 and DATA108 to DATA110 a table that cannot, DATA106 an image in
            both lists, DATA107 and DATA111 masks that cannot be told apart, DATA112 a folder that cannot be listed,
            DATA113, DATA114, DATA121 to DATA123 an annotation, label_colors.txt or a text that cannot be used.
        StoreError: S3 does not answer.
    """
    files = open_source(config) if files is None else files
    found = LAYOUTS[config.layout](files, config)
    if not found.images:
        place = f"{files.address}/{found.folder}".rstrip("/")
        raise DataError("DATA102", f"there are no images in {place}.", _ARRANGED[config.layout])
    return joined(files, found, config)
