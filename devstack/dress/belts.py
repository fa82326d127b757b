"""The sash around the waist, the cord on it, and a bow."""

from __future__ import annotations

from math import cos, pi, sin

from devstack.dress.sheet import CENTRE, HALF_WAIST, WAIST, Sheet, fill, grey, stroke

CORD = WAIST + 9
"""Where the cord is in the middle: clasp, knot and bow are there."""
BELOW = f"M313 {WAIST - 12} L487 {WAIST - 12} L505 {WAIST + 300} L295 {WAIST + 300}Z"
"""Where any skirt is, so that a bow's shadow never falls beside it."""


def band(top: float = -21, bottom: float = 22) -> str:
    """The band around the waist; its edges bend down in the middle, as bodice and skirt do."""
    left, right = CENTRE - HALF_WAIST - 3, CENTRE + HALF_WAIST + 3
    return (
        f"M{left} {WAIST + top} Q{CENTRE} {WAIST + top + 16} {right} {WAIST + top}"
        f" L{right + 3} {WAIST + bottom}"
        f" Q{CENTRE} {WAIST + bottom + 17} {left - 3} {WAIST + bottom}Z"
    )


def _bend(offset: float) -> str:
    """A line along the band, `offset` pixels from the waist at its ends."""
    y = WAIST + offset
    return f"M{CENTRE - 92} {y} Q{CENTRE} {y + 17} {CENTRE + 92} {y}"


def draw_belt(sheet: Sheet) -> None:
    """A sash with three soft pleats."""
    stops = [(0, 60), (0.2, 120), (0.36, 168), (0.55, 122), (0.8, 104), (1, 52)]
    sheet.add(fill(band(), sheet.across(CENTRE - 90, CENTRE + 90, stops)))
    for offset in (-9, 2, 12):
        sheet.clip(band(), [stroke(_bend(offset), 30, 3.4, 0.4)], blur=1.4)
        sheet.clip(band(), [stroke(_bend(offset + 4), 220, 2.2, 0.25)], blur=1)


def draw_cord(sheet: Sheet, *, clasp: bool) -> None:
    """The cord on the sash: with a clasp in front, with a knot at the back."""
    bend = _bend(1)
    sheet.clip(band(), [stroke(bend, 10, 11, 0.5)], blur=2.4)
    sheet.clip(band(), [stroke(bend, 70, 8), stroke(bend, 108, 5.4), stroke(bend, 200, 1.4)])
    if clasp:
        _draw_clasp(sheet)
    else:
        _draw_knot(sheet)


def _draw_knot(sheet: Sheet) -> None:
    x, y = CENTRE, CORD
    knot = (
        f"M{x - 13} {y - 15} Q{x} {y - 20} {x + 13} {y - 15} Q{x + 17} {y} {x + 13} {y + 17}"
        f" Q{x} {y + 22} {x - 13} {y + 17} Q{x - 17} {y} {x - 13} {y - 15}Z"
    )
    stops = [(0, 66), (0.35, 178), (0.6, 126), (1, 52)]
    sheet.add(fill(knot, sheet.across(x - 16, x + 16, stops)))
    for turn in (-6, 1, 7):
        fold = f"M{x + turn} {y - 16} Q{x + turn * 1.5} {y} {x + turn} {y + 17}"
        sheet.clip(knot, [stroke(fold, 25, 2, 0.45)], blur=0.7)


