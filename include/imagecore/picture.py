"""Open a picture and bring it into the form its recipe wants, as a pipeline nothing has run yet.

The policy for every kind is in docs/PICTURES.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imagecore import colour
from imagecore.errors import UnreadableImage
from imagecore.metadata import mend_iptc
from imagecore.recipe import Recipe
from imagecore.sourcekind import check_tiff_source, refuse_kind, sniff

if TYPE_CHECKING:
    import pyvips

_LOADERS = {
    "jpeg": ("jpegload", "VipsForeignLoadJpeg"),
    "png": ("pngload", "VipsForeignLoadPng"),
    "tiff": ("tiffload", "VipsForeignLoadTiff"),
    "webp": ("webpload", "VipsForeignLoadWebp"),
    "gif": ("gifload", "VipsForeignLoadNsgif"),
    "avif": ("heifload", "VipsForeignLoadHeif"),
    "svg": ("svgload", "VipsForeignLoadSvg"),
}
_BANDS = {"b-w": (1, 2), "grey16": (1, 2), "srgb": (3, 4), "rgb16": (3, 4), "cmyk": (4,)}
_UPRIGHT = 1


@dataclass(frozen=True)
class Source:
    """A picture as found: its kind, its stored size in pixels and its EXIF orientation (1–8)."""

    path: Path
    kind: str
    width: int
    height: int
    orientation: int
    full_pages: int

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height once turned as the orientation says."""
        swap = self.orientation >= 5
        return (self.height, self.width) if swap else (self.width, self.height)


@dataclass(frozen=True)
class Plan:
    """A source with what will be made of it: `width` × `height` pixels, upright; `converted`
    says whether its colours are."""

    source: Source
    recipe: Recipe
    width: int
    height: int
    converted: bool
    notes: tuple[str, ...]


def allow_only(loaders: tuple[str, ...]) -> None:
    """Block every libvips reader of this process but the named ones. For worker processes."""
    import pyvips

    pyvips.operation_block_set("VipsForeignLoad", True)
    for kind in loaders:
        pyvips.operation_block_set(_LOADERS[kind][1], False)


def inspect(path: Path, recipe: Recipe) -> Source:
    """Look at the header and refuse what the recipe refuses, before any pixel is decoded.

    Raises:
        UnreadableImage: not a picture, damaged, too large, or of a kind the recipe refuses.
    """
    kind = sniff(path)
    refuse_kind(kind, recipe.loaders)
    image = open_stored(path, kind, recipe)
    pixels = image.width * image.height
    if pixels > recipe.max_pixels:
        raise UnreadableImage(
            f"{image.width} x {image.height} is more than the {recipe.max_pixels} pixels allowed"
        )
    _refuse_samples(image)
    sample = 2 if image.format == "ushort" else 1
    pages = _number(image, "n-pages", 1)
    if kind == "tiff":
        pages = check_tiff_source(path, pixels * image.bands * sample + (64 << 20))
    orientation = _number(image, "orientation", _UPRIGHT) if recipe.autorotate else _UPRIGHT
    if orientation not in range(1, 9):
        orientation = _UPRIGHT
    return Source(path, kind, image.width, image.height, orientation, pages)


def open_stored(path: Path, kind: str, recipe: Recipe, **options: object) -> pyvips.Image:
    """The picture as stored, first page or frame, read once from top to bottom."""
    import pyvips

    load = getattr(pyvips.Image, _LOADERS[kind][0])
    # Without revalidate libvips hands back a reader still in use, which cannot start again.
    return load(
        os.fsencode(path), access="sequential", fail_on=recipe.fail_on, revalidate=True, **options
    )


def _number(image: pyvips.Image, field: str, default: int) -> int:
    return int(image.get(field)) if image.get_typeof(field) else default


def _refuse_samples(image: pyvips.Image) -> None:
    bands = _BANDS.get(str(image.interpretation))
    if bands is None:
        raise UnreadableImage(
            f"colour space {image.interpretation} is not handled; convert it to sRGB"
        )
    if image.format not in {"uchar", "ushort"}:
        raise UnreadableImage(
            f"samples of type {image.format} have no agreed range; convert it to 8 or 16 bits"
        )
    if image.bands not in bands:
        raise UnreadableImage(
            f"{image.bands} channels of {image.interpretation} are not a picture we know"
        )


