"""Line plots as SVG, which every browser and code host shows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from bench.figures import Point

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 170, 40, 50
_COLOURS = ("#0b6e4f", "#c8553d", "#3d5a80", "#8d6a9f")
_TICKS = 5
_STYLE = "font-family:sans-serif;font-size:12px"


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows."""

    label: str
    logarithmic: bool = False

    def place(self, value: float, low: float, high: float) -> float:
        """Return where a value lies between low (0) and high (1)."""
        if self.logarithmic:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return (value - low) / (high - low)

    def ticks(self, low: float, high: float) -> list[float]:
        """Return round values from low to high."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            candidates = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        else:
            rough = (high - low) / _TICKS
            power = 10.0 ** math.floor(math.log10(rough))
            step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
            candidates = [step * number for number in range(math.floor(low / step), math.ceil(high / step) + 1)]
        return [tick for tick in candidates if low <= tick <= high]


_NO_MARKS: Mapping[str, float] = {}


def plot(
    title: str,
    across: Axis,
    up: Axis,
    curves: Mapping[str, Sequence[Point]],
    marks: Mapping[str, float] = _NO_MARKS,
) -> str:
    """Draw curves by name, and marks across the plot; an axis that is not logarithmic begins at 0, or below."""
    points = [point for curve in curves.values() for point in curve]
    x_low = min(point.x for point in points) if across.logarithmic else min(0.0, *(point.x for point in points))
    y_low = min(point.y for point in points) if up.logarithmic else 0.0
    x_high, y_high = max(point.x for point in points), max(point.y for point in points)

    def x(value: float) -> float:
        return _LEFT + across.place(value, x_low, x_high) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - up.place(value, y_low, y_high) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" style="{_STYLE}">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="24" style="font-size:15px">{escape(title)}</text>',
        f'<text x="{_LEFT}" y="{_HEIGHT - 12}">{escape(across.label)}</text>',
        f'<text transform="translate(16,{_HEIGHT - _BOTTOM}) rotate(-90)">{escape(up.label)}</text>',
    ]
    for tick in across.ticks(x_low, x_high):
        parts.append(f'<path d="M{x(tick):.1f},{_TOP}V{_HEIGHT - _BOTTOM}" stroke="#ddd"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    for tick in up.ticks(y_low, y_high):
        parts.append(f'<path d="M{_LEFT},{y(tick):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for number, (name, value) in enumerate(marks.items()):
        parts.append(f'<path d="M{x(value):.1f},{_TOP}V{_HEIGHT - _BOTTOM}" stroke="#333" stroke-dasharray="4"/>')
        parts.append(f'<text x="{x(value) + 4:.1f}" y="{_TOP + 14 * (number + 1)}">{escape(name)}</text>')
    for number, (name, curve) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        line = " ".join(f"{x(point.x):.1f},{y(point.y):.1f}" for point in curve)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<text x="{_WIDTH - _RIGHT + 8}" y="{_TOP + 16 * (number + 1)}" fill="{colour}">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])
