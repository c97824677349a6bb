"""Outlines of cat and fox, duck and hen. The box and the look-alike pairs: see scenes_shapes."""

import numpy as np
from numpy.random import Generator

from semivl.data.scenes_outline import Part, ellipse, limb, polygon, smooth


def _legs(rng: Generator, xs: tuple[float, ...], top: float, width: float, tone: str) -> list[Part]:
    stride = rng.uniform(-0.14, 0.14, len(xs))
    return [
        Part(limb([(x, top), (x + d, 1.0)], [width * 1.4, width]), tone, 120) for x, d in zip(xs, stride, strict=True)
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
            Part(limb([(x, -0.06), (x - 0.05, 0.24)], [0.02, 0.035]), "dark", 210) for x in (-0.5, -0.28, -0.06, 0.16)
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
            parts.append(Part(polygon((x - 0.06, 1.0), (x, 0.9), (x + 0.2, 0.97), (x + 0.18, 1.02)), "bill", 100))
    head = "dark" if rng.random() < 0.4 else "base"
    x, y = 0.6, -0.52 + nod
    parts += [
        Part(smooth(np.array(body)), "base", 210),
        Part(limb([(0.42, 0.25), (0.52, -0.15), (x - 0.02, y)], [0.24, 0.15, 0.14]), head, 190),
        Part(ellipse(-0.12, 0.32, 0.5, 0.22, 0.1), "dark", 235),
        Part(ellipse(-0.2, 0.26, 0.38, 0.12, 0.1), "base", 235),
        Part(
            smooth(polygon((x + 0.12, y - 0.07), (x + 0.5, y + 0.02), (x + 0.52, y + 0.11), (x + 0.12, y + 0.12))),
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
        parts.append(Part(polygon((foot - 0.14, 1.02), (foot, 0.92), (foot + 0.18, 1.02), (foot, 0.98)), "bill", 100))
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
