"""Outlines of the eight objects in the demo's scenes, drawn from polygons and ellipses.

The objects come in look-alike pairs that share their colours and textures (cat and fox, duck and hen, car and
truck, mushroom and umbrella): what tells them apart is shape, and the word in the caption. An object stands in
a box of about [-1, 1] x [-1, 1], x to the right (it looks right), y downwards, its foot near y = 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

Points = np.ndarray
"""(K, 2) float64 corners of a polygon"""


class Part(NamedTuple):
    """One polygon of an object: which of its colours fills it, and how far it bulges towards the light."""

    points: Points
    tone: str
    height: int = 160


def ellipse(x: float, y: float, width: float, height: float, tilt: float = 0.0) -> Points:
    """(24, 2) corners of an ellipse with the given radii, turned by `tilt` radians."""
    t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    flat = np.stack([np.cos(t) * width, np.sin(t) * height], 1)
    c, s = np.cos(tilt), np.sin(tilt)
    return flat @ np.array([[c, s], [-s, c]]) + (x, y)


def limb(path: list[tuple[float, float]], widths: list[float]) -> Points:
    """Outline of a stroke along a smoothed path, its half-width interpolated between `widths`."""
    line = smooth(np.array(path), closed=False)
    ahead = np.gradient(line, axis=0)
    side = np.stack([-ahead[:, 1], ahead[:, 0]], 1) / (np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-9)
    width = np.interp(np.linspace(0, 1, len(line)), np.linspace(0, 1, len(widths)), widths)[:, None]
    return np.concatenate([line + side * width, (line - side * width)[::-1]])


def smooth(points: Points, closed: bool = True, steps: int = 5) -> Points:
    """Catmull-Rom curve through the points, `steps` corners between each two."""
    p = np.asarray(points, float)
    before = np.roll(p, 1, 0) if closed else np.concatenate([p[:1], p[:-1]])
    after = np.roll(p, -1, 0) if closed else np.concatenate([p[1:], p[-1:]])
    beyond = np.roll(p, -2, 0) if closed else np.concatenate([p[2:], p[-1:], p[-1:]])
    t = np.arange(steps)[:, None, None] / steps
    curve = 0.5 * (
        2 * p + (after - before) * t + (2 * before - 5 * p + 4 * after - beyond) * t**2
        + (3 * p - before - 3 * after + beyond) * t**3
    )  # fmt: skip
    corners = curve.transpose(1, 0, 2).reshape(-1, 2)
    return corners if closed else np.concatenate([corners[: (len(p) - 1) * steps], p[-1:]])


def polygon(*corners: tuple[float, float]) -> Points:
    return np.array(corners, float)


def _legs(rng: Generator, xs: tuple[float, ...], top: float, width: float, tone: str) -> list[Part]:
    stride = rng.uniform(-0.14, 0.14, len(xs))
    return [
        Part(limb([(x, top), (x + d, 1.0)], [width * 1.4, width]), tone, 120)
        for x, d in zip(xs, stride, strict=True)
    ]


def cat(rng: Generator) -> list[Part]:
    """Round head, short snout, small ears, a thin tail held up."""
    sway, nod = rng.uniform(-0.25, 0.25), rng.uniform(-0.12, 0.1)
    tail = [(-0.6, 0.15), (-0.98, 0.0), (-1.05, -0.45), (-0.9 + sway, -0.85)]
    parts = [
        Part(limb(tail, [0.09, 0.08, 0.07, 0.06]), "base", 130),
        *_legs(rng, (-0.5, 0.42), 0.3, 0.08, "dark"),
    ]
    parts.append(Part(ellipse(-0.05, 0.22, 0.72, 0.33), "base", 210))
    if rng.random() < 0.5:
        parts += [
            Part(limb([(x, -0.06), (x - 0.05, 0.24)], [0.02, 0.035]), "dark", 210)
            for x in (-0.5, -0.28, -0.06, 0.16)
        ]
    parts += _legs(rng, (-0.42, 0.5), 0.3, 0.09, "base")
    x, y = 0.7, -0.24 + nod
    parts += [
        Part(polygon((x - 0.27, y - 0.08), (x - 0.2, y - 0.47), (x + 0.02, y - 0.22)), "base", 180),
        Part(polygon((x + 0.02, y - 0.22), (x + 0.2, y - 0.47), (x + 0.27, y - 0.06)), "dark", 180),
        Part(ellipse(x, y, 0.31, 0.28), "base", 235),
        Part(ellipse(x + 0.12, y + 0.1, 0.15, 0.1), "light", 245),
        Part(ellipse(x + 0.17, y + 0.05, 0.04, 0.03), "black", 245),
        Part(ellipse(x - 0.04, y - 0.05, 0.045, 0.05), "black", 235),
        Part(ellipse(x + 0.19, y - 0.06, 0.035, 0.05), "black", 235),
    ]
    return parts


def fox(rng: Generator) -> list[Part]:
    """Pointed snout, large ears, dark stockings, a bushy tail with a pale tip."""
    drop, nod = rng.uniform(-0.3, 0.35), rng.uniform(-0.12, 0.1)
    tail = [(-0.5, 0.12), (-0.85, 0.15 + drop / 2), (-1.12, 0.15 + drop), (-1.38, 0.05 + drop)]
    parts = [Part(limb(tail, [0.09, 0.19, 0.2, 0.03]), "base", 170)]
    parts.append(Part(limb([(-1.16, 0.13 + drop), (-1.4, 0.04 + drop)], [0.17, 0.02]), "light", 170))
    parts += _legs(rng, (-0.46, 0.4), 0.3, 0.065, "dark")
    parts.append(Part(ellipse(-0.05, 0.2, 0.68, 0.28), "base", 210))
    parts.append(Part(ellipse(0.45, 0.22, 0.16, 0.2), "light", 210))
    parts += _legs(rng, (-0.38, 0.48), 0.3, 0.075, "base")
    parts += [Part(limb([(x, 0.72), (x, 1.0)], [0.07, 0.07]), "dark", 120) for x in (-0.4, 0.48)]
    x, y = 0.62, -0.2 + nod
    parts += [
        Part(polygon((x - 0.26, y - 0.08), (x - 0.22, y - 0.66), (x + 0.0, y - 0.2)), "base", 180),
        Part(polygon((x - 0.02, y - 0.2), (x + 0.12, y - 0.68), (x + 0.22, y - 0.12)), "dark", 180),
        Part(ellipse(x, y, 0.26, 0.24), "base", 230),
        Part(
            polygon((x + 0.05, y - 0.2), (x + 0.56, y + 0.1), (x + 0.52, y + 0.18), (x, y + 0.22)),
            "base",
            230,
        ),
        Part(
            polygon((x + 0.1, y + 0.12), (x + 0.54, y + 0.13), (x + 0.5, y + 0.19), (x, y + 0.24)),
            "light",
            230,
        ),
        Part(ellipse(x + 0.55, y + 0.11, 0.05, 0.045), "black", 230),
        Part(ellipse(x + 0.08, y - 0.05, 0.04, 0.045), "black", 230),
    ]
    return parts


def duck(rng: Generator) -> list[Part]:
    """A flat broad bill, a long low body, short webbed feet or none to be seen."""
    nod = rng.uniform(-0.12, 0.12)
    body = [
        (-1.0, 0.0),
        (-0.6, 0.08),
        (-0.1, -0.06),
        (0.4, 0.02),
        (0.62, 0.32),
        (0.42, 0.66),
        (-0.1, 0.8),
        (-0.65, 0.55),
    ]
    parts = []
    if rng.random() < 0.6:
        for x in (-0.12, 0.14):
            parts.append(Part(limb([(x, 0.7), (x, 0.95)], [0.04, 0.04]), "bill", 100))
            parts.append(
                Part(polygon((x - 0.06, 1.0), (x, 0.9), (x + 0.2, 0.97), (x + 0.18, 1.02)), "bill", 100)
            )
    head = "dark" if rng.random() < 0.4 else "base"
    x, y = 0.6, -0.52 + nod
    parts += [
        Part(smooth(np.array(body)), "base", 210),
        Part(limb([(0.42, 0.25), (0.52, -0.15), (x - 0.02, y)], [0.24, 0.15, 0.14]), head, 190),
        Part(ellipse(-0.12, 0.32, 0.5, 0.22, 0.1), "dark", 235),
        Part(ellipse(-0.2, 0.26, 0.38, 0.12, 0.1), "base", 235),
        Part(
            smooth(
                polygon((x + 0.12, y - 0.07), (x + 0.5, y + 0.02), (x + 0.52, y + 0.11), (x + 0.12, y + 0.12))
            ),
            "bill",
            180,
        ),
        Part(ellipse(x, y, 0.23, 0.2), head, 235),
        Part(ellipse(x + 0.07, y - 0.05, 0.04, 0.04), "black", 235),
    ]
    return parts


def hen(rng: Generator) -> list[Part]:
    """A comb and wattle, a short pointed beak, a fanned tail held up, thin legs with toes."""
    nod = rng.uniform(-0.12, 0.12)
    body = [
        (-0.75, -0.3),
        (-0.45, 0.02),
        (0.0, 0.06),
        (0.36, -0.08),
        (0.55, 0.22),
        (0.35, 0.56),
        (-0.1, 0.66),
        (-0.52, 0.42),
    ]
    parts = [
        Part(limb([(-0.4, 0.25), (-0.75, -0.15), (tx, ty)], [0.16, 0.14, 0.05]), tone, 150)
        for tx, ty, tone in ((-1.02, -0.3, "dark"), (-0.95, -0.52, "base"), (-0.76, -0.66, "dark"))
    ]
    for x in (-0.1, 0.12):
        foot = x + rng.uniform(-0.08, 0.08)
        parts.append(Part(limb([(x, 0.55), (foot, 0.97)], [0.045, 0.035]), "bill", 100))
        parts.append(
            Part(polygon((foot - 0.14, 1.02), (foot, 0.92), (foot + 0.18, 1.02), (foot, 0.98)), "bill", 100)
        )
    x, y = 0.52, -0.44 + nod
    parts += [
        Part(smooth(np.array(body)), "base", 210),
        Part(limb([(0.3, 0.2), (0.46, -0.15), (x, y)], [0.3, 0.2, 0.14]), "base", 190),
        Part(ellipse(-0.1, 0.26, 0.4, 0.2, 0.25), "dark", 235),
        Part(ellipse(-0.14, 0.2, 0.3, 0.11, 0.25), "base", 235),
        Part(polygon((x + 0.12, y - 0.08), (x + 0.4, y + 0.04), (x + 0.1, y + 0.1)), "bill", 180),
        Part(ellipse(x + 0.14, y + 0.2, 0.06, 0.12), "comb", 180),
        *(Part(ellipse(x + d, y - 0.22, 0.07, 0.1), "comb", 180) for d in (-0.12, -0.01, 0.1)),
        Part(ellipse(x, y, 0.2, 0.19), "base", 235),
        Part(ellipse(x + 0.07, y - 0.04, 0.035, 0.035), "black", 235),
    ]
    return parts


def _wheels(xs: tuple[float, ...], y: float, radius: float) -> list[Part]:
    discs = [Part(ellipse(x, y, radius, radius), "black", 130) for x in xs]
    return discs + [Part(ellipse(x, y, radius * 0.5, radius * 0.5), "metal", 160) for x in xs]


def car(rng: Generator) -> list[Part]:
    """A low body with a glass cabin in its middle."""
    back, front = rng.uniform(-0.75, -0.5), rng.uniform(0.35, 0.55)
    roof, top = rng.uniform(-0.12, 0.05), rng.uniform(-0.52, -0.38)
    middle = (back + front) / 2 - 0.05
    body = [
        (-1.0, 0.5),
        (-0.98, 0.08),
        (back, -0.03),
        (front, -0.03),
        (0.9, 0.12),
        (1.0, 0.3),
        (0.99, 0.62),
        (-0.98, 0.64),
    ]
    parts = [
        Part(
            polygon((back - 0.08, 0.02), (back + 0.22, top), (front - 0.3 + roof, top), (front + 0.05, 0.02)),
            "base",
            190,
        ),
        Part(
            polygon((back + 0.05, 0.0), (back + 0.26, top + 0.08), (middle, top + 0.08), (middle, 0.0)),
            "glass",
            190,
        ),
        Part(
            polygon(
                (middle + 0.06, 0.0),
                (middle + 0.06, top + 0.08),
                (front - 0.33 + roof, top + 0.08),
                (front - 0.06, 0.0),
            ),
            "glass",
            190,
        ),
        Part(polygon(*body), "base", 215),
        Part(polygon((-0.98, 0.34), (0.99, 0.34), (0.99, 0.38), (-0.98, 0.38)), "dark", 215),
        Part(
            polygon(
                (middle + 0.02, 0.02), (middle + 0.05, 0.02), (middle + 0.05, 0.55), (middle + 0.02, 0.55)
            ),
            "dark",
            215,
        ),
        Part(ellipse(0.93, 0.27, 0.06, 0.06), "lamp", 230),
        Part(polygon((-1.0, 0.2), (-0.92, 0.18), (-0.92, 0.32), (-1.0, 0.33)), "comb", 230),
    ]
    return parts + _wheels((-0.58, 0.6), 0.66, rng.uniform(0.2, 0.24))


def truck(rng: Generator) -> list[Part]:
    """A tall box behind a short cab."""
    split, top, cab = rng.uniform(0.2, 0.36), rng.uniform(-0.72, -0.5), rng.uniform(-0.36, -0.2)
    box = "light" if rng.random() < 0.35 else "base"
    parts = [
        Part(polygon((-1.0, 0.5), (0.98, 0.5), (0.98, 0.66), (-1.0, 0.66)), "black", 120),
        Part(polygon((-1.02, top), (split, top), (split, 0.54), (-1.02, 0.54)), box, 215),
        *(
            Part(polygon((x, top), (x + 0.025, top), (x + 0.025, 0.54), (x, 0.54)), "dark", 215)
            for x in np.linspace(-0.8, split - 0.2, 4)
        ),
        Part(
            polygon(
                (split + 0.06, cab), (0.74, cab), (0.93, 0.12), (1.0, 0.2), (1.0, 0.6), (split + 0.06, 0.6)
            ),
            "base",
            215,
        ),
        Part(
            polygon((split + 0.2, cab + 0.08), (0.7, cab + 0.08), (0.86, 0.12), (split + 0.2, 0.12)),
            "glass",
            200,
        ),
        Part(ellipse(0.95, 0.36, 0.05, 0.06), "lamp", 230),
    ]
    return parts + _wheels((-0.72, -0.3, 0.66), 0.68, rng.uniform(0.18, 0.22))


def _dome(width: float, height: float, y: float, edge: np.ndarray) -> Points:
    t = np.linspace(np.pi, 2 * np.pi, 18)
    arch = np.stack([np.cos(t) * width, y + np.sin(t) * height], 1)
    return np.concatenate([arch, edge[::-1]])


def mushroom(rng: Generator) -> list[Part]:
    """A spotted cap over gills, on a thick pale stem."""
    width, height, lean = rng.uniform(0.7, 0.95), rng.uniform(0.65, 0.95), rng.uniform(-0.12, 0.12)
    thick = rng.uniform(0.15, 0.24)
    x = np.linspace(-width, width, 12)
    edge = np.stack([x, 0.05 + 0.1 * (1 - (x / width) ** 2)], 1)
    parts = [
        Part(limb([(lean, 1.0), (lean / 2, 0.5), (0, 0.0)], [thick * 1.3, thick, thick * 0.9]), "light", 200),
        Part(ellipse(0, 0.08, width * 0.92, 0.14), "cream", 120),
        Part(_dome(width, height, 0.05, edge), "base", 220),
    ]
    spots = int(rng.integers(3, 8)) if rng.random() < 0.7 else 0
    for _ in range(spots):
        angle, far = rng.uniform(1.1 * np.pi, 1.9 * np.pi), rng.uniform(0.25, 0.8)
        size = rng.uniform(0.05, 0.11)
        spot = ellipse(np.cos(angle) * far * width, 0.02 + np.sin(angle) * far * height, size * 1.2, size)
        parts.append(Part(spot, "cream", 235))
    return parts


def umbrella(rng: Generator) -> list[Part]:
    """A ribbed canopy with a scalloped edge, on a thin pole that ends in a hook."""
    width, height = rng.uniform(0.85, 1.05), rng.uniform(0.6, 0.85)
    x = np.linspace(-width, width, 25)
    scallops = 0.05 - 0.1 * np.abs(np.sin((x / width + 1) * 2.5 * np.pi))
    hook = [(0.0, 0.82), (0.04, 0.97), (0.17, 1.0), (0.24, 0.86)]
    pole = "black" if rng.random() < 0.5 else "metal"
    parts = [
        Part(limb([(0, -height - 0.06), (0, 0.82)], [0.03, 0.04]), pole, 120),
        Part(limb(hook, [0.045, 0.05, 0.05, 0.045]), pole, 120),
        Part(_dome(width, height, 0.05, np.stack([x, scallops], 1)), "base", 220),
    ]
    panel = "light" if rng.random() < 0.3 else "dark"
    t = np.linspace(0, 1, 7)[:, None]
    for left in (-0.6, 0.2):
        lines = [
            np.array([[0, 0.05 - height]]) * (1 - t) + np.array([[edge * width, 0.03]]) * t
            for edge in (left, left + 0.4)
        ]
        bulge = np.concatenate([-0.28 * height * np.sin(np.pi * t)] * 2)
        outline = np.concatenate([lines[0], lines[1][::-1]])
        outline[:, 1:] += bulge
        parts.append(Part(outline, panel, 210))
    return parts


SHAPES: dict[str, Callable[[Generator], list[Part]]] = {
    "cat": cat,
    "fox": fox,
    "duck": duck,
    "hen": hen,
    "car": car,
    "truck": truck,
    "mushroom": mushroom,
    "umbrella": umbrella,
}
"""Outline of each object by its class name, look-alikes beside each other."""
