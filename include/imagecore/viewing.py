"""A finished picture that may be anybody's, looked at: its size and transparency, and in small."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imagecore.picture import inspect, open_stored
from imagecore.recipe import Recipe
from imagecore.renderstyle import EXTENSIONS
from imagecore.tempspace import disk_errors
from imagecore.vipserror import explain

if TYPE_CHECKING:
    import numpy as np
    import pyvips
    from numpy.typing import NDArray

LOADERS = tuple(EXTENSIONS)
_AS_IT_IS = Recipe(loaders=LOADERS, autorotate=False)
_SQUARE = 8
_LIGHT, _DARK = 255, 208


@dataclass(frozen=True)
class Viewed:
    """A picture that decodes whole: its kind by content, its size in pixels, and whether it has
    an alpha channel."""

    kind: str
    width: int
    height: int
    alpha: bool


def view(source: Path, small: Path | None = None, side: int = 0) -> Viewed:
    """Decode a picture whole; with `small`, write it there as `side` x `side` pixels of red, green
    and blue, without any header: fitted inside, never enlarged, on a checkered ground.

    Raises:
        UnreadableImage: it is broken, too large, or of no kind that composites have.
        DiskFull: no space left for `small`.
    """
    import pyvips

    try:
        found = inspect(source, _AS_IT_IS)
        image = open_stored(source, found.kind, _AS_IT_IS)
        if small is None:
            image.avg()
        else:
            pixels = _on_checks(_reduced(image, side), side)
            with disk_errors(small.parent):
                small.write_bytes(pixels.tobytes())
    except pyvips.Error as error:
        raise explain(error, source.parent) from error
    return Viewed(found.kind, found.width, found.height, bool(image.hasalpha()))


def checks(height: int, width: int) -> NDArray[np.uint8]:
    """A ground on which transparency shows: height x width x 3."""
    import numpy as np

    rows, columns = np.ogrid[:height, :width]
    even = (rows // _SQUARE + columns // _SQUARE) % 2 == 0
    return np.repeat(np.where(even, _LIGHT, _DARK).astype(np.uint8)[..., None], 3, axis=2)


def _reduced(image: pyvips.Image, side: int) -> NDArray[np.uint8]:
    small = image.thumbnail_image(side, height=side, size="down", no_rotate=True)
    small = small.colourspace("srgb").cast("uchar")
    pixels: NDArray[np.uint8] = (small if small.hasalpha() else small.bandjoin(255)).numpy()
    return pixels


def _on_checks(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    import numpy as np

    ground = checks(side, side)
    high, wide = pixels.shape[:2]
    top, left = (side - high) // 2, (side - wide) // 2
    part = ground[top : top + high, left : left + wide]
    alpha = pixels[..., 3:].astype(np.float32) / 255
    part[...] = (pixels[..., :3] * alpha + part * (1 - alpha) + 0.5).astype(np.uint8)
    return ground
