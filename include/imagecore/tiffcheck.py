"""Check a pyramid with a reader that shares no code with the one that wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from imagecore.layout import TIFF_FAULTS, Expected, VerificationFailed, expected_levels
from imagecore.tilemeans import LevelMeans, Means, cell_sides

if TYPE_CHECKING:
    Pixels = NDArray[np.unsignedinteger]

COMPRESSIONS = {"deflate": 8, "jpeg": 7, "lzw": 5, "webp": 50001, "none": 1}
_PROFILE_TAG = 34675
# ITU-R BT.601, as JPEG defines it: linear, so it may be applied to means.
_RGB_TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)


def check_tiff(path: Path, expected: Expected) -> Means:
    """Check structure, decode every tile, and compare each level with the next.

    Returns the mean of each tile of the full-size level, rows × columns × bands, in the stored
    colour space.

    Raises:
        VerificationFailed: with the first thing found wrong.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = _check_structure(tiff, path.stat().st_size, expected)
            above: LevelMeans | None = None
            first = np.empty(0)
            for number, page in enumerate(pages):
                level = _decode_level(page, expected)
                if above is None:
                    first = level.mean_whole()
                else:
                    _compare_levels(above, level, number, expected)
                above = level
    except VerificationFailed:
        raise
    except TIFF_FAULTS as fault:
        raise VerificationFailed(f"the result cannot be read back: {fault}") from fault
    return first


def to_stored(reference: Means, expected: Expected) -> Means:
    """Means of RGB pixels as means of what is stored (YCbCr in a colour JPEG)."""
    if expected.photometric != 6:
        return reference
    return reference @ _RGB_TO_YCC.T + np.array([0.0, 128.0, 128.0])


def compare_with_source(found: Means, reference: Means, expected: Expected) -> None:
    """Compare each tile's mean with what the source says it should be.

    Raises:
        VerificationFailed: a tile differs by more than the compression can explain.
    """
    if found.shape != reference.shape:
        raise VerificationFailed(f"{found.shape} tiles where {reference.shape} belong")
    sides = cell_sides(expected.width, expected.height, expected.tile)
    allowed = 0.01 if expected.lossless else _jpeg_tolerance(sides, expected)
    _refuse_difference(found, to_stored(reference, expected), allowed, "level 0 and the source")


def _check_structure(
    tiff: tifffile.TiffFile, size: int, expected: Expected
) -> list[tifffile.TiffPage]:
    if tiff.is_bigtiff != expected.bigtiff:
        raise VerificationFailed("classic TIFF and BigTIFF are confused")
    pages = [each.aspage() for each in tiff.pages]
    sizes = expected_levels(expected.width, expected.height, expected.tile)
    found = [(page.imagewidth, page.imagelength) for page in pages]
    if found != sizes:
        raise VerificationFailed(f"levels are {found}, should be {sizes}")
    for number, page in enumerate(pages):
        _check_page(page, number, expected)
    _check_table(pages, size, 16 if expected.bigtiff else 8)
    return pages


def _check_page(page: tifffile.TiffPage, number: int, expected: Expected) -> None:
    profile = page.tags.valueof(_PROFILE_TAG)
    facts: list[tuple[str, Any, Any]] = [
        ("tile width", page.tilewidth, expected.tile),
        ("tile height", page.tilelength, expected.tile),
        ("compression", int(page.compression), COMPRESSIONS[expected.compression]),
        ("photometric", int(page.photometric), expected.photometric),
        ("bands", page.samplesperpixel, expected.bands),
        ("bits", page.bitspersample, expected.bits),
        ("planes", int(page.planarconfig), 1),
        ("orientation", int(page.tags.valueof(274, 1)), 1),
        ("resolution", _dpi(page), expected.dpi),
    ]
    if number == 0:
        facts.append(("ICC profile", profile, expected.profile))
    for name, found, wanted in facts:
        if found != wanted:
            short = "differs" if name == "ICC profile" else f"is {found}, should be {wanted}"
            raise VerificationFailed(f"level {number}: {name} {short}")


def _dpi(page: tifffile.TiffPage) -> int:
    over, under = page.tags.valueof(282, (0, 1))
    return round(over / under) if under else 0


