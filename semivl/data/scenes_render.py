"""How a scene of the demo becomes a photograph: textures, ground and sky, objects with light and shadow, a camera.

Pictures are float32 (H, W, 3) arrays in [0, 1] until the camera turns them into bytes. All randomness comes from
the generator passed in; the textures are made once a process from a fixed seed.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from semivl.data.scenes_outline import Part

TILE = 256
SUPERSAMPLING = 2
GROUNDS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], str]] = {
    "grass": ((0.20, 0.33, 0.10), (0.45, 0.56, 0.22), "blades"),
    "water": ((0.10, 0.25, 0.33), (0.42, 0.60, 0.64), "waves"),
    "sand": ((0.62, 0.51, 0.36), (0.86, 0.77, 0.60), "grains"),
    "street": ((0.27, 0.27, 0.28), (0.50, 0.50, 0.50), "grit"),
    "snow": ((0.72, 0.77, 0.84), (0.96, 0.97, 0.99), "drifts"),
    "leaves": ((0.22, 0.13, 0.06), (0.68, 0.42, 0.16), "cells"),
}
"""Dark and light colour of each ground, and its texture."""
_ROUGHNESS = {
    "blades": (1.1, 2.5), "waves": (1.5, 0.25), "grains": (0.7, 0.6), "grit": (0.4, 1.0), "drifts": (1.9, 0.7),
    "fur": (1.0, 0.45), "cloud": (1.8, 1.0), "paint": (2.2, 1.0),
}  # fmt: skip
"""Fall of a texture's spectrum with frequency, and how much it is stretched upwards."""


@dataclass(frozen=True)
class Light:
    """Where the light comes from, how strong its shadows are, and its colour."""

    across: float
    shadow: float
    tint: np.ndarray


def light(rng: Generator) -> Light:
    warmth = rng.normal(0, 0.07)
    tint = np.array([1 + warmth, 1 + rng.normal(0, 0.02), 1 - warmth], np.float32) * rng.uniform(0.82, 1.12)
    return Light(float(rng.uniform(-1, 1)), float(rng.uniform(0.15, 0.55)), tint.astype(np.float32))


@cache
def texture(name: str) -> np.ndarray:
    """(TILE, TILE) float32 noise that tiles seamlessly, mean 0, deviation 1, clipped to [-2.5, 2.5]."""
    rng = np.random.default_rng([7, *name.encode()])
    if name == "cells":
        return _cells(rng)
    fall, upwards = _ROUGHNESS[name]
    fy, fx = np.fft.fftfreq(TILE)[:, None], np.fft.fftfreq(TILE)[None, :]
    radius = np.hypot(fy * upwards, fx / upwards) * TILE
    spectrum = np.fft.fft2(rng.normal(size=(TILE, TILE))) / np.maximum(radius, 1.5) ** fall
    noise = np.fft.ifft2(spectrum * (radius > 0)).real
    return np.clip((noise - noise.mean()) / noise.std(), -2.5, 2.5).astype(np.float32)


def _cells(rng: Generator) -> np.ndarray:
    """Fallen leaves: the plane cut into the neighbourhoods of scattered points, each with a tone of its own."""
    seeds, tones = rng.uniform(0, TILE, (500, 2)), rng.normal(size=500)
    grid = np.stack(np.meshgrid(np.arange(TILE), np.arange(TILE), indexing="ij"), -1).reshape(-1, 1, 2)
    nearest = []
    for block in np.array_split(grid, 16):
        gap = np.abs(block - seeds)
        gap = np.minimum(gap, TILE - gap) * (1.0, 0.7)
        nearest.append((gap**2).sum(-1).argmin(1))
    cells = tones[np.concatenate(nearest)].reshape(TILE, TILE)
    edges = (cells != np.roll(cells, 1, 0)) | (cells != np.roll(cells, 1, 1))
    return np.clip(cells - 1.2 * edges, -2.5, 2.5).astype(np.float32)