def target_size(width: int, height: int, limits: tuple[int | None, int | None]) -> tuple[int, int]:
    """The size that fits both limits with the same shape; never larger than the source.

    >>> target_size(8001, 6001, (4000, 4000))
    (4000, 3000)
    """
    wide, high = limits[0] or width, limits[1] or height
    if width <= wide and height <= high:
        return width, height
    # Whole numbers: (side * limit) / other side, rounded half up, without float error.
    if width * high >= height * wide:
        return wide, max(1, (2 * height * wide + width) // (2 * width))
    return max(1, (2 * width * high + height) // (2 * height)), high


def plan(source: Source, recipe: Recipe, copyright: bool) -> Plan:
    """Decide the size, and say in `notes` what of the source will not be found in the result."""
    width, height = target_size(*source.upright, recipe.limits(copyright))
    notes = []
    if source.full_pages > 1:
        word = "frames" if source.kind in {"gif", "webp"} else "pages"
        notes.append(f"first of {source.full_pages} {word}")
    if source.orientation != _UPRIGHT:
        notes.append(f"rotated upright (orientation {source.orientation})")
    image, dropped = colour.check_profile(open_stored(source.path, source.kind, recipe))
    notes += [dropped] if dropped else []
    converted = recipe.colour == "srgb" and colour.needs_conversion(image)
    if converted:
        notes.append("converted to sRGB")
    if image.hasalpha() and recipe.compression == "jpeg":
        notes.append("transparency flattened on the background")
    if image.format == "ushort" and not _keeps_depth(recipe):
        notes.append("16 bits scaled to 8")
    return Plan(source, recipe, width, height, converted, tuple(notes))


def _keeps_depth(recipe: Recipe) -> bool:
    return recipe.compression in {"deflate", "lzw", "none"}


def pipeline(plan: Plan, **options: object) -> pyvips.Image:
    """The finished pixels, in stored orientation; each call reads the source anew. `options` are
    the reader's."""
    recipe, source = plan.recipe, plan.source
    image, _ = colour.check_profile(open_stored(source.path, source.kind, recipe, **options))
    image = _resize(mend_iptc(image), plan)
    if plan.converted:
        image = colour.to_srgb(image)
    if image.hasalpha() and recipe.compression == "jpeg":
        image = _flatten(image, recipe.background)
    if image.format == "ushort" and not _keeps_depth(recipe):
        image = _to_8_bits(image)
    if recipe.compression == "webp":
        image = _for_webp(image)
    return image


def _resize(image: pyvips.Image, plan: Plan) -> pyvips.Image:
    swap = plan.source.orientation >= 5
    return resized(image, *((plan.height, plan.width) if swap else (plan.width, plan.height)))


def resized(image: pyvips.Image, width: int, height: int) -> pyvips.Image:
    """The picture so many pixels wide and high, by Lanczos with three lobes."""
    if (width, height) == (image.width, image.height):
        return image
    across, down = width / image.width, height / image.height
    if not image.hasalpha():
        return image.resize(across, vscale=down, kernel="lanczos3")
    # Weighted by alpha, or hidden colours of transparent pixels bleed into the edges.
    small = image.premultiply().resize(across, vscale=down, kernel="lanczos3").unpremultiply()
    return small.rint().cast(image.format).copy(interpretation=image.interpretation)


def _flatten(image: pyvips.Image, background: tuple[int, int, int]) -> pyvips.Image:
    red, green, blue = background
    paper = [float(red), float(green), float(blue)]
    if image.bands == 2:
        paper = [round(0.2126 * red + 0.7152 * green + 0.0722 * blue)]
    deep = 257 if image.format == "ushort" else 1
    return image.flatten(background=[value * deep for value in paper])


def _to_8_bits(image: pyvips.Image) -> pyvips.Image:
    # 65535 / 257 = 255: a shift by 8 bits would darken every value by half a step.
    small = image.linear(1 / 257, 0.5, uchar=True)
    grey = image.interpretation == "grey16"
    space = "b-w" if grey else "cmyk" if image.interpretation == "cmyk" else "srgb"
    return small.copy(interpretation=space)


def _for_webp(image: pyvips.Image) -> pyvips.Image:
    if image.interpretation == "cmyk":
        raise UnreadableImage("CMYK cannot be stored as webp: use colour srgb or deflate")
    if image.bands >= 3:
        return image
    bare = colour.without_profile(image) if colour.profile_of(image) else image
    return bare.colourspace("srgb")