def _check_table(pages: list[tifffile.TiffPage], size: int, header: int) -> None:
    """Every tile lies inside the file, behind its header, and no two share a byte."""
    ranges: list[tuple[int, int]] = []
    for number, page in enumerate(pages):
        tiles = -(-page.imagewidth // page.tilewidth) * -(-page.imagelength // page.tilelength)
        if not len(page.dataoffsets) == len(page.databytecounts) == tiles:
            raise VerificationFailed(f"level {number}: not {tiles} tiles in the table")
        ranges += zip(page.dataoffsets, page.databytecounts, strict=True)
    end = header
    for offset, count in sorted(ranges):
        if count < 1 or offset < end or offset + count > size:
            raise VerificationFailed(f"tile at {offset} ({count} bytes) is out of place")
        end = offset + count


def _decode_level(page: tifffile.TiffPage, expected: Expected) -> LevelMeans:
    tile = expected.tile
    width, height = page.imagewidth, page.imagelength
    level = LevelMeans.empty(width, height, tile, expected.bands, alpha=expected.alpha)
    for index, pixels in enumerate(_tiles(page, expected)):
        row, column = divmod(index, level.whole.shape[1])
        high = min(tile, height - row * tile)
        wide = min(tile, width - column * tile)
        if pixels.shape[0] < high or pixels.shape[1] < wide:
            raise VerificationFailed(f"tile {index} is {pixels.shape}, too small")
        level.add(row, column, pixels[:high, :wide])
    return level


def _tiles(page: tifffile.TiffPage, expected: Expected) -> Iterator[Pixels]:
    """Decoded tiles in order; JPEG stays YCbCr, where rounding cannot clip a colour."""
    import imagecodecs

    file = page.parent.filehandle
    shape = (expected.tile, expected.tile, expected.bands)
    colours = {2: "RGB", 5: "CMYK", 6: "YCBCR"}.get(expected.photometric)
    for index, (offset, count) in enumerate(
        zip(page.dataoffsets, page.databytecounts, strict=True)
    ):
        file.seek(offset)
        data = file.read(count)
        if expected.lossless:
            decoded = page.decode(data, index, _fullsize=True)[0]
            if decoded is None:
                raise VerificationFailed(f"tile {index} is empty")
            yield decoded[0]
            continue
        tile = imagecodecs.jpeg8_decode(
            data, tables=page.jpegtables, colorspace=colours, outcolorspace=colours
        )
        yield tile.reshape(shape)


def _compare_levels(above: LevelMeans, below: LevelMeans, number: int, expected: Expected) -> None:
    shape = above.even.shape[:2]
    sides = cell_sides(below.width, below.height, below.tile // 2, shape)
    there = (sides[0] * sides[1])[..., 0] > 0
    if expected.lossless:
        # Each sample of a level is rounded to the nearest; with alpha, both it and the colour.
        allowed = np.full((*shape, 1), 1.5001 if expected.alpha else 0.5001)
    else:
        allowed = _jpeg_tolerance(sides, expected)
    found, wanted = below.mean_quarters((shape[0], shape[1])), above.mean_even()
    what = f"level {number - 1} and level {number}"
    _refuse_difference(found[there], wanted[there], allowed[there], what)


def _jpeg_tolerance(sides: tuple[Means, Means], expected: Expected) -> Means:
    """How far JPEG may move the mean of cells of these heights and widths.

    A flat colour moves by half a quantiser step. Beyond the picture a tile is black, and the
    last row and column share their colour with it, which matters in narrow cells.
    """
    down, across = (np.maximum(side, 1) for side in sides)
    step = 1 + (100 - expected.quality) / 10
    return step + 80 / down + 80 / across


def _refuse_difference(found: Means, wanted: Means, allowed: Any, what: str) -> None:
    difference: Means = np.abs(found - wanted) - allowed
    if difference.size and difference.max() > 0:
        at = np.unravel_index(int(difference.argmax()), difference.shape)
        raise VerificationFailed(
            f"{what} differ: mean {found[at]:.2f} where {wanted[at]:.2f} belongs"
        )
