"""Layouts: how a source folder is arranged, turned into the list of its images. The first step of an ingest.

No picture is opened here. A name that a list gives and the folder lacks stays in the list, so that the checks
quarantine and count it; only what spoils the whole source is raised.

A new layout is one function in LAYOUTS that returns a Found.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from semivl.config import DataConfig
from semivl.data.lists import find_list, read_captions, read_list, read_tags
from semivl.data.mask_ids import MaskIds
from semivl.data.sample import Source
from semivl.errors import DataError
from semivl.settings import ROOT


@dataclass(frozen=True)
class Found:
    """What lies in a source, by path relative to it."""

    images: list[Path]
    masks: dict[str, Path]
    """by the image's name without its ending"""
    folder: Path
    """where the images lie"""
    mask_folder: Path
    labelled_list: str | None
    evaluation_list: str | None
    mask_ids: dict[str, MaskIds] = field(default_factory=dict)
    """what a mask's values mean where they are not class ids, by the ending of its name"""
    tags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)


def source_folder(config: DataConfig) -> Path:
    """The source as a path; relative ones count from the checkout."""
    return ROOT / config.source.expanduser()


def list_sources(config: DataConfig) -> list[Source]:
    """Every image of the source with its split and what belongs to it, sorted by path, which is relative.

    Raises:
        DataError: DATA101 no such folder, DATA102 no images in it, DATA103 a list that is not there,
            DATA104 a list that cannot be used, DATA105 a line of tags or captions that cannot be used,
            DATA106 an image in both lists, DATA107 images that a mask's name does not tell apart.
    """
    root = source_folder(config)
    if not root.is_dir():
        raise DataError("DATA101", f"there is no folder {root}.", "Mend `source` in the experiment's data.")
    found = LAYOUTS[config.layout](root, config)
    if not found.images:
        raise DataError("DATA102", f"there are no images in {root / found.folder}.", _ARRANGED[config.layout])
    sources = _with_lists(root, found, config.train_list)
    if found.evaluation_list is None:
        sources = _held_out(root, sources, config.evaluation_share)
    return sorted(sources, key=lambda s: s.image.as_posix())


def _voc(root: Path, config: DataConfig) -> Found:
    images, masks = Path("JPEGImages"), Path("SegmentationClass")

    def usual(name: str) -> str | None:
        path = f"ImageSets/Segmentation/{name}.txt"
        return path if (root / path).is_file() else None

    return Found(
        images=list(_files(root, images)),
        masks=_by_stem(_files(root, masks), masks),
        folder=images,
        mask_folder=masks,
        labelled_list=config.labelled_list or usual("train"),
        evaluation_list=config.evaluation_list or usual("val"),
    )


def _ade20k(root: Path, config: DataConfig) -> Found:
    images, masks = Path("images"), Path("annotations")
    parts = ("training", "validation")
    return Found(
        images=[p for part in parts for p in _files(root, images / part)],
        masks={k: v for part in parts for k, v in _by_stem(_files(root, masks / part), masks).items()},
        folder=images,
        mask_folder=masks,
        labelled_list=config.labelled_list,
        evaluation_list=config.evaluation_list or "conf/splits/ade20k/val.txt",
        mask_ids={".png": "ade20k"},
    )


def _cityscapes(root: Path, config: DataConfig) -> Found:
    images, masks = Path("leftImg8bit"), Path("gtFine")
    own = "_gtFine_labelIds.png"
    paired: dict[str, Path] = {}
    for ending in (own, "_gtFine_labelTrainIds.png"):  # the later, already made by Cityscapes' own script, win
        for part in ("train", "val"):
            for path in _files(root, masks / part):
                stem, is_mask, _ = path.relative_to(masks).as_posix().partition(ending)
                if is_mask:
                    paired[f"{stem}_leftImg8bit"] = path
    return Found(
        images=[p for part in ("train", "val") for p in _files(root, images / part)],
        masks=paired,
        folder=images,
        mask_folder=masks,
        labelled_list=config.labelled_list,
        evaluation_list=config.evaluation_list or "conf/splits/cityscapes/val.txt",
        mask_ids={own: "cityscapes"},
    )


def _coco(root: Path, config: DataConfig) -> Found:
    folder, masks = Path(), Path("masks")
    images = [p for part in ("train2017", "val2017") for p in _files(root, Path(part))]
    by_id = _by_stem(_files(root, masks), masks)
    paired = {_stem(p, folder): by_id[p.stem] for p in images if p.stem in by_id}
    alone = by_id.keys() - {p.stem for p in images}
    return Found(
        images=images,
        masks=paired | {stem: by_id[stem] for stem in alone},
        folder=folder,
        mask_folder=masks,
        labelled_list=config.labelled_list,
        evaluation_list=config.evaluation_list or "conf/splits/coco/val.txt",
    )


def _folder(root: Path, config: DataConfig) -> Found:
    images, masks = Path("images"), Path("masks")
    return Found(
        images=list(_files(root, images)),
        masks=_by_stem(_files(root, masks), masks),
        folder=images,
        mask_folder=masks,
        labelled_list=config.labelled_list,
        evaluation_list=config.evaluation_list,
        tags=read_tags(root),
        captions=read_captions(root),
    )


LAYOUTS: dict[str, Callable[[Path, DataConfig], Found]] = {
    "voc": _voc,
    "folder": _folder,
    "ade20k": _ade20k,
    "cityscapes": _cityscapes,
    "coco": _coco,
}
_ARRANGED = {
    "ade20k": "The layout `ade20k` has images/training, images/validation and annotations/ with the same names.",
    "cityscapes": "The layout `cityscapes` has leftImg8bit/train, leftImg8bit/val and gtFine/ with the same cities.",
    "coco": "The layout `coco` has train2017/, val2017/ and masks/ with a PNG of class ids for each image's number.",
    "voc": "The layout `voc` has JPEGImages/ and SegmentationClass/.",
    "folder": "The layout `folder` has images/ and, for some of them, masks/ with a PNG of the same name.",
}


