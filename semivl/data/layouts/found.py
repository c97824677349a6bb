"""What a layout finds in a source, and the ways in which lists and tables may name its images."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from posixpath import join

from semivl.data.columns import SplitName
from semivl.data.listing import names_in
from semivl.data.mask_ids import MaskIds
from semivl.data.source_files import SourceFiles
from semivl.errors import DataError


@dataclass(frozen=True, slots=True)
class Mask:
    """What an image's mask is made of: a file, what its values mean, and what an annotation file says."""

    name: str | None
    ids: MaskIds = "class"
    annotation: str | None = None


@dataclass(frozen=True)
class Found:
    """What lies in a source, by names relative to it."""

    images: list[str]
    masks: dict[str, str] = field(default_factory=dict)
    """by the image's name within `folder` without its ending"""
    folder: str = ""
    """where the images lie"""
    mask_folder: str = ""
    labelled_list: str | None = None
    evaluation_list: str | None = None
    meanings: dict[str, tuple[MaskIds, str | None]] = field(default_factory=dict)
    """what masks' values mean where they are not class ids, and the annotation, by the ending of their names"""
    annotated: dict[str, Mask] = field(default_factory=dict)
    """masks that an annotation file makes, by image"""
    tags: dict[str, list[str]] = field(default_factory=dict)
    complete: dict[str, bool] = field(default_factory=dict)
    """what is said of images' tags: whether they name all that is there"""
    captions: dict[str, list[str]] = field(default_factory=dict)
    splits: dict[str, SplitName] = field(default_factory=dict)
    """what folders or fields say, by image"""
    absent: list[str] = field(default_factory=list)
    """images that something belongs to and that are not there"""

    def mask_of(self, image: str, within: str | None = None) -> Mask | None:
        """The image's mask where there is one; `within` is the image's stem where that is known."""
        if image in self.annotated:
            return self.annotated[image]
        name = self.masks.get(stem(image, self.folder) if within is None else within)
        return self.read_as(name) if name else None

    def expected_mask(self, image: str) -> Mask:
        """The image's mask, or the file that it should be: a list names the image as one that has a mask."""
        mask = self.mask_of(image)
        if mask:
            return mask
        name = join(self.mask_folder, f"{stem(image, self.folder)}.png")
        return self.read_as(f"{name.removesuffix('.png')}.mask.png" if name == image else name)  # no image is its mask

    def read_as(self, name: str) -> Mask:
        """The mask of that file, with what its values mean."""
        for ending, (ids, annotation) in self.meanings.items():
            if name.endswith(ending):
                return Mask(name, ids, annotation)
        return Mask(name)


class Names:
    """Finds images by what lists, tables and annotation files call them: the path in the source or in the folder of
    images, with the ending or without, or the file's name alone where only one image has it."""

    def __init__(self, images: list[str], folder: str) -> None:
        self.images, self.folder = set(images), folder
        self._start = f"{folder}/" if folder else ""
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for image in images:
            self._by_stem[stem(image, folder)].append(image)

    def placed(self, name: str) -> str:
        """The path in the source that the name stands for, whether or not an image is there."""
        if "//" in name or "./" in name:  # seldom, and a path takes ten times as long as the rest
            name = str(PurePosixPath(name))
        return name if name.startswith(("/", self._start)) else self._start + name

    def find(self, name: str) -> list[str]:
        """The images that bear the name; mostly one."""
        placed = self.placed(name)
        if placed in self.images:
            return [placed]
        whole = _relative(placed, self.folder) if _within(placed, self.folder) else ""
        found = self._by_stem.get(whole) or self._by_stem.get(stem(placed, self.folder))
        if found or "/" in name:
            return found or []
        alone = self._by_file_name.get(name, [])
        return alone if len(alone) == 1 else []

    def by_stem(self) -> Iterator[tuple[str, str]]:
        """Every image with its stem before it."""
        return ((within, image) for within, images in self._by_stem.items() for image in images)

    def has_stem(self, name: str) -> bool:
        return name in self._by_stem

    @cached_property
    def _by_file_name(self) -> dict[str, list[str]]:
        named: defaultdict[str, list[str]] = defaultdict(list)
        for image in self.images:
            last = image.rpartition("/")[2]
            for name in {last, stem(last)}:
                named[name].append(image)
        return named


def names_below(files: SourceFiles, *folders: str) -> Iterator[str]:
    """Names of all files below the folders."""
    for folder in folders:
        yield from names_in(files, folder)


def by_stem(names: Iterable[str], folder: str) -> dict[str, str]:
    """The masks by their names within the folder without the ending.

    Raises:
        DataError: DATA111 an image has two; of files of other kinds beside a PNG the PNG is the mask.
    """
    masks: dict[str, str] = {}
    for name in names:
        key = stem(name, folder)
        other = masks.setdefault(key, name)
        if other == name:
            continue
        if is_png(other) == is_png(name):
            raise two_masks(key, other, name)
        masks[key] = name if is_png(name) else other
    return masks


def two_masks(image: str, one: str, other: str) -> DataError:
    return DataError("DATA111", f"{image} has two masks, {one} and {other}.", "Take one of them out.")


def is_png(name: str) -> bool:
    return name.lower().endswith(".png")


def stem(name: str, folder: str = "") -> str:
    """The name within the folder, without its ending; all of it where it lies elsewhere."""
    within = name[len(folder) + 1 :] if folder and name.startswith(f"{folder}/") else name
    head, _, last = within.rpartition(".")
    return head if head and last and "/" not in last and not head.endswith("/") else within


def _within(name: str, folder: str) -> bool:
    return not name.startswith("/") and (not folder or name.startswith(f"{folder}/"))


def _relative(name: str, folder: str) -> str:
    return name[len(folder) + 1 :] if folder else name
