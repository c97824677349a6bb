"""CamVid's layouts: photos with masks in colours that label_colors.txt explains, or SegNet's folders of class ids."""

import json

from semivl.config import DataConfig
from semivl.data.columns import SplitName
from semivl.data.layouts.found import Found, by_stem, is_png, names_below
from semivl.data.lists import find_file
from semivl.data.source_files import SourceFiles
from semivl.errors import DataError

_PHOTOS = ("701_StillsRaw_full", "images")
_MASKS = ("LabeledApproved_full", "labels")
_COLOURS = "label_colors.txt"
_PARTS: dict[str, SplitName] = {"train": "train", "val": "val", "test": "out"}


def camvid(files: SourceFiles, config: DataConfig) -> Found:
    places = [_COLOURS, *(f"{folder}/{_COLOURS}" for folder in _MASKS)]
    colours = next((place for place in places if files.has(place)), None)
    return _segnet(files, config) if colours is None else _coloured(files, config, colours)


def _segnet(files: SourceFiles, config: DataConfig) -> Found:
    images = {part: list(names_below(files, part)) for part in _PARTS}
    masks: dict[str, str] = {}
    for part in _PARTS:
        folder = f"{part}annot"
        paired = by_stem(names_below(files, folder), folder)
        masks |= {f"{part}/{name}": mask for name, mask in paired.items()}
    return Found(
        images=[name for names in images.values() for name in names],
        masks=masks,
        labelled_list=config.labelled_list,
        evaluation_list=config.evaluation_list,
        splits={name: _PARTS[part] for part, names in images.items() for name in names},
    )


def _coloured(files: SourceFiles, config: DataConfig, colours: str) -> Found:
    photos, labels = (_used(files, folders) for folders in (_PHOTOS, _MASKS))
    named = by_stem((name for name in names_below(files, labels) if is_png(name)), labels)
    told = json.dumps({"other": config.other_categories, "colours": read_colours(files, config, colours)})
    return Found(
        images=list(names_below(files, photos)),
        masks={name.removesuffix("_L"): mask for name, mask in named.items()},
        folder=photos,
        mask_folder=labels,
        labelled_list=config.labelled_list,
        evaluation_list=config.evaluation_list,
        meanings={".png": ("colours", told)},
    )


def read_colours(files: SourceFiles, config: DataConfig, name: str) -> list[list[int | str]]:
    """Red, green, blue and the class of every line `64 128 64 Animal`.

    Raises:
        DataError: DATA121 a line has another shape.
    """
    told: list[list[int | str]] = []
    for number, line in enumerate(find_file(files, name).decode("utf-8", "replace").splitlines(), start=1):
        words = line.split(maxsplit=3)
        if not words:
            continue
        colour = [int(word) for word in words[:3] if word.isascii() and word.isdigit() and int(word) < 256]
        if len(words) < 4 or len(colour) < 3:
            raise DataError("DATA121", f"line {number} of {name} is {line!r}.", "Write `64 128 64 Animal`.")
        told.append([*colour, config.categories.get(words[3].strip(), words[3].strip())])
    return told


def _used(files: SourceFiles, folders: tuple[str, ...]) -> str:
    """The first of the folders that has files."""
    return next((folder for folder in folders if next(iter(files.names(folder)), None)), folders[-1])
