"""Outlines of car and truck, mushroom and umbrella. The box and the look-alike pairs: see scenes_shapes."""

import numpy as np
from numpy.random import Generator

from semivl.data.scenes_outline import Part, Points, ellipse, limb, polygon


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
            polygon((middle + 0.02, 0.02), (middle + 0.05, 0.02), (middle + 0.05, 0.55), (middle + 0.02, 0.55)),
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
            polygon((split + 0.06, cab), (0.74, cab), (0.93, 0.12), (1.0, 0.2), (1.0, 0.6), (split + 0.06, 0.6)),
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