def _files(root: Path, folder: Path) -> Iterator[Path]:
    """Files below `folder`, relative to `root`; hidden ones (.DS_Store) are nobody's photos."""
    for place, folders, names in os.walk(root / folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield from (Path(place, n).relative_to(root) for n in sorted(names) if not n.startswith("."))


def _by_stem(paths: Iterator[Path], folder: Path) -> dict[str, Path]:
    return {_stem(p, folder): p for p in paths}


def _stem(path: Path, folder: Path) -> str:
    """The image's name within the folder, without its ending; all of the path where it lies elsewhere."""
    within = path.relative_to(folder) if path.is_relative_to(folder) else path
    return within.with_suffix("").as_posix() if within.name else within.as_posix()


def _with_lists(root: Path, found: Found, train_list: str | None) -> list[Source]:
    by_stem: dict[str, list[Path]] = {}
    for path in found.images:
        by_stem.setdefault(_stem(path, found.folder), []).append(path)
    labelled = _listed(root, found.labelled_list, found, by_stem)
    evaluated = _listed(root, found.evaluation_list, found, by_stem) or {}
    trained = _listed(root, train_list, found, by_stem)
    _refuse_overlap(found, labelled or {}, evaluated)
    masks = {path: found.masks[stem] for stem, paths in by_stem.items() for path in paths if stem in found.masks}
    _refuse_shared(masks)
    named = {*found.tags, *found.captions}
    absent = {found.folder / n for n in named} | {*(labelled or {}), *evaluated}
    orphans = {found.folder / m.relative_to(found.mask_folder): m for s, m in found.masks.items() if s not in by_stem}
    everything = {*found.images, *absent, *orphans}
    if trained is not None:
        everything = {*trained, *(labelled or {}), *evaluated}
    sources = []
    for path in sorted(everything):
        name = path.relative_to(found.folder).as_posix() if path.is_relative_to(found.folder) else path.as_posix()
        mask = evaluated.get(path) or (masks.get(path) if labelled is None else labelled.get(path))
        mask = mask or orphans.get(path)
        sources.append(
            Source(
                image=path,
                split="val" if path in evaluated else "train",
                mask=mask,
                mask_ids=_meaning(mask, found),
                tags=found.tags.get(name, ()),
                caption=found.captions.get(name) or None,
            )
        )
    return sources


def _meaning(mask: Path | None, found: Found) -> MaskIds:
    """What the mask's values mean."""
    for ending, ids in found.mask_ids.items():
        if mask and mask.name.endswith(ending):
            return ids
    return "class"


def _listed(root: Path, name: str | None, found: Found, by_stem: dict[str, list[Path]]) -> dict[Path, Path] | None:
    """The images that a list names, each with its mask; None without a list."""
    if name is None:
        return None
    listed: dict[Path, Path] = {}
    images = set(found.images)
    for line in read_list(find_list(root, name)):
        image, mask = _pair(line, found.folder, images)
        whole = image.relative_to(found.folder).as_posix() if image.is_relative_to(found.folder) else ""
        matches = [image] if image in images else by_stem.get(whole) or by_stem.get(_stem(image, found.folder))
        for match in matches or [image]:
            stem = _stem(match, found.folder)
            listed[match] = mask or found.masks.get(stem) or found.mask_folder / f"{stem}.png"
    return listed


def _pair(line: str, folder: Path, images: set[Path]) -> tuple[Path, Path | None]:
    """The image that a list's line names, and the mask where it names that too (`IMAGE MASK`)."""

    def placed(name: str) -> Path:
        return Path(name) if Path(name).is_relative_to(folder) else folder / name

    first, _, second = line.partition(" ")
    if second.lower().endswith(".png") and Path(first).suffix and placed(line) not in images:
        return placed(first), Path(second.strip())
    return placed(line), None


def _refuse_overlap(found: Found, labelled: dict[Path, Path], evaluated: dict[Path, Path]) -> None:
    both = sorted(p.as_posix() for p in labelled.keys() & evaluated.keys())
    if both:
        raise DataError(
            "DATA106",
            f"{both[0]} and {len(both) - 1} more are in {found.labelled_list} and {found.evaluation_list}.",
            "Take them out of one: a model must not be scored on what it learned from.",
        )


def _refuse_shared(masks: dict[Path, Path]) -> None:
    owner: dict[Path, Path] = {}
    for image, mask in masks.items():
        if mask in owner:
            raise DataError(
                "DATA107",
                f"{owner[mask]} and {image} share the mask {mask}.",
                "Rename one image and its mask.",
            )
        owner[mask] = image


def _held_out(root: Path, sources: list[Source], share: float) -> list[Source]:
    """Without an evaluation list: the masked images with the smallest content hash become `val`.

    A threshold on the hash, so that an image's split does not hang on what else is there; at least one of
    two or more masked images falls on each side.
    """
    ranks = {s.image: rank for s in sources if s.mask and (rank := _hash_rank(root / s.image)) is not None}
    ordered = sorted(ranks, key=lambda p: (ranks[p], p))
    below = sum(r < share for r in ranks.values())
    held = set(ordered[: min(max(below, 1), max(len(ordered) - 1, 0))])
    return [replace(s, split="val") if s.image in held else s for s in sources]


def _hash_rank(path: Path) -> float | None:
    """The content's place in [0, 1); None where it cannot be read, which the checks will tell."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            return int(hashlib.file_digest(file, "sha256").hexdigest()[-13:], 16) / 16**13
    except OSError:
        return None
