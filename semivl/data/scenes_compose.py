"""What stands in a scene of the demo, where, in which colours: from (seed, split, index) to photo, mask and caption."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from semivl.config import IGNORE
from semivl.data import scenes_render as render
from semivl.data.scenes_shapes import SHAPES
from semivl.data.scenes_words import BACKGROUND_WORDS, NAMES, caption, landscape

SPLITS = ("labelled", "unlabelled", "evaluation", "captioned")
MENTIONED = 0.85
"""share of the visible objects that a caption names"""
_FUR = (
    (0.80, 0.47, 0.20),
    (0.66, 0.34, 0.14),
    (0.46, 0.31, 0.20),
    (0.52, 0.49, 0.46),
    (0.76, 0.63, 0.44),
    (0.27, 0.23, 0.21),
)
_PLUMAGE = (
    (0.90, 0.88, 0.82),
    (0.55, 0.36, 0.20),
    (0.30, 0.25, 0.22),
    (0.62, 0.56, 0.48),
    (0.74, 0.54, 0.30),
)
_LACQUER = (
    (0.72, 0.12, 0.12),
    (0.15, 0.28, 0.58),
    (0.85, 0.84, 0.82),
    (0.82, 0.62, 0.14),
    (0.18, 0.40, 0.28),
    (0.34, 0.35, 0.38),
)
_CAP = (
    (0.72, 0.16, 0.12),
    (0.52, 0.33, 0.20),
    (0.80, 0.68, 0.48),
    (0.80, 0.45, 0.18),
    (0.45, 0.18, 0.24),
    (0.36, 0.34, 0.42),
)
_LOOKS = {"cat": _FUR, "duck": _PLUMAGE, "car": _LACQUER, "mushroom": _CAP}
_LOOKS |= {"fox": _FUR, "hen": _PLUMAGE, "truck": _LACQUER, "umbrella": _CAP}
_SURFACES = {
    _FUR: ("fur", 0.09, 0.0),
    _PLUMAGE: ("fur", 0.06, 0.0),
    _LACQUER: ("paint", 0.03, 0.7),
    _CAP: ("cloud", 0.05, 0.25),
}
_FIXED = {
    "black": (0.06, 0.06, 0.07), "glass": (0.22, 0.30, 0.36), "metal": (0.62, 0.63, 0.65), "lamp": (0.98, 0.92, 0.66),
    "bill": (0.90, 0.58, 0.12), "comb": (0.75, 0.12, 0.12), "cream": (0.93, 0.88, 0.78),
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """A finished scene: the photo (S, S, 3) uint8, its class ids (S, S) uint8, and what one would write under it."""

    image: np.ndarray
    mask: np.ndarray
    caption: str
    objects: tuple[str, ...]
    """class names of the objects that can be seen, largest first"""


def scene(
    seed: int, split: str, index: int, size: int, objects: int | None = None, mentioned: float = MENTIONED
) -> Scene:
    """The scene of that number; `objects` of them where given, else 1 to 4 (0 to 4 for split `captioned`).

    Another share of mentioned objects gives another caption of the same picture.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    close_up = split == "captioned" and rng.random() < 0.65
    if objects is None:
        objects = 1 if close_up else int(rng.choice([1, 2, 3, 4], p=[0.2, 0.35, 0.3, 0.15]))
        if split == "captioned" and not close_up and rng.random() < 0.12:
            objects = 0
    kind = str(rng.choice(list(BACKGROUND_WORDS)))
    horizon = size * float(rng.uniform(0.08, 0.42) if rng.random() < 0.5 else rng.uniform(-0.9, -0.2))
    lamp = render.light(rng)
    picture = render.ground(rng, kind, size, horizon)
    mask = np.zeros((size, size), np.uint8)
    owner = np.full((size, size), -1)
    names = _cast(rng, seed, split, index, objects)
    spots = [_closely(rng, size) if close_up else _somewhere(rng, size, horizon) for _ in names]
    whole = []
    for number, (name, spot) in enumerate(sorted(zip(names, spots, strict=True), key=lambda pair: pair[1][1])):
        cover = _place(rng, picture, name, spot, lamp)
        mask[cover > 0.2] = IGNORE
        mask[cover > 0.8] = NAMES.index(name)
        owner[cover > 0.5] = number
        whole.append((name, int((cover > 0.5).sum())))
    visible = _visible(owner, whole)
    sky, placed = horizon > 0, 0.3 if close_up else 0.8
    text = caption(rng, visible, kind, sky, MENTIONED, placed) if visible else landscape(rng, kind, sky)
    if visible and mentioned != MENTIONED:
        own = np.random.default_rng([seed, SPLITS.index(split), index, 2])
        text = caption(own, visible, kind, sky, mentioned, placed)
    return Scene(render.photograph(rng, picture, lamp), mask, text, tuple(visible))


