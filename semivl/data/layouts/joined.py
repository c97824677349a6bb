"""The sources of what a layout found: lists, tables, tags and captions brought to the images that they name."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath
from posixpath import join

from semivl.config import DataConfig
from semivl.data.columns import SplitName, read_captions, read_splits, read_tags
from semivl.data.layouts.found import Found, Mask, Names
from semivl.data.lists import read_list
from semivl.data.sample import Named, Split
from semivl.data.source_files import SourceFiles
from semivl.errors import DataError

Masked = dict[str, Mask]
"""images, each with the mask that it has or should have"""


def joined(files: SourceFiles, found: Found, config: DataConfig) -> list[Named]:
    """Every image once, sorted by path. What is named and not there stays in the list, so that it is told."""
    found, names = _ignoring(found, config), Names(found.images, found.folder)
    labelled = _listed(files, found.labelled_list, found, names)
    trained = _listed(files, config.train_list, found, names)
    told = found.splits | _table(files, config, names)
    evaluated = _listed(files, found.evaluation_list, found, names)
    open_split: Split | None = None if evaluated is None else "train"
    if evaluated is None:
        evaluated = {image: found.expected_mask(image) for image, split in told.items() if split == "val"}
    _refuse_overlap(found, config, labelled or {}, evaluated)
    listed = (labelled or {}) | evaluated
    own = _masks(found, names)
    masks = _orphans(found, names) | (own if labelled is None else {}) | listed
    told_tags = read_tags(files, config)
    tags = _by_image([*found.tags.items(), *((image, said.names) for image, said in told_tags.items())], names)
    told_complete = ((image, said.complete) for image, said in told_tags.items() if said.complete is not None)
    complete = _agreed(found.complete.items(), names) | _agreed(told_complete, names)
    captions = _by_image([*found.captions.items(), *read_captions(files, config).items()], names)
    everything = {*names.images, *map(names.placed, found.absent), *masks, *tags, *captions, *told}
    if trained is not None:
        everything = {*trained, *listed}
    wanted = listed.keys() | (trained or {}).keys()

    def split_of(image: str) -> Split | None:
        if image in evaluated:
            return "val"
        return "train" if image in told or image not in masks else open_split

    return [
        _named(
            image,
            split_of(image),
            masks.get(image),
            tags.get(image, ()),
            complete.get(image, config.tags_complete and image in tags),
            captions.get(image, ()),
        )
        for image in sorted(everything)
        if told.get(image) != "out" or image in wanted
    ]


def _ignoring(found: Found, config: DataConfig) -> Found:
    """What was found, with the settings' ids to ignore told to every mask of ids."""
    if not config.ignore_ids:
        return found
    told = json.dumps({"ignore": list(config.ignore_ids)})
    of_ids = {ending: (ids, annotation or told) for ending, (ids, annotation) in found.meanings.items()}
    return replace(found, meanings=of_ids | {"": ("class", told)})


def _named(
    image: str,
    split: Split | None,
    mask: Mask | None,
    tags: Iterable[str],
    complete: bool,
    captions: Iterable[str],
) -> Named:
    return Named(
        image=_normal(image),
        split=split,
        mask=_normal(mask.name) if mask and mask.name else None,
        tags=tuple(dict.fromkeys(filter(None, map(str.strip, tags)))) if tags else (),
        tags_complete=complete,
        caption="\n".join(filter(None, map(_line, captions))) or None,
        mask_ids=mask.ids if mask else "class",
        annotation=mask.annotation if mask else None,
    )


def _line(caption: str) -> str:
    """The caption as one line: a sample's captions are the lines of its text."""
    return " ".join(caption.split())


def _normal(name: str) -> str:
    """The name as a path gives it: without empty parts and single dots, which next to no name has."""
    if "//" in name or "./" in name or name.endswith(("/", "/.")) or name in ("", "."):
        return PurePosixPath(name).as_posix()
    return name


def _listed(files: SourceFiles, name: str | None, found: Found, names: Names) -> Masked | None:
    """The images that a list names, each with its mask; None without a list."""
    if name is None:
        return None
    listed: Masked = {}
    for line in read_list(files, name):
        image, mask = _pair(line, names)
        for match in names.find(image) or [names.placed(image)]:
            listed[match] = found.read_as(mask) if mask else found.expected_mask(match)
    return listed


def _pair(line: str, names: Names) -> tuple[str, str | None]:
    """The image that a list's line names, and the mask where it names that too (`IMAGE MASK`)."""
    first, _, second = line.partition(" ")
    if second.lower().endswith(".png") and PurePosixPath(first).suffix and names.placed(line) not in names.images:
        return first, second.strip()
    return line, None


def _table(files: SourceFiles, config: DataConfig, names: Names) -> dict[str, SplitName]:
    """The split of each image that the settings' table says one of. DATA110 where it says two."""
    splits: dict[str, SplitName] = {}
    for name, split in read_splits(files, config):
        if split is None:
            continue
        for image in names.find(name) or [names.placed(name)]:
            if splits.setdefault(image, split) != split:
                raise DataError(
                    "DATA110",
                    f"{config.split_table} puts {image} into {splits[image]} and into {split}.",
                    "Keep one of the two rows.",
                )
    return splits


def _by_image(named: Iterable[tuple[str, Iterable[str]]], names: Names) -> dict[str, list[str]]:
    """What is said of each image, by whatever name."""
    said: dict[str, list[str]] = {}
    for name, values in named:
        for image in names.find(name) or [names.placed(name)]:
            said.setdefault(image, []).extend(values)
    return said


def _agreed(named: Iterable[tuple[str, bool]], names: Names) -> dict[str, bool]:
    """What is said of each image, by whatever name; False where it is said and denied."""
    said: dict[str, bool] = {}
    for name, value in named:
        for image in names.find(name) or [names.placed(name)]:
            said[image] = value and said.get(image, True)
    return said


def _masks(found: Found, names: Names) -> Masked:
    """The images that have a mask. DATA107 where two have the same."""
    masks: Masked = {}
    owner: dict[str, str] = {}
    for within, image in names.by_stem():
        mask = found.mask_of(image, within)
        if mask is None:
            continue
        if mask.name and owner.setdefault(mask.name, image) != image:
            pair = " and ".join(sorted((owner[mask.name], image)))
            raise DataError("DATA107", f"{pair} share the mask {mask.name}.", "Rename one image and its mask.")
        masks[image] = mask
    return masks | {image: mask for image, mask in found.annotated.items() if image not in names.images}


def _orphans(found: Found, names: Names) -> Masked:
    """Masks without an image, by the place where the image would be."""
    return {
        join(found.folder, stem + PurePosixPath(mask).suffix): found.read_as(mask)
        for stem, mask in found.masks.items()
        if not names.has_stem(stem)
    }


def _refuse_overlap(found: Found, config: DataConfig, labelled: Masked, evaluated: Masked) -> None:
    both = sorted(labelled.keys() & evaluated.keys())
    if both:
        scored = found.evaluation_list or config.split_table or "the evaluation folder"
        raise DataError(
            "DATA106",
            f"{both[0]} and {len(both) - 1} more are in {found.labelled_list} and in {scored}.",
            "Take them out of one: a model must not be scored on what it learned from.",
        )