def _draw_clasp(sheet: Sheet) -> None:
    x, y = CENTRE, CORD
    sheet.trim.append(
        '<radialGradient id="gold" cx="0.35" cy="0.25" r="0.9">'
        '<stop offset="0" stop-color="#fff3cf"/><stop offset="0.45" stop-color="#d9b45f"/>'
        '<stop offset="1" stop-color="#7c5a1d"/></radialGradient>'
        '<radialGradient id="pearl" cx="0.35" cy="0.3" r="0.8">'
        '<stop offset="0" stop-color="#ffffff"/><stop offset="0.6" stop-color="#ece7e1"/>'
        '<stop offset="1" stop-color="#a79c93"/></radialGradient>'
        f'<ellipse cx="{x}" cy="{y}" rx="23" ry="16" fill="url(#gold)"/>'
        f'<ellipse cx="{x}" cy="{y}" rx="18.5" ry="11.8" fill="#8a6624"/>'
    )
    pearls = [(x + 14 * cos(k * pi / 5), y + 8.6 * sin(k * pi / 5), 3.1) for k in range(10)]
    for px, py, radius in [*pearls, (x, y, 7)]:
        sheet.trim.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{radius}" fill="url(#pearl)"/>')


def draw_bow(sheet: Sheet, *, tails: float) -> None:
    """The sash tied in a bow at the back, its tails `tails` pixels long.

    The bodice is drawn over it, so the loops hang.
    """
    draw_belt(sheet)
    for sign in (-1, 1):
        tail, loop = _tail(sign, tails), _loop(sign)
        _draw_ribbon(sheet, tail, sign * 76)
        _draw_ribbon(sheet, loop, sign * 116)
        x, y = CENTRE, CORD - 1
        opening = (
            f"M{x + sign * 104} {y + 18} C{x + sign * 112} {y + 42} {x + sign * 92} {y + 54}"
            f" {x + sign * 70} {y + 40} C{x + sign * 84} {y + 36} {x + sign * 96} {y + 26}"
            f" {x + sign * 104} {y + 18}Z"
        )
        sheet.clip(loop, [fill(opening, grey(36), 0.9)], blur=1.6)
        creases = [
            f"M{x + sign * 8} {y + shift} Q{x + sign * 40} {y + shift * 2.4 - 4}"
            f" {x + sign * reach} {y + shift * 3 + 6}"
            for shift, reach in ((-3, 74), (2, 82), (6, 60))
        ]
        sheet.clip(loop, [stroke(crease, 24, 3, 0.42) for crease in creases], blur=1.8)
        bend = f"Q{x + sign * 36} {y + tails * 0.5} {x + sign * 56} {y + tails}"
        sheet.clip(tail, [stroke(f"M{x + sign * 7} {y + 8} {bend}", 24, 4, 0.35)], blur=2)


def _tail(sign: int, long: float) -> str:
    x, y = CENTRE, CORD - 1
    return (
        f"M{x} {y} C{x + sign * 12} {y + 40} {x + sign * 20} {y + long * 0.5}"
        f" {x + sign * 34} {y + long} L{x + sign * 58} {y + long - 20}"
        f" L{x + sign * 76} {y + long - 8} C{x + sign * 58} {y + long * 0.5}"
        f" {x + sign * 34} {y + 34} {x + sign * 8} {y - 4}Z"
    )


def _loop(sign: int) -> str:
    x, y = CENTRE, CORD - 1
    return (
        f"M{x} {y - 4} C{x + sign * 30} {y - 26} {x + sign * 88} {y - 14}"
        f" {x + sign * 106} {y + 16}"
        f" C{x + sign * 120} {y + 46} {x + sign * 92} {y + 64} {x + sign * 62} {y + 46}"
        f" C{x + sign * 40} {y + 34} {x + sign * 20} {y + 16} {x} {y + 10}Z"
    )


def _draw_ribbon(sheet: Sheet, shape: str, reach: float) -> None:
    """A piece of the bow, from the middle to `reach`, and its shadow on the skirt."""
    soft = f'<g transform="translate(4 7)">{fill(shape, grey(10), 0.42)}</g>'
    sheet.clip(BELOW, [soft], blur=5)
    left, right = sorted((CENTRE, CENTRE + reach))
    stops = [(0, 70), (0.3, 168 if reach < 0 else 140), (0.6, 116), (1, 70)]
    sheet.add(fill(shape, sheet.across(left, right, stops)))
    sheet.add(stroke(shape, 30, 1, 0.25))
