"""The demo's data: photograph-like scenes of objects that look alike and are called differently.

    semivl scenes --labelled 16 --unlabelled 600 --evaluation 120
    python -m semivl.data.scenes FOLDER --images 8000 --seed 1000003     # images and captions for `semivl pretrain`

`write_scenes` fills a folder in the `folder` layout: images/, captions.jsonl, masks/ for the labelled and the
evaluation images, labelled.txt and evaluation.txt. An image depends on (seed, split, index) alone, so asking for
more images keeps the earlier ones. `Told` says what is told of them beside that: tags.jsonl, captions that leave more
out, training masks of some classes only. `write_captioned` writes what `semivl pretrain` learns from: images and
captions, never a mask.
"""

import argparse
import io
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from semivl.config import IGNORE, Record
from semivl.data.scenes_compose import MENTIONED, SPLITS, Scene, scene
from semivl.data.scenes_words import NAMES
from semivl.errors import DataError

QUALITY = 90
Entries = dict[str, dict[str, Any]]
_TABLES = ("captions.jsonl", "tags.jsonl")
_RECORD = "scenes.json"
_FORMAT = 1
"""to be raised whenever the same seed gives other pictures"""


class Told(Record):
    """What is told of training scenes."""

    mentioned: float = MENTIONED
    """share of the visible objects that a caption names"""
    tags: Literal["none", "some", "all"] = "none"
    """of the classes that a scene shows: `some` are positive-only tags, `all` complete ones"""
    masked: tuple[str, ...] = NAMES[1:]
    """classes that training masks show; pixels of the others are 255 there"""


TOLD = Told()
_TAGGED = 0.7
"""share of the visible objects' classes that `some` tags name"""


def write_scenes(
    folder: Path, seed: int, labelled: int, unlabelled: int, evaluation: int, size: int, told: Told = TOLD
) -> None:
    """Fills `folder` with that many images of size x size pixels; what already lies there is kept.

    Raises:
        DataError: DATA060, the folder holds something else, or scenes of another seed or size, or told of otherwise;
            DATA061, there is no such class.
    """
    counts = {"labelled": labelled, "unlabelled": unlabelled, "evaluation": evaluation}
    unknown = [name for name in told.masked if name not in NAMES[1:]]
    if unknown:
        what = f"the scenes show no {', '.join(unknown)}."
        raise DataError("DATA061", what, f"Choose of {', '.join(NAMES[1:])}.")
    write(folder, seed, counts, size, told)


def write_captioned(folder: Path, seed: int, images: int, size: int) -> None:
    """Fills `folder` with images and captions alone; about half are close-ups of one object.

    Raises:
        DataError: DATA060, the folder holds something else, or scenes of another seed or size.
    """
    write(folder, seed, {"captioned": images}, size)


def write(folder: Path, seed: int, counts: dict[str, int], size: int, told: Told = TOLD) -> None:
    """Fills `folder` with counts[split] images of each split."""
    other = told.model_dump(mode="json", exclude_defaults=True)
    _claim(folder, {"format": _FORMAT, "seed": seed, "size": size} | other)
    tables: tuple[Entries, Entries] = ({}, {})
    known = [_read_entries(folder / name) for name in _TABLES]
    for split, count in counts.items():
        for index in range(count):
            name = f"{split}-{index:05d}.jpg"
            if name not in known[0] or not (folder / "images" / name).is_file():
                drawn = scene(seed, split, index, size, mentioned=told.mentioned)
                _save(folder, name, split, drawn, told)
                known[0][name] = {"caption": drawn.caption}
                known[1][name] = _tags(drawn, told, np.random.default_rng([seed, SPLITS.index(split), index, 3]))
            tables[0][name] = known[0][name]
            if told.tags != "none" and split != "evaluation":
                tables[1][name] = known[1][name]
    _drop_surplus(folder, set(tables[0]))
    for name, table in zip(_TABLES, tables, strict=True):
        if table:
            lines = (json.dumps({"image": image} | entry) + "\n" for image, entry in table.items())
            _replace(folder / name, "".join(lines).encode())
    for split in ("labelled", "evaluation"):
        if split in counts:
            names = "".join(f"{split}-{index:05d}.jpg\n" for index in range(counts[split]))
            _replace(folder / f"{split}.txt", names.encode())


