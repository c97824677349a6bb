"""COCO's annotation files: panoptic, stuff, instances and captions, as texts for each image.

The JSON of 118,000 images has 450 MB; as Python's objects it would take ten times as much. So it is walked through an
element at a time, and what is kept of an object with an outline is its own text. While a file is read, memory holds it
and those texts, about twice its size.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from semivl.errors import DataError

_SPACE = re.compile(r"[ \t\r\n]*")
_REMEDY = "Name a COCO JSON with images, categories and annotations in `data.annotations`."


@dataclass
class ImageNotes:
    """What a file says of one image. `height` and `width` in pixels, None where it does not tell them."""

    name: str
    height: int | None
    width: int | None
    mask: str | None = None
    """file name of the panoptic PNG"""
    categories: set[Any] = field(default_factory=set)
    texts: list[str] = field(default_factory=list)
    """JSON of each object; of a panoptic file [segment id, category id] alone"""


@dataclass(frozen=True)
class AnnotationFile:
    """A file of masks: `outlines` (stuff, instances: polygons and run lengths) or `panoptic` (ids in a PNG)."""

    kind: Literal["outlines", "panoptic"]
    categories: dict[Any, str]
    """category id -> name"""
    images: list[ImageNotes]


def read_annotations(name: str, data: bytes) -> AnnotationFile:
    """The file's masks, image by image.

    Raises:
        DataError: DATA113 it is no such JSON, or names images or categories that it does not list.
    """
    categories: dict[Any, str] = {}
    images: dict[Any, ImageNotes] = {}
    waiting: dict[Any, ImageNotes] = {}
    kinds: set[str] = set()
    for key, value, text in _elements(name, data):
        try:
            if key == "categories":
                categories[value["id"]] = str(value["name"])
            elif key == "images":
                images[value["id"]] = ImageNotes(str(value["file_name"]), value.get("height"), value.get("width"))
            elif key == "annotations":
                notes = waiting.setdefault(value["image_id"], ImageNotes("", None, None))
                kinds.add(_note(notes, value, text))
        except (KeyError, TypeError, ValueError) as error:
            raise _unusable(name, f"an element of `{key}` lacks or misuses {error}: {text[:80]}") from None
    return AnnotationFile(_kind(name, kinds), categories, _joined(name, categories, images, waiting))


def captions_of(name: str, data: bytes) -> Iterator[tuple[str, str]]:
    """Image and caption, one pair a caption.

    Raises:
        DataError: DATA113 it is no JSON of COCO captions.
    """
    names: dict[Any, str] = {}
    captions: list[tuple[Any, str]] = []
    for key, value, text in _elements(name, data):
        try:
            if key == "images":
                names[value["id"]] = str(value["file_name"])
            elif key == "annotations":
                captions.append((value["image_id"], str(value["caption"])))
        except (KeyError, TypeError) as error:
            raise _unusable(name, f"an element of `{key}` lacks {error}: {text[:80]}") from None
    if not captions:
        raise _unusable(name, "it holds no captions")
    for image, caption in captions:
        if image not in names:
            raise _unusable(name, f"a caption is for the image {image}, which its images lack")
        yield names[image], caption


def _note(notes: ImageNotes, value: dict[str, Any], text: str) -> str:
    """Adds an element of the annotations to its image's notes; says of which kind it is."""
    if "segments_info" in value:
        pairs = [[_number(segment["id"]), _id(segment["category_id"])] for segment in value["segments_info"]]
        notes.mask = str(value["file_name"])
        notes.categories.update(category for _, category in pairs)
        notes.texts.extend(map(json.dumps, pairs))
        return "panoptic"
    if "segmentation" not in value:
        return "captions" if "caption" in value else "boxes"
    notes.categories.add(_id(value["category_id"]))
    notes.texts.append(text)
    return "outlines"


def _id(value: Any) -> int | str:
    if type(value) not in (int, str):
        raise ValueError(f"category_id {value!r}")
    return value


def _number(value: Any) -> int:
    """A segment's id, which is a colour: red + 256 green + 65536 blue."""
    if type(value) is not int or not 0 <= value < 1 << 24:
        raise ValueError(f"segment id {value!r}")
    return value


def _kind(name: str, kinds: set[str]) -> Literal["outlines", "panoptic"]:
    if kinds == {"panoptic"}:
        return "panoptic"
    if kinds == {"outlines"}:
        return "outlines"
    raise _unusable(name, f"it holds {' and '.join(sorted(kinds)) or 'no annotations'}, not masks alone")


def _joined(
    name: str, categories: dict[Any, str], images: dict[Any, ImageNotes], waiting: dict[Any, ImageNotes]
) -> list[ImageNotes]:
    """The images with what was noted of them: a file may list its images after its annotations."""
    for image, notes in waiting.items():
        if image not in images:
            raise _unusable(name, f"an annotation is for the image {image}, which its images lack")
        unknown = notes.categories - categories.keys()
        if unknown:
            raise _unusable(name, f"an annotation has the category {unknown.pop()}, which its categories lack")
        told = images[image]
        told.mask, told.categories, told.texts = notes.mask, notes.categories, notes.texts
    return list(images.values())


def _elements(name: str, data: bytes) -> Iterator[tuple[str, Any, str]]:
    """The elements of the lists at the top of a JSON object: the list's name, the element, and its own text."""
    try:
        text = data.decode("utf-8-sig")
        yield from _walk(text)
    except (ValueError, IndexError, RecursionError) as error:
        raise _unusable(name, f"it is no whole JSON object: {error}") from None


def _walk(text: str) -> Iterator[tuple[str, Any, str]]:
    decode = json.JSONDecoder().raw_decode
    at = _past(text, 0, "{")
    while text[at] != "}":
        key, at = decode(text, at)
        at = _past(text, at, ":")
        if text[at] != "[":
            _, at = decode(text, at)
        else:
            at = _past(text, at, "[")
            while text[at] != "]":
                value, end = decode(text, at)
                yield key, value, text[at:end]
                at = _after(text, end, "]")
            at += 1
        at = _after(text, at, "}")


def _past(text: str, at: int, sign: str) -> int:
    """The place of the next value behind `sign`."""
    at = _skip(text, at)
    if text[at] != sign:
        raise ValueError(f"there is no {sign} at character {at}")
    return _skip(text, at + 1)


def _after(text: str, at: int, end: str) -> int:
    """The place of the next value behind a comma, or of the end."""
    at = _skip(text, at)
    return at if text[at] == end else _past(text, at, ",")


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found
    return found.end()


def _unusable(name: str, what: str) -> DataError:
    return DataError("DATA113", f"{name} cannot be used: {what}.", _REMEDY)
