"""The plot of benchmarks.label_next as an SVG: means over seeds as lines, their range as a band."""

from pathlib import Path

import numpy as np

Curves = dict[str, list[tuple[int, list[float]]]]
COLOURS = {"random": "#6b7280", "semivl": "#2457d6", "uncertain": "#c8341f", "diverse": "#1d8a4a"}
_WIDE, _HIGH, _LEFT, _TOP, _RIGHT, _BOTTOM = 720, 420, 56, 20, 110, 48


def write_plot(path: Path, curves: Curves) -> None:
    values = [v for curve in curves.values() for _, seeds in curve for v in seeds]
    labels = [n for n, _ in next(iter(curves.values()))]
    low, high = np.floor(min(values) / 2) * 2, np.ceil(max(values) / 2) * 2

    def x(n: float) -> float:
        return _LEFT + (n - labels[0]) / max(labels[-1] - labels[0], 1) * (_WIDE - _LEFT - _RIGHT)

    def y(v: float) -> float:
        return _TOP + (high - v) / (high - low) * (_HIGH - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {_HIGH}"',
        ' font-family="sans-serif" font-size="13">',
        "<title>mIoU against the number of labels, by how they were chosen</title>",
        f'<rect width="{_WIDE}" height="{_HIGH}" fill="#fff"/>',
    ]
    for v in np.arange(low, high + 1, 2):
        parts.append(f'<path d="M{_LEFT} {y(v):.1f}H{_WIDE - _RIGHT}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(v) + 4:.1f}" text-anchor="end" fill="#374151">{v:.0f}</text>')
    parts += [f'<text x="{x(n):.1f}" y="{_HIGH - 26}" text-anchor="middle" fill="#374151">{n}</text>' for n in labels]
    middle = (_LEFT + _WIDE - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HIGH - 8}" text-anchor="middle" fill="#374151">labelled photos</text>')
    turned = f'transform="rotate(-90 14 {_HIGH / 2})" text-anchor="middle" fill="#374151"'
    parts.append(f'<text x="14" y="{_HIGH / 2}" {turned}>mIoU, points</text>')
    ends = _apart({choice: y(float(np.mean(curve[-1][1]))) for choice, curve in curves.items()})
    for choice, curve in curves.items():
        colour = COLOURS[choice]
        band = [(x(n), y(max(v))) for n, v in curve] + [(x(n), y(min(v))) for n, v in reversed(curve)]
        parts.append(f'<polygon points="{_points(band)}" fill="{colour}" opacity=".1"/>')
        line = [(x(n), y(float(np.mean(v)))) for n, v in curve]
        parts.append(f'<polyline points="{_points(line)}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>' for a, b in line]
        parts.append(f'<text x="{line[-1][0] + 10:.1f}" y="{ends[choice] + 4:.1f}" fill="{colour}">{choice}</text>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>", ""]))


def _points(places: list[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in places)


def _apart(heights: dict[str, float], gap: float = 16) -> dict[str, float]:
    """Heights of the names, moved so that none lies on another."""
    found: dict[str, float] = {}
    last = -np.inf
    for name in sorted(heights, key=lambda name: heights[name]):
        last = max(heights[name], last + gap)
        found[name] = last
    return found