def _claim(folder: Path, record: dict[str, Any]) -> None:
    """Makes the folder and leaves the record in it, unless it is taken."""
    path = folder / _RECORD
    if path.is_file():
        if (found := json.loads(path.read_text())) != record:
            what = f"{folder} holds scenes made with {found}, asked for were {record}."
            raise DataError("DATA060", what, "Choose another folder, or delete this one.")
        return
    if folder.exists() and any(folder.iterdir()):
        raise DataError("DATA060", f"{folder} holds files that are not scenes.", "Choose an empty or a new folder.")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    _replace(path, json.dumps(record).encode())


def _save(folder: Path, name: str, split: str, drawn: Scene, told: Told) -> None:
    if split in ("labelled", "evaluation"):
        (folder / "masks").mkdir(exist_ok=True)
        mask = drawn.mask
        if split == "labelled":
            shown = [0, *(NAMES.index(one) for one in told.masked)]
            mask = np.where(np.isin(mask, shown), mask, IGNORE).astype(np.uint8)
        _replace(folder / "masks" / name.replace(".jpg", ".png"), mask_png(mask))
    _replace(folder / "images" / name, jpeg(drawn.image))


def jpeg(image: np.ndarray) -> bytes:
    """The (H, W, 3) uint8 image as JPEG."""
    body = io.BytesIO()
    Image.fromarray(image).save(body, "JPEG", quality=QUALITY)
    return body.getvalue()


def mask_png(mask: np.ndarray) -> bytes:
    """The (H, W) uint8 class ids as PNG with a palette, so that viewers show colours and readers find ids."""
    picture = Image.fromarray(mask, "P")
    picture.putpalette(palette())
    body = io.BytesIO()
    picture.save(body, "PNG")
    return body.getvalue()


def palette() -> list[int]:
    """768 numbers: black for the background, white for ignored pixels, well separated hues between."""
    colours = np.zeros((256, 3), np.uint8)
    hues = (np.arange(1, len(NAMES)) * 0.618 * 255 % 255).astype(np.uint8)
    band = np.stack([hues, np.full_like(hues, 170), np.full_like(hues, 225)], 1)[None]
    colours[1 : len(NAMES)] = np.asarray(Image.fromarray(band, "HSV").convert("RGB"))[0]
    colours[IGNORE] = 255
    return colours.ravel().tolist()


def _tags(drawn: Scene, told: Told, rng: np.random.Generator) -> dict[str, Any]:
    """What tags.jsonl says of the scene: `all` classes of its mask, or `some` of its visible objects' at least one."""
    if told.tags == "all":
        shown = [name for number, name in enumerate(NAMES) if number and (drawn.mask == number).any()]
        return {"tags": shown, "complete": True}
    kinds = list(dict.fromkeys(drawn.objects))
    return {"tags": [kind for kind in kinds if rng.random() < _TAGGED] or kinds[:1]}


def _read_entries(path: Path) -> Entries:
    """What a table says of each image, by its name."""
    if not path.is_file():
        return {}
    entries = (json.loads(line) for line in path.read_text().splitlines())
    return {entry.pop("image"): entry for entry in entries}


def _drop_surplus(folder: Path, wanted: set[str]) -> None:
    """Removes the scenes of an earlier, larger request: a layout would find them."""
    stems = {Path(name).stem for name in wanted}
    for kind in ("images", "masks"):
        for path in (folder / kind).glob("*-[0-9][0-9][0-9][0-9][0-9].*"):
            if path.stem not in stems:
                path.unlink()


def _replace(path: Path, body: bytes) -> None:
    """Writes the file whole or not at all."""
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_bytes(body)
    unfinished.replace(path)


def main() -> None:
    """Writes captioned images: what the tiny CLIP is pretrained on."""
    parser = argparse.ArgumentParser(prog="python -m semivl.data.scenes", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=1_000_003, help="not the demo's: its images are for training")
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    write_captioned(options.folder, options.seed, options.images, options.size)


if __name__ == "__main__":
    main()
