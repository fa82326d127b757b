"""A sample renders drive: the layer files of the style `if-dr1001`, as its studio would send them.

Each layer is drawn once in greys and tinted with every colour.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyvips

from devstack.dress import DRAWINGS
from devstack.dress.sheet import Sheet
from devstack.dress.skirts import draw_pleated
from devstack.samples import client

if TYPE_CHECKING:
    Draw = Callable[[Sheet], None]

STYLE = "if-dr1001"
BUCKET = "imageflows-renders"
DRIVE_SCALE = 0.5
"""Of the embedded drive: 400 × 600 pixels are drawn in ten seconds."""

CURRENT, ARCHIVE = "current", "archive"
"""The two search directories of the style: the first that has a code wins."""

COLOURS = {
    "ivory": "#f1e9dc", "champagne": "#e3c9a4", "blush": "#eec4be", "dusty rose": "#c98088",
    "coral": "#e8796a", "poppy": "#c8323a", "burgundy": "#6e1a30", "plum": "#5b2a55",
    "lavender": "#b3a3d3", "periwinkle": "#7f8fd0", "navy": "#22305e", "sky": "#9cc3e0",
    "teal": "#1f7f86", "emerald": "#14694f", "sage": "#a3b899", "marigold": "#e5a93c",
    "slate": "#6e7680", "black": "#24242a",
}  # fmt: skip
"""Name and value of each colour; its number is its place: ivory is 0000."""

SHELVES = {
    "base": f"{CURRENT}/base",
    "t1": f"{CURRENT}/necklines/t1",
    "t2": f"{CURRENT}/necklines/t2",
    "t3": f"{CURRENT}/necklines/T3 from the second studio",
    "t10": f"{CURRENT}/necklines/t10",
    "t20": f"{CURRENT}/sleeves",
    "b2": f"{CURRENT}/skirts/b2",
    "b3": f"{CURRENT}/skirts/b3",
    "b4": f"{CURRENT}/skirts/b4",
    "a1": f"{CURRENT}/train",
    "a3": f"{ARCHIVE}/2017/bow",
}
"""Folder of each code's files. The bow is in the archive only."""

SUPERSEDED = "b2_mini_bottom_front"
"""An older drawing of this layer is still in the archive, and must lose."""
SUPERSEDED_FOLDER = f"{ARCHIVE}/2016/skirts"

GREY_STEP, ALPHA_STEP = 3, 5
"""Grey and alpha are rounded to multiples: nobody sees it, and the files are half as large."""


def seed_renders(endpoint: str, drive: Path) -> None:
    """Make the bucket, and fill the drive with small layers where it has none yet."""
    client(endpoint).create_bucket(Bucket=BUCKET)
    if not (drive / CURRENT).is_dir():
        draw_renders(drive, scale=DRIVE_SCALE)


def draw_renders(folder: Path, *, scale: float = 1, colours: Iterable[int] | None = None) -> int:
    """Write the layer files below `folder`, and return how many; the same bytes each time.

    At scale 1 they are 800 × 1200 pixels. `colours` are the numbers to draw (default: all).
    """
    numbers = range(len(COLOURS)) if colours is None else tuple(colours)
    values = list(COLOURS.values())
    tints = {number: tint(values[number]) for number in numbers}

    def write(stem: str, draw: Draw) -> int:
        cloth, trim = render(draw, scale)
        (folder / stem).parent.mkdir(parents=True, exist_ok=True)
        for number, table in tints.items():
            coloured(cloth, trim, table).pngsave(
                str(folder / f"{stem}_{number:04}.png"), compression=9, filter="none", keep="none"
            )
        return len(tints)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sum(pool.map(write, *zip(*drawings(), strict=True)))


def drawings() -> Iterator[tuple[str, Draw]]:
    """Path of each layer file below the drive, without colour, and what draws it.

    The second studio writes its names in capitals.
    """
    for name, draw in DRAWINGS.items():
        code = name.partition("_")[0]
        yield f"{SHELVES[code]}/{name.upper() if code == 't3' else name}", draw
    older = partial(draw_pleated, length="mini", side="front", pleats=9)
    yield f"{SUPERSEDED_FOLDER}/{SUPERSEDED}", older


def render(draw: Draw, scale: float = 1) -> tuple[pyvips.Image, pyvips.Image | None]:
    """The cloth as grey and alpha, and the trim as it is."""
    sheet = Sheet()
    draw(sheet)
    drawn = pyvips.Image.svgload_buffer(sheet.svg(sheet.cloth, scale))
    steps = [GREY_STEP, ALPHA_STEP]
    cloth = ((drawn[0].bandjoin(drawn[3]) / steps).rint() * steps).cast("uchar").copy_memory()
    if not sheet.trim:
        return cloth, None
    return cloth, pyvips.Image.svgload_buffer(sheet.svg(sheet.trim, scale)).copy_memory()


def coloured(cloth: pyvips.Image, trim: pyvips.Image | None, table: pyvips.Image) -> pyvips.Image:
    """One layer in one colour, sRGB with alpha."""
    image = cloth[0].maplut(table).copy(interpretation="srgb").bandjoin(cloth[1])
    return image if trim is None else image.composite2(trim, "over").cast("uchar")


def tint(value: str) -> pyvips.Image:
    """The table from grey to a colour, given as #rrggbb.

    Shadows are deeper in dark cloth, and more saturated than the colour itself.
    """
    red, green, blue = (int(value[at : at + 2], 16) / 255 for at in (1, 3, 5))
    floor = 0.1 + 0.28 * (0.3 * red + 0.6 * green + 0.1 * blue) ** 2
    rows = []
    for level in range(256):
        lit = floor + (1 - floor) * min(level / 127.5, 1)
        sheen = 0.62 * max(level / 127.5 - 1, 0)
        shaded = [band ** (1 + 0.45 * (1 - lit)) * lit for band in (red, green, blue)]
        rows.append([round(255 * (band + (1 - band) * sheen)) for band in shaded])
    bands = [pyvips.Image.new_from_array([list(band)]) for band in zip(*rows, strict=True)]
    return bands[0].bandjoin(bands[1:]).cast("uchar")
