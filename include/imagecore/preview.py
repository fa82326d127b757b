"""A picture in small for a person to see, also one that is damaged."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from imagecore.errors import UnreadableImage
from imagecore.picture import open_stored
from imagecore.recipe import DEFAULT_KINDS, FailOn, Recipe
from imagecore.sourcekind import refuse_kind, sniff
from imagecore.tempspace import disk_errors
from imagecore.vipserror import explained

if TYPE_CHECKING:
    import pyvips

LOADERS = DEFAULT_KINDS
MAX_PIXELS = 400_000_000
# libvips' own word, which no workflow's recipe may say: go on at any fault.
_AS_FAR_AS_IT_GOES = Recipe(loaders=LOADERS, fail_on=cast("FailOn", "none"))
_QUALITY = 85
_FULL_COLOUR_SIDE = 400


@dataclass(frozen=True)
class Preview:
    """What was written: its media type, and its size in pixels."""

    media_type: str
    width: int
    height: int


def make_preview(source: Path, target: Path, side: int) -> Preview:
    """Write a picture to `target` so that it fits into `side` x `side` pixels: never enlarged,
    upright, in sRGB with 8 bits and without metadata; a PNG where there is transparency, a JPEG
    where not.

    Of several pages or frames the first. A damaged picture is shown as far as it decodes.

    Raises:
        UnreadableImage: too large, of no kind that is read, or nothing of it can be shown.
        DiskFull: no space left for `target`.
    """
    import pyvips

    pyvips.cache_set_max(0)
    kind = sniff(source)
    refuse_kind(kind, LOADERS)
    with explained(target.parent):
        _refuse(open_stored(source, kind, _AS_FAR_AS_IT_GOES))
        small = pyvips.Image.thumbnail_source(
            _file(source),
            side,
            height=side,
            size="down",
            export_profile="srgb",
            intent="relative",
            fail_on=_AS_FAR_AS_IT_GOES.fail_on,
        )
        alpha = bool(small.hasalpha())
        data = _as_png(small) if alpha else _as_jpeg(small, side)
    with disk_errors(target.parent):
        target.write_bytes(data)
    return Preview("image/png" if alpha else "image/jpeg", small.width, small.height)


def _file(path: Path) -> pyvips.Source:
    import pyvips

    # By name libvips would take what stands in brackets for options.
    return pyvips.Source.new_from_file(os.fsencode(path))


def _refuse(image: pyvips.Image) -> None:
    """Before any pixel is decoded."""
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(
            f"{image.width} x {image.height} is more than the {MAX_PIXELS} pixels of a preview"
        )
    if image.format not in {"uchar", "ushort"}:
        raise UnreadableImage(
            f"samples of type {image.format} have no agreed range; convert it to 8 or 16 bits"
        )


def _as_png(image: pyvips.Image) -> bytes:
    data: bytes = image.pngsave_buffer(keep="none")
    return data


def _as_jpeg(image: pyvips.Image, side: int) -> bytes:
    colour = "off" if side > _FULL_COLOUR_SIDE else "on"
    data: bytes = image.jpegsave_buffer(Q=_QUALITY, subsample_mode=colour, keep="none")
    return data
