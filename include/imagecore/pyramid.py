"""Make a tiled, multi-resolution TIFF of a picture, and let nothing wrong out."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imagecore.colour import profile_of
from imagecore.digest import sha256_of
from imagecore.errors import DiskFull, ItemFailed, UnreadableImage
from imagecore.layout import Expected, expected_levels, needs_bigtiff
from imagecore.parts import new_part
from imagecore.picture import Plan, inspect, open_stored, pipeline, plan
from imagecore.recipe import Recipe
from imagecore.vipserror import cause, explain

if TYPE_CHECKING:
    import pyvips

    from imagecore.tilemeans import Means

_IN_MEMORY_BYTES = 32 << 20
_QUICK_PIXELS = 4_000_000
_QUICK_TOLERANCE = 4.0


@dataclass(frozen=True)
class PyramidInfo:
    """A verified result. `pages` counts its levels, full size included (serverless-iiif's word);
    sizes are pixels, `tile` is the width and height of a tile."""

    width: int
    height: int
    pages: int
    tile: int
    bytes: int
    sha256: str
    source_width: int
    source_height: int
    source_kind: str
    notes: tuple[str, ...]


def make_pyramid(
    source: Path, target: Path, recipe: Recipe, *, copyright: bool = False
) -> PyramidInfo:
    """Write a tiled, multi-resolution TIFF of `source` to `target`.

    `target` appears only when the whole result has been verified. Sizes are pixels;
    `recipe.dpi` is dots per inch. Levels halve, rounding down, until one tile holds the picture
    or a side is one pixel.

    Raises:
        UnreadableImage: the source is damaged or of a kind the recipe refuses.
        VerificationFailed: the result is not what it should be.
        ItemFailed: this picture could not be made now.
        DiskFull: no space left beside `target` or in the temporary folder.
    """
    import pyvips

    pyvips.cache_set_max(0)
    part = new_part(target.parent)
    try:
        planned = plan(inspect(source, recipe), recipe, copyright)
        info = _make(planned, part)
        os.replace(part, target)
    except pyvips.Error as error:
        raise explain(error, target.parent) from error
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFull(f"no space left for {target.name}") from error
        raise
    finally:
        part.unlink(missing_ok=True)
    return info


def _make(planned: Plan, part: Path) -> PyramidInfo:
    import pyvips

    image = pipeline(planned)
    upright = _upright(image, planned.source.orientation)
    turned = planned.source.orientation != 1
    bigtiff = needs_bigtiff(
        upright.width, upright.height, upright.bands, 2 if upright.format == "ushort" else 1
    )
    expected = _expected(upright, planned, bigtiff)
    try:
        _save(upright, part, planned.recipe, bigtiff)
    except pyvips.Error as error:
        raise _blame(error, planned, part.parent) from error
    image = None
    upright = upright if turned else None
    pages = _verify(part, expected, planned, upright)
    return PyramidInfo(
        width=expected.width,
        height=expected.height,
        pages=pages,
        tile=expected.tile,
        bytes=part.stat().st_size,
        sha256=sha256_of(part),
        source_width=planned.source.width,
        source_height=planned.source.height,
        source_kind=planned.source.kind,
        notes=planned.notes,
    )


def _upright(image: pyvips.Image, orientation: int) -> pyvips.Image:
    """The picture turned upright with its tag reset. Turning reads pixels in another order than
    they are decoded, so a large picture goes through a file in the temporary folder."""
    import pyvips

    if orientation == 1:
        return _without_orientation(image)
    size = image.width * image.height * image.bands * (2 if image.format == "ushort" else 1)
    if size <= _IN_MEMORY_BYTES:
        held = image.copy_memory()
    else:
        held = pyvips.Image.new_temp_file("%s.v")
        image.write(held)
    return _without_orientation(held.autorot())


def _without_orientation(image: pyvips.Image) -> pyvips.Image:
    if image.get_typeof("orientation") == 0:
        return image
    plain = image.copy()
    plain.remove("orientation")
    return plain


def _save(image: pyvips.Image, part: Path, recipe: Recipe, bigtiff: bool) -> None:
    lossless = {"lossless": True} if recipe.compression == "webp" else {}
    image.tiffsave(
        os.fsencode(part),
        tile=True,
        pyramid=True,
        tile_width=recipe.tile,
        tile_height=recipe.tile,
        compression=recipe.compression,
        Q=recipe.quality,
        predictor="horizontal",
        region_shrink="mean",
        bigtiff=bigtiff,
        resunit="inch",
        xres=recipe.dpi / 25.4,
        yres=recipe.dpi / 25.4,
        **lossless,
    )


def _expected(image: pyvips.Image, planned: Plan, bigtiff: bool) -> Expected:
    recipe = planned.recipe
    photometric = {"b-w": 1, "grey16": 1, "srgb": 2, "rgb16": 2, "cmyk": 5}[image.interpretation]
    if recipe.compression == "jpeg" and photometric == 2 and recipe.quality < 90:
        photometric = 6  # from 90 on libvips stores red, green, blue
    if (image.width, image.height) != (planned.width, planned.height):
        raise ItemFailed(
            f"the picture came out {image.width} x {image.height}, "
            f"should be {planned.width} x {planned.height}"
        )
    return Expected(
        width=planned.width,
        height=planned.height,
        tile=recipe.tile,
        bands=image.bands,
        bits=16 if image.format == "ushort" else 8,
        compression=recipe.compression,
        photometric=photometric,
        bigtiff=bigtiff,
        dpi=recipe.dpi,
        profile=profile_of(image),
        quality=recipe.quality,
    )


def _verify(part: Path, expected: Expected, planned: Plan, held: pyvips.Image | None) -> int:
    """Check the result against the source; returns its number of levels."""
    from imagecore import tiffcheck
    from imagecore.tilemeans import exact_means

    found = tiffcheck.check_tiff(part, expected)
    pages = len(expected_levels(expected.width, expected.height, expected.tile))
    quick = _quick_means(planned, expected)
    if quick is not None and _near(tiffcheck.to_stored(quick, expected), found):
        return pages
    # The exact way: the same pipeline a second time, or the turned picture while it is there.
    reference = exact_means(pipeline(planned) if held is None else held, expected.tile)
    tiffcheck.compare_with_source(found, reference, expected)
    return pages


def _near(quick: Means, found: Means) -> bool:
    return quick.shape == found.shape and bool(abs(quick - found).max() <= _QUICK_TOLERANCE)


def _quick_means(planned: Plan, expected: Expected) -> Means | None:
    """Tile means from a JPEG decoded at an eighth of its size, in a fifth of the time; None
    where colours are converted or the picture is small anyway."""
    from imagecore.tilemeans import area_means

    source = planned.source
    plain = source.kind == "jpeg" and not planned.converted
    if not plain or source.width * source.height < _QUICK_PIXELS:
        return None
    small = open_stored(source.path, source.kind, planned.recipe, shrink=8)
    upright = _upright(small, source.orientation)
    return area_means(upright.numpy(), (expected.width, expected.height), expected.tile)


def _blame(error: pyvips.Error, planned: Plan, folder: Path) -> Exception:
    """Saving reads and writes at once: reading alone shows which of the two went wrong."""
    import pyvips

    found = explain(error, folder)
    if not isinstance(found, UnreadableImage):
        return found
    try:
        pipeline(planned).avg()
    except pyvips.Error as reading:
        return explain(reading, folder)
    return ItemFailed(f"the result could not be written: {cause(error)}")