def _visible(owner: np.ndarray, whole: list[tuple[str, int]]) -> list[str]:
    """Names of the objects of which enough can be seen, largest first; the front one where none is.

    Args:
        owner: (S, S) number of the object in front at each pixel, -1 for none.
        whole: name and uncovered area of each object, in the order of their numbers.
    """
    seen = [(name, int((owner == number).sum()), area) for number, (name, area) in enumerate(whole)]
    enough = [s for s in sorted(seen, key=lambda s: -s[1]) if s[1] > 0.3 * s[2] and s[1] > 0.002 * owner.size]
    return [name for name, *_ in enough] or [name for name, *_ in seen][-1:]


def _cast(rng: Generator, seed: int, split: str, index: int, count: int) -> list[str]:
    """Names of the objects: the first one goes round all classes, so that few images show every class."""
    names = list(SHAPES)
    turn = np.random.default_rng([seed, SPLITS.index(split), index // len(names), 1]).permutation(len(names))
    first = names[int(turn[index % len(names)])]
    return [first, *(str(rng.choice(names)) for _ in range(count - 1))][:count]


def _somewhere(rng: Generator, size: int, horizon: float) -> tuple[float, float, float]:
    """Centre, row of the foot and half-height in pixels; what stands lower is nearer and larger."""
    foot = size * rng.uniform(max(horizon / size + 0.12, 0.38), 1.02)
    near = (foot - horizon) / (size - horizon)
    reach = size * (0.09 + 0.17 * near) * rng.uniform(0.8, 1.25)
    return size * rng.uniform(0.1, 0.9), max(foot, reach * 1.2), reach


def _closely(rng: Generator, size: int) -> tuple[float, float, float]:
    reach = size * rng.uniform(0.26, 0.44)
    return size * rng.uniform(0.35, 0.65), size * rng.uniform(0.5, 0.6) + reach, reach


def _place(
    rng: Generator, picture: np.ndarray, name: str, spot: tuple[float, float, float], lamp: render.Light
) -> np.ndarray:
    """Draws the object into the picture, its shadow first; gives its cover (S, S) in [0, 1]."""
    size, (x, foot, reach) = len(picture), spot
    tilt, flip = rng.normal(0, 0.14), 1 if rng.random() < 0.5 else -1
    wide, lean = reach * rng.uniform(0.88, 1.15), reach * rng.normal(0, 0.06)
    c, s = np.cos(tilt), np.sin(tilt)
    transform = np.array([[wide * flip, 0], [lean, reach]]) @ np.array([[c, s], [-s, c]])
    centre = np.array([x, foot - reach])
    looks = _LOOKS[name]
    surface, contrast, gloss = _SURFACES[looks]
    parts = render.outline(SHAPES[name](rng), transform, centre)
    flat, cover, heights = render.paint(parts, size, _colours(rng, looks))
    top, left = rng.integers(0, render.TILE, 2)
    rows, columns = ((np.arange(size) * 128 // size + o) % render.TILE for o in (top, left))
    flat = flat * (1 + contrast * rng.uniform(0.8, 2.0) * render.texture(surface)[rows[:, None], columns])[..., None]
    dark = render.shadow(cover, foot, lamp)
    contact = np.exp(
        -(((np.arange(size) - x) / (0.8 * reach)) ** 2)[None]
        - (((np.arange(size) - foot) / (0.1 * reach)) ** 2)[:, None]
    )
    picture *= (1 - lamp.shadow * np.maximum(dark, 0.8 * contact.astype(np.float32)))[..., None]
    coloured = render.shaded(flat, cover, heights, reach, lamp, gloss)
    picture += (coloured - picture) * cover[..., None]
    return cover


def _colours(rng: Generator, looks: tuple[tuple[float, ...], ...]) -> dict[str, np.ndarray]:
    base = np.clip(
        np.array(looks[int(rng.integers(len(looks)))]) * rng.uniform(0.8, 1.15) * (1 + rng.normal(0, 0.06, 3)),
        0.04,
        0.97,
    )
    colours = {tone: np.array(value) * rng.uniform(0.85, 1.05) for tone, value in _FIXED.items()}
    return colours | {
        "base": base,
        "dark": base * rng.uniform(0.5, 0.75),
        "light": base + (0.95 - base) * rng.uniform(0.5, 0.8),
    }
