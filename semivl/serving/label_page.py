"""The gallery of a choice: one HTML file that needs no network and no other file."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semivl.config import Record
from semivl.data.html import environment
from semivl.data.sample import Row
from semivl.evaluation.overlay import overlay, palette

_SIDE = 480
"""longest side of a picture in the gallery, pixels"""


class Head(Record):
    """What a choice was made with, and what came out."""

    dataset: str
    snapshot: str
    model: str
    """name and version"""
    seed: int
    asked: int
    chosen: int
    scored: int
    unlabelled: int
    """training images without a mask, of which `scored` were looked at"""
    near_labelled: int
    """left out since a labelled picture looks the same"""
    near_chosen: int
    """left out since one that was chosen looks the same"""
    classes: tuple[str, ...]


class Why(NamedTuple):
    """What speaks for an image."""

    uncertainty: float
    """0 to 1"""
    distance: float
    """to the nearest labelled image, 0 to 2; NaN where nothing is labelled"""
    nearest: str | None
    shares: list[tuple[str, float]]
    """predicted classes and their share of the pixels, the largest first"""


class Card(NamedTuple):
    """One image of the gallery."""

    place: int
    row: Row
    why: Why
    photo: str
    """data address"""
    drawn: str
    """the same with the prediction laid over it"""


def card(place: int, row: Row, photo: np.ndarray, mask: np.ndarray, why: Why) -> Card:
    """The gallery's part of an image: photo (H, W, 3) and mask (H, W), both uint8, made small."""
    small, ids = _small(photo, mask)
    return Card(place, row, why, _address(small), _address(overlay(small, ids)))


def page(head: Head, cards: list[Card]) -> str:
    """The gallery."""
    pages = environment(Path(__file__).parent / "templates")
    colours = {
        name: f"#{r:02x}{g:02x}{b:02x}"
        for name, (r, g, b) in zip(head.classes, palette(len(head.classes)).tolist(), strict=True)
    }
    return pages.get_template("label.html.j2").render(head=head, cards=cards, colours=colours)


def _small(photo: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    height, width = mask.shape
    ratio = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    small = Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(small), np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def _address(picture: np.ndarray) -> str:
    from PIL import Image

    body = io.BytesIO()
    Image.fromarray(picture).save(body, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(body.getvalue()).decode()}"
