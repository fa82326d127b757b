"""SVG text that grows, drawn in greys on a canvas of 800 × 1200.

A grey says how light the cloth is there: 128 is the colour itself, darker is shadow, lighter is
sheen. Clasps, pearls and buttons keep their own colour in every cloth and are drawn apart.
Light falls from the upper left.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

WIDTH, HEIGHT = 800, 1200
VIEW = "-44 -53 888 1332"
"""What is seen of the canvas and around it: the widest train keeps off the edges."""
CENTRE = WIDTH / 2
WAIST = 372.0
HALF_WAIST = 84.0
HEMS = {"mini": 610.0, "knee": 760.0, "maxi": 1080.0}

Point = tuple[float, float]


@dataclass
class Sheet:
    """An SVG drawing that grows: cloth in greys, and the trim in its own colours."""

    cloth: list[str] = field(default_factory=list)
    trim: list[str] = field(default_factory=list)
    ids: int = 0

    def add(self, text: str) -> None:
        self.cloth.append(text)

    def _id(self) -> str:
        self.ids += 1
        return f"i{self.ids}"

    def clip(self, path: str, parts: Iterable[str], blur: float = 0) -> None:
        """Parts drawn inside a path only, their edges softened by `blur` pixels."""
        name = self._id()
        self.add(f'<clipPath id="{name}"><path d="{path}"/></clipPath><g clip-path="url(#{name})">')
        if blur:
            left, top, right, bottom = bounds(path, 3 * blur)
            self.add(
                f'<filter id="{name}f" x="{left:.0f}" y="{top:.0f}" width="{right - left:.0f}"'
                f' height="{bottom - top:.0f}" filterUnits="userSpaceOnUse"'
                f' color-interpolation-filters="sRGB"><feGaussianBlur stdDeviation="{blur:.1f}"/>'
                f'</filter><g filter="url(#{name}f)">'
            )
        self.cloth += parts
        self.add("</g></g>" if blur else "</g>")

    def across(self, left: float, right: float, stops: Iterable[tuple[float, int]]) -> str:
        """A gradient from left to right of (share of the way, grey), as a fill."""
        return self._gradient(f'x1="{left:.1f}" x2="{right:.1f}" y1="0" y2="0"', stops)

    def down(self, top: float, bottom: float, stops: Iterable[tuple[float, int]]) -> str:
        """The same from top to bottom."""
        return self._gradient(f'x1="0" x2="0" y1="{top:.1f}" y2="{bottom:.1f}"', stops)

    def _gradient(self, ends: str, stops: Iterable[tuple[float, int]]) -> str:
        name = self._id()
        colours = "".join(f'<stop offset="{at}" stop-color="{grey(g)}"/>' for at, g in stops)
        self.add(
            f'<linearGradient id="{name}" gradientUnits="userSpaceOnUse" {ends}>{colours}'
            "</linearGradient>"
        )
        return f"url(#{name})"

    def svg(self, parts: list[str], scale: float) -> bytes:
        """The file of some parts, `scale` times as large as the canvas."""
        size = f'width="{round(WIDTH * scale)}" height="{round(HEIGHT * scale)}"'
        start = f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="{VIEW}">'
        return "".join([start, *parts, "</svg>"]).encode()


def grey(level: int) -> str:
    return f"#{level:02x}{level:02x}{level:02x}"


def bounds(path: str, more: float) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of path data of whole x y pairs, `more` pixels wider."""
    numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", path)]
    across, down = numbers[::2], numbers[1::2]
    return min(across) - more, min(down) - more, max(across) + more, max(down) + more


def line(points: Iterable[Point], *, close: bool = False) -> str:
    """Straight lines through points, as path data."""
    return "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points) + ("Z" if close else "")


def fill(path: str, paint: str, opacity: float = 1) -> str:
    return f'<path d="{path}" fill="{paint}" fill-opacity="{opacity}"/>'


def stroke(path: str, level: int, width: float, opacity: float = 1, dashes: str = "none") -> str:
    return (
        f'<path d="{path}" fill="none" stroke="{grey(level)}" stroke-width="{width}"'
        f' stroke-opacity="{opacity}" stroke-linecap="round" stroke-linejoin="round"'
        f' stroke-dasharray="{dashes}"/>'
    )
