"""Tars in WebDataset's form: members of one key are one sample."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from semivl.config import DataConfig
from semivl.data.columns import as_split
from semivl.data.layouts.folders import is_picture
from semivl.data.layouts.found import Found, two_masks
from semivl.data.lists import read_list
from semivl.data.source_files import SourceFiles
from semivl.data.tar_files import Member, TarFiles
from semivl.errors import DataError

_IMAGES = ("jpg", "jpeg", "png")
_MASKS = ("mask.png", "seg.png", "png")
"""fields of a sample; a `png` beside a `jpg` is its mask"""


@dataclass
class _Sample:
    """A sample's members by field: what follows the first dot of their names."""

    key: str
    fields: dict[str, Member] = field(default_factory=dict)

    def image(self) -> str | None:
        """The field of the image. DATA122 where there are two."""
        found = [name for name in _IMAGES if name in self.fields]
        if found[:2] == ["jpg", "jpeg"]:
            raise DataError("DATA122", f"{self.key} has a jpg and a jpeg.", "Take one of them out.")
        return found[0] if found else None

    def mask(self, image: str | None) -> str | None:
        """The field of the mask. DATA111 where there are two."""
        found = [name for name in _MASKS if name in self.fields and name != image]
        if len(found) > 1:
            raise two_masks(self.key, *found[:2])
        return found[0] if found else None


def webdataset(files: SourceFiles, config: DataConfig) -> Found:
    assert isinstance(files, TarFiles)
    numbered = read_list(files, config.tag_names) if config.tag_names else []
    found = Found(
        images=[], tags={}, captions={}, labelled_list=config.labelled_list, evaluation_list=config.evaluation_list
    )
    for tar in files.tars(files.files.names()):
        for sample in _samples(tar.members):
            _add(found, sample, config, numbered)
        if tar.fault:
            found.images.append(tar.info.name)  # reading it raises the fault, which is told then
    return found


def _add(found: Found, sample: _Sample, config: DataConfig, numbered: list[str]) -> None:
    image = sample.image()
    mask = sample.mask(image)
    if image is None:
        pictures = [m.name for name, m in sample.fields.items() if name not in _MASKS and is_picture(m.name)]
        found.images.extend(pictures)  # of a kind that no sample has: the checks tell so
        if not pictures and (mask or sample.fields.keys() & {"json", "txt", "cls"}):
            found.absent.append(sample.key)
        return
    name = sample.fields[image].name
    found.images.append(name)
    if mask:
        found.masks[sample.key] = sample.fields[mask].name
    told = _json(sample.fields["json"]) if "json" in sample.fields else {}
    caption = _text(sample.fields["txt"]) if "txt" in sample.fields else told.get("caption")
    tags = [*told.get("tags", ()), *(_tag(sample.fields["cls"], numbered) if "cls" in sample.fields else ())]
    if caption:
        found.captions[name] = caption.splitlines()  # as the shards that ingest writes have several captions
    if tags:
        found.tags[name] = tags
    if "tags_complete" in told:
        found.complete[name] = told["tags_complete"]
    split = as_split(told.get(config.split_column), config, sample.key)
    if split:
        found.splits[name] = split


def _samples(members: Iterable[Member]) -> Iterator[_Sample]:
    """Members in the order of the tar, those of one key together."""
    for key, group in groupby(sorted((_split(m.name), m) for m in members), key=lambda pair: pair[0][0]):
        yield _Sample(key, {field: member for (_, field), member in group})


def _split(name: str) -> tuple[str, str]:
    """Key and field of a member's name: up to the first dot of its last part, and what follows."""
    folder, _, last = name.rpartition("/")
    key, _, rest = last.partition(".")
    return f"{folder}/{key}", rest.lower()


def _json(member: Member) -> dict[str, Any]:
    try:
        told = json.loads(_text(member))
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or not _is_told(told):
        raise _unusable(member, 'Write {"tags": ["…"], "tags_complete": true, "caption": "…"}, each where it is known.')
    return told


def _is_told(told: dict[str, Any]) -> bool:
    tags, complete, caption = told.get("tags", []), told.get("tags_complete", False), told.get("caption", "")
    words = isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)
    return words and isinstance(complete, bool) and isinstance(caption, str)


def _tag(member: Member, numbered: list[str]) -> list[str]:
    """The class that a `cls` names, or the name that its number has in `tag_names`."""
    text = _text(member)
    if not numbered or not text.isdecimal():
        return [text] if text else []
    if int(text) >= len(numbered):
        raise _unusable(member, f"It says {text}, and `data.tag_names` lists {len(numbered)} names, the first is 0.")
    return [numbered[int(text)]]


def _text(member: Member) -> str:
    try:
        if member.text is not None:
            return member.text.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        pass
    raise _unusable(member, "Save it as UTF-8 text of at most a megabyte.")


def _unusable(member: Member, remedy: str) -> DataError:
    return DataError("DATA123", f"{member.name} cannot be used.", remedy)
