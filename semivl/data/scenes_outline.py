"""Polygons of which the objects in the demo's scenes are made: ellipses, strokes and smooth curves."""

from typing import NamedTuple

import numpy as np

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
