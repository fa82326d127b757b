"""What a right pyramid looks like, before and without reading one."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from imagecore.errors import ItemFailed

TIFF_FAULTS = (
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    OSError,
    struct.error,
    zlib.error,
)
"""What tifffile and its decoders raise at a damaged file."""

# What a classic TIFF can address, less room for its directories.
_CLASSIC_BYTES = 4 * 10**9


class VerificationFailed(ItemFailed):
    """What was written is not what should have been; nothing of it was kept."""


@dataclass(frozen=True)
class Expected:
    """What a right result looks like. `photometric` is the TIFF tag's number, `quality` is of
    JPEG, `profile` the ICC profile's bytes."""

    width: int
    height: int
    tile: int
    bands: int
    bits: int
    compression: str
    photometric: int
    bigtiff: bool
    dpi: int
    profile: bytes | None
    quality: int = 100

    @property
    def alpha(self) -> bool:
        return self.bands in {2, 4} and self.photometric != 5

    @property
    def lossless(self) -> bool:
        return self.compression != "jpeg"


def expected_levels(width: int, height: int, tile: int) -> list[tuple[int, int]]:
    """Sizes of all levels: each half of the one before, rounded down.

    libvips stops when one tile holds the level, or when a side has become one pixel: 30000 × 7
    ends at 7500 × 1, which takes more than one tile.

    >>> expected_levels(4000, 3000, 512)
    [(4000, 3000), (2000, 1500), (1000, 750), (500, 375)]
    """
    levels = [(width, height)]
    while max(levels[-1]) > tile and min(levels[-1]) > 1:
        levels.append((levels[-1][0] // 2, levels[-1][1] // 2))
    return levels


def needs_bigtiff(width: int, height: int, bands: int, sample_bytes: int) -> bool:
    """Whether the result could pass 4 GB: all levels uncompressed, and a twentieth more,
    because data that do not compress grow."""
    return width * height * bands * sample_bytes * 4 / 3 * 1.05 > _CLASSIC_BYTES