def ground(rng: Generator, name: str, size: int, horizon: float) -> np.ndarray:
    """(size, size, 3) float32 picture of a ground in perspective, with sky above `horizon` (pixels from the top)."""
    dark, bright, surface = GROUNDS[name]
    rows, columns = np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32)
    near = np.maximum((rows - horizon) / (size - horizon), 0.02)
    detail = 128 / size / near
    v = (rng.uniform(0, TILE) + 100 / near).astype(int) % TILE
    u = ((columns - size / 2)[None] * detail[:, None] + rng.uniform(0, TILE)).astype(int) % TILE
    tone = texture(surface)[v[:, None], u] * np.minimum(1, 1.6 * near)[:, None]
    slow = texture("cloud")[
        (rows.astype(int) * TILE // size // 2)[:, None], (columns.astype(int) * TILE // size // 2)[None]
    ]
    blend = np.clip(0.5 + rng.uniform(0.14, 0.24) * tone + 0.08 * slow, 0, 1)[..., None]
    shift = rng.normal(0, 0.03, 3)
    picture = np.asarray(dark) * (1 - blend) + np.asarray(bright) * blend + shift
    if name == "street":
        picture = _markings(rng, picture, horizon)
    if name == "water":
        picture = picture + 0.3 * np.clip(tone - 1.4, 0, 1)[..., None]
    if horizon > 0:
        picture = _sky(rng, picture, horizon)
    return picture.astype(np.float32)


def _sky(rng: Generator, picture: np.ndarray, horizon: float) -> np.ndarray:
    size = len(picture)
    rows = np.arange(size)[:, None, None]
    zenith = np.array([0.42, 0.60, 0.85]) * (1 - (grey := rng.uniform(0, 0.9))) + 0.72 * grey
    haze = np.clip(rows / max(horizon, 1), 0, 1)
    top, left = rng.integers(0, TILE, 2)
    clouds = np.roll(texture("cloud"), (top, left), (0, 1))[:size, :size] if size <= TILE else _stretched("cloud", size)
    sky = zenith * (1 - haze) + 0.88 * haze + 0.07 * np.clip(clouds, 0, 2)[..., None]
    wave = np.interp(np.arange(size), np.linspace(0, size, 9), rng.uniform(0, 0.1, 9) * size * (rng.random() < 0.7))
    hills = np.array([0.30, 0.38, 0.36]) + rng.normal(0, 0.05, 3)
    distance = rows[..., 0] - (horizon - wave[None])
    sky = np.where((distance > 0)[..., None], hills + 0.04 * clouds[..., None], sky)
    return np.where(rows < horizon, sky, picture)


def _stretched(name: str, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(texture(name)).resize((size, size), Image.Resampling.BICUBIC))


def _markings(rng: Generator, picture: np.ndarray, horizon: float) -> np.ndarray:
    """Dashes of a lane that runs to the vanishing point."""
    size = len(picture)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    near = np.maximum((y - horizon) / (size - horizon), 0.02)
    across = (x - size * rng.uniform(0.3, 0.7)) / near / size - rng.uniform(-0.6, 0.6)
    dash = (np.abs(across) < 0.035) & ((1.5 / near + rng.uniform()) % 1 < 0.6)
    return np.where(dash[..., None], 0.45 * picture + 0.45, picture)


def outline(parts: list[Part], transform: np.ndarray, centre: np.ndarray) -> list[Part]:
    """The parts with their corners in pixels of the supersampled picture."""
    return [p._replace(points=(p.points @ transform + centre) * SUPERSAMPLING) for p in parts]


def paint(parts: list[Part], size: int, colours: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flat colours (size, size, 3), cover (size, size) in [0, 1] and heights (size, size), all float32."""
    large = (size * SUPERSAMPLING, size * SUPERSAMPLING)
    flat = Image.new("RGB", large, _bytes(colours["base"]))
    cover, heights = Image.new("L", large), Image.new("L", large)
    pens = [ImageDraw.Draw(i) for i in (flat, cover, heights)]
    for part in parts:
        corners = part.points.ravel().tolist()
        for pen, fill in zip(pens, (_bytes(colours[part.tone]), 255, part.height), strict=True):
            pen.polygon(corners, fill=fill)
    small = [np.asarray(i.reduce(SUPERSAMPLING), np.float32) / 255 for i in (flat, cover, heights)]
    return small[0], small[1], small[2]


def shaded(
    flat: np.ndarray, cover: np.ndarray, heights: np.ndarray, reach: float, lamp: Light, gloss: float
) -> np.ndarray:
    """Colours under the lamp: slopes of the rounded heights that face it are brighter."""
    fine, broad = blurred(heights, max(reach * 0.05, 0.6)), blurred(cover, max(reach * 0.22, 1.0))
    slope = [
        2.2 * reach**0.5 * a + 4.0 * reach**0.5 * b for a, b in zip(np.gradient(fine), np.gradient(broad), strict=True)
    ]
    facing = slope[0] * 0.30 + slope[1] * 0.30 * lamp.across
    shade = np.clip(0.96 + np.tanh(facing) * (0.3 + 0.4 * lamp.shadow), 0.35, 1.5)
    return flat * shade[..., None] + gloss * np.clip(facing - 0.55, 0, 0.5)[..., None]


def shadow(cover: np.ndarray, foot: float, lamp: Light) -> np.ndarray:
    """(size, size) darkness in [0, 1] that the object throws on the ground behind its foot, `foot` a row."""
    size = len(cover)
    flat, lean = 0.32, lamp.across * 1.1
    image = Image.fromarray((cover * 255).astype(np.uint8))
    data = (1, -lean, lean * foot, 0, 1 / flat, foot - foot / flat)
    thrown = image.transform((size, size), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    return np.asarray(thrown.filter(ImageFilter.GaussianBlur(size * 0.012)), np.float32) / 255


def blurred(picture: np.ndarray, radius: float) -> np.ndarray:
    """(H, W) float32 in [0, 1] blurred, by way of a byte a pixel."""
    image = Image.fromarray((picture * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


def photograph(rng: Generator, picture: np.ndarray, lamp: Light) -> np.ndarray:
    """(H, W, 3) uint8: what a camera makes of the scene, with falling light, tint, blur, contrast and sensor noise."""
    size = len(picture)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    fall = 1 + rng.uniform(-0.15, 0.15) * ramp[:, None] + rng.uniform(-0.15, 0.15) * ramp[None]
    corners = 1 - rng.uniform(0, 0.16) * (ramp[:, None] ** 2 + ramp[None] ** 2)
    lit = np.clip(picture * lamp.tint * (fall * corners)[..., None], 0, 1) ** np.float32(rng.uniform(0.8, 1.2))
    image = Image.fromarray((lit * 255).astype(np.uint8))
    radius = rng.uniform(0, 0.007) * size
    if radius > 0.35:
        image = image.filter(ImageFilter.GaussianBlur(radius))
    noise = rng.standard_normal((size, size, 3), np.float32) * np.float32(rng.uniform(1.0, 6.0))
    return np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8)


def _bytes(colour: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in np.clip(colour * 255, 0, 255))
    return red, green, blue
