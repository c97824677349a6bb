"""The text files of a source: lists of images, and the lines of tags.jsonl and captions.jsonl."""

import difflib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from semivl.errors import DataError
from semivl.settings import ROOT

_SHIPPED = ROOT / "conf" / "splits"


def find_list(root: Path, name: str) -> Path:
    """The list's file: in the source, else in the checkout, which has the published lists in conf/splits.

    Raises:
        DataError: DATA103 it is in neither.
    """
    found = next((folder / name for folder in (root, ROOT) if (folder / name).is_file()), None)
    if found:
        return found
    known = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.txt"))
    shipped = sorted(p.relative_to(ROOT).as_posix() for p in _SHIPPED.rglob("*.txt"))
    near = difflib.get_close_matches(name, known + shipped, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else f"Lists in the source: {', '.join(known[:10]) or 'none'}."
    raise DataError("DATA103", f"there is no list {name} in {root}, nor in {ROOT}.", hint)


def read_list(path: Path) -> list[str]:
    """The list's lines without the empty ones.

    Raises:
        DataError: DATA104 it cannot be read, or names nothing.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("DATA104", f"{path} cannot be read ({error}).", "Save it as UTF-8 text.") from None
    if not any(lines):
        raise DataError("DATA104", f"{path} names no image.", "Write one image name a line.")
    return [line for line in lines if line]


def read_tags(root: Path) -> dict[str, tuple[str, ...]]:
    """Each image's tags in tags.jsonl; of several lines all."""
    return {
        image: tuple(dict.fromkeys(t for ts in v for t in ts)) for image, v in _lines(root, "tags", _is_tags).items()
    }


def read_captions(root: Path) -> dict[str, str]:
    """Each image's caption in captions.jsonl; several are lines of one."""
    return {image: "\n".join(captions) for image, captions in _lines(root, "captions", _is_caption).items()}


def _is_tags(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _is_caption(value: Any) -> bool:
    return isinstance(value, str)


def _lines(root: Path, kind: str, fits: Callable[[Any], bool]) -> dict[str, list[Any]]:
    """The values that tags.jsonl or captions.jsonl gives for each image: it may have several lines."""
    path, name = root / f"{kind}.jsonl", kind if kind == "tags" else "caption"
    values: dict[str, list[Any]] = {}
    if not path.is_file():
        return values
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            image, value = entry["image"], entry[name]
        except (ValueError, KeyError, TypeError):
            image, value = None, None
        if not isinstance(image, str) or not fits(value):
            shape = (
                '{"image": "NAME.jpg", "tags": ["…"]}' if kind == "tags" else '{"image": "NAME.jpg", "caption": "…"}'
            )
            raise DataError("DATA105", f"line {number} of {path} cannot be used.", f"Write {shape}.")
        values.setdefault(image, []).append(value)
    return values
