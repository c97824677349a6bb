"""The demo's data: photograph-like scenes of objects that look alike and are called differently.

    semivl scenes --labelled 16 --unlabelled 600 --evaluation 120
    python -m semivl.data.scenes FOLDER --images 8000 --seed 1000003     # images and captions for `semivl pretrain`

`write_scenes` fills a folder in the `folder` layout: images/, captions.jsonl, masks/ for the labelled and the
evaluation images, labelled.txt and evaluation.txt. An image depends on (seed, split, index) alone, so asking for
more images keeps the earlier ones. `write_captioned` writes what `semivl pretrain` learns from: images and
captions, never a mask.
"""

import argparse
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semivl.config import IGNORE
from semivl.data.scenes_compose import Scene, scene
from semivl.data.scenes_words import NAMES
from semivl.errors import DataError

QUALITY = 90
_RECORD = "scenes.json"
_FORMAT = 1
"""to be raised whenever the same seed gives other pictures"""


def write_scenes(folder: Path, seed: int, labelled: int, unlabelled: int, evaluation: int, size: int) -> None:
    """Fills `folder` with that many images of size x size pixels; what already lies there is kept.

    Raises:
        DataError: DATA060, the folder holds something else, or scenes of another seed or size.
    """
    write(folder, seed, {"labelled": labelled, "unlabelled": unlabelled, "evaluation": evaluation}, size)


def write_captioned(folder: Path, seed: int, images: int, size: int) -> None:
    """Fills `folder` with images and captions alone; about half are close-ups of one object.

    Raises:
        DataError: DATA060, the folder holds something else, or scenes of another seed or size.
    """
    write(folder, seed, {"captioned": images}, size)


def write(folder: Path, seed: int, counts: dict[str, int], size: int) -> None:
    """Fills `folder` with counts[split] images of each split."""
    _claim(folder, {"format": _FORMAT, "seed": seed, "size": size})
    known = _read_captions(folder / "captions.jsonl")
    captions = []
    for split, count in counts.items():
        for index in range(count):
            name = f"{split}-{index:05d}.jpg"
            if name not in known or not (folder / "images" / name).is_file():
                drawn = scene(seed, split, index, size)
                _save(folder, name, split, drawn)
                known[name] = drawn.caption
            captions.append({"image": name, "caption": known[name]})
    _drop_surplus(folder, {entry["image"] for entry in captions})
    _replace(folder / "captions.jsonl", "".join(json.dumps(entry) + "\n" for entry in captions).encode())
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


def _save(folder: Path, name: str, split: str, drawn: Scene) -> None:
    if split in ("labelled", "evaluation"):
        (folder / "masks").mkdir(exist_ok=True)
        _replace(folder / "masks" / name.replace(".jpg", ".png"), mask_png(drawn.mask))
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


def _read_captions(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    entries = (json.loads(line) for line in path.read_text().splitlines())
    return {entry["image"]: entry["caption"] for entry in entries}


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
