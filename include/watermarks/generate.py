"""Draw the watermarks again: `python include/watermarks/generate.py`.

`<width>.png` is for pictures of that width and 40 % as wide. The letters are strokes drawn here,
so no font of a machine has a part in them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyvips

FOLDER = Path(__file__).resolve().parent
TABLE = FOLDER.with_name("photo_ladder.json")
SHARE = 0.4

# Width and strokes of each letter on a field 10 units high.
LETTERS = {
    "A": (8, "M0 10 L4 0 L8 10 M1.5 6.6 L6.5 6.6"),
    "E": (5.5, "M5.5 0 L0 0 L0 10 L5.5 10 M0 5 L4.8 5"),
    "F": (5.5, "M5.5 0 L0 0 L0 10 M0 5 L4.8 5"),
    "G": (8, "M7.6 2.2 A5 5 0 1 0 8 6 L8 5.4 L5 5.4"),
    "I": (0, "M0 0 L0 10"),
    "L": (5, "M0 0 L0 10 L5 10"),
    "M": (8, "M0 10 L0 0 L4 6.5 L8 0 L8 10"),
    "O": (9, "M4.5 0 A4.5 5 0 1 0 4.5 10 A4.5 5 0 1 0 4.5 0"),
    "P": (6, "M0 10 L0 0 L3.2 0 A2.8 2.8 0 0 1 3.2 5.6 L0 5.6"),
    "S": (6, "M5.7 1.6 A2.9 2.4 0 0 0 3 0 A2.6 2.45 0 0 0 3 4.9 A2.75 2.55 0 0 1 3 10"
             " A3 2.5 0 0 1 0.1 8.2"),
    "W": (11, "M0 0 L2.75 10 L5.5 1.5 L8.25 10 L11 0"),
}  # fmt: skip
SPACE = 3.2
BORDER = 2.6
GAP = 4.5
SMALL = 0.42


def word(text: str, space: float) -> tuple[float, str]:
    """Width in units and SVG groups of a word."""
    at, groups = 0.0, []
    for letter in text:
        wide, strokes = LETTERS[letter]
        groups.append(f'<path transform="translate({at:g} 0)" d="{strokes}"/>')
        at += wide + space
    return at - space, "".join(groups)


def drawing(width: int, stroke: float) -> pyvips.Image:
    """Strokes of the whole mark on a transparent field `width` pixels wide, as coverage 0–255."""
    import pyvips

    large, name = word("IMAGEFLOWS", SPACE)
    small, below = word("SAMPLE", 2.4 * SPACE)
    whole = large + 2 * BORDER
    high = 10 + GAP + 10 * SMALL + 2 * BORDER
    left = BORDER + (large - small * SMALL) / 2
    down = BORDER + 10 + GAP
    middle = down + 5 * SMALL
    svg = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole:g} {high:g}"
      width="{width}" height="{round(width * high / whole)}" fill="none" stroke="#fff"
      stroke-width="{stroke:g}" stroke-linecap="round" stroke-linejoin="round">
      <g transform="translate({BORDER} {BORDER})">{name}</g>
      <g transform="translate({left:g} {down:g}) scale({SMALL})" stroke-width="{stroke / SMALL:g}">
      {below}</g>
      <path d="M{BORDER} {middle:g} H{left - 4:g} M{whole - left + 4:g} {middle:g}
      H{whole - BORDER:g}"/></svg>"""
    return pyvips.Image.svgload_buffer(svg.encode())[3]


def mark(width: int) -> pyvips.Image:
    """White letters that let half the picture through, in a soft dark outline."""
    letters = drawing(width, 1.15) / 255
    outline = drawing(width, 2.2).gaussblur(max(width / 250, 0.8)) / 255
    over, under = letters * 0.6, outline * 0.36
    alpha = over + under * (1 - over)
    white = (over / (alpha + 1e-6)) * 255
    bands = white.bandjoin([white, white, alpha * 255])
    # A few levels of alpha look the same and make the file half as large.
    return ((bands / 4).rint() * 4).cast("uchar").copy(interpretation="srgb")


def main() -> None:
    for width in json.loads(TABLE.read_text())["mark_widths"]:
        made = mark(round(width * SHARE))
        made.pngsave(str(FOLDER / f"{width}.png"), compression=9, filter="all", keep="none")


if __name__ == "__main__":
    main()
