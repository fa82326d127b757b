"""Mean values of tiles: what two pyramid levels, or a result and its source, must agree on.

The next level's pixel is the mean of a 2 × 2 block, rounded; a last odd row or column has no
part in it. So a tile's even part and the quarter of a tile made from it have the same mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyvips

Means = NDArray[np.float64]
_STRIP = 64


@dataclass
class LevelMeans:
    """Sums over one level's tiles; arrays are rows × columns × bands."""

    whole: Means
    even: Means
    quarters: Means
    width: int
    height: int
    tile: int
    alpha: bool

    @classmethod
    def empty(
        cls, width: int, height: int, tile: int, bands: int, *, alpha: bool = False
    ) -> LevelMeans:
        rows, columns = -(-height // tile), -(-width // tile)
        whole = np.zeros((rows, columns, bands))
        quarters = np.zeros((2 * rows, 2 * columns, bands))
        return cls(whole, whole.copy(), quarters, width, height, tile, alpha)

    def add(self, row: int, column: int, pixels: NDArray[np.unsignedinteger]) -> None:
        """Count one tile's real pixels (no padding), height × width × bands."""
        pixels, scale = _weigh(pixels, self.alpha)
        half = self.tile // 2
        for down in (0, 1):
            band_sums = _sum_rows(pixels[down * half : (down + 1) * half])
            for across in (0, 1):
                part = band_sums[across * half : (across + 1) * half]
                self.quarters[2 * row + down, 2 * column + across] = scale * part.sum(
                    0, dtype=np.uint64
                )
        whole = self.quarters[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].sum((0, 1))
        self.whole[row, column] = whole
        height, width = pixels.shape[:2]
        odd = height % 2 or width % 2
        even = pixels[: height & ~1, : width & ~1]
        self.even[row, column] = scale * _sum_rows(even).sum(0, dtype=np.uint64) if odd else whole

    def mean_whole(self) -> Means:
        return self.whole / cell_sizes(self.width, self.height, self.tile)

    def mean_even(self) -> Means:
        """Means over the even part of each tile; 0 where there is none."""
        sizes = cell_sizes(self.width & ~1, self.height & ~1, self.tile, self.even.shape[:2])
        return self.even / np.maximum(sizes, 1)

    def mean_quarters(self, shape: tuple[int, int]) -> Means:
        """Means of quarter tiles as a grid of `shape`, which an odd row or column of the level
        above makes larger than the grid there is."""
        sizes = cell_sizes(self.width, self.height, self.tile // 2, self.quarters.shape[:2])
        means = np.zeros((*shape, self.quarters.shape[2]))
        found = (self.quarters / np.maximum(sizes, 1))[: shape[0], : shape[1]]
        means[: found.shape[0], : found.shape[1]] = found
        return means


def _weigh(
    pixels: NDArray[np.unsignedinteger], alpha: bool
) -> tuple[NDArray[np.unsignedinteger], Means]:
    """Colours multiplied by their alpha, as libvips averages them, and what undoes the scale."""
    scale = np.ones(pixels.shape[2])
    if not alpha:
        return pixels, scale
    wide = pixels.astype(np.uint32 if pixels.dtype == np.uint8 else np.uint64)
    wide[..., :-1] *= wide[..., -1:]
    scale[:-1] = 1 / np.iinfo(pixels.dtype).max
    return wide, scale


def _sum_rows(pixels: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    # 257 rows of 255 still fit 16 bits, and adding in 16 bits is twice as fast.
    small = pixels.dtype == np.uint8 and len(pixels) <= 257
    size = np.uint16 if small else np.uint32 if pixels.dtype.itemsize < 4 else np.uint64
    return np.add.reduce(pixels, axis=0, dtype=size)


def cell_sides(
    width: int, height: int, cell: int, shape: tuple[int, ...] | None = None
) -> tuple[Means, Means]:
    """Heights and widths in pixels of a grid's cells over width × height; 0 beyond it."""
    rows, columns = shape or (-(-height // cell), -(-width // cell))
    down = np.clip(height - cell * np.arange(rows), 0, cell)
    across = np.clip(width - cell * np.arange(columns), 0, cell)
    return down[:, None, None].astype(np.float64), across[None, :, None].astype(np.float64)


def cell_sizes(width: int, height: int, cell: int, shape: tuple[int, ...] | None = None) -> Means:
    """Pixels in each cell of a grid over width × height, as rows × columns × 1."""
    down, across = cell_sides(width, height, cell, shape)
    return down * across


def exact_means(image: pyvips.Image, cell: int) -> Means:
    """Means of each cell of a picture, reading it once from top to bottom; colours weighted by
    alpha where it has one."""
    import pyvips

    rows, columns = -(-image.height // cell), -(-image.width // cell)
    sums = np.zeros((rows, columns, image.bands))
    region = pyvips.Region.new(image)
    starts = np.arange(0, image.width, cell)
    dtype = np.uint16 if image.format == "ushort" else np.uint8
    step = min(_STRIP, cell)
    for top in range(0, image.height, step):
        high = min(step, image.height - top)
        data = np.frombuffer(region.fetch(0, top, image.width, high), dtype)
        shaped = data.reshape(high, image.width, image.bands)
        pixels, scale = _weigh(shaped, image.hasalpha())
        lines = _sum_rows(pixels)
        sums[top // cell] += scale * np.add.reduceat(lines, starts, axis=0, dtype=np.uint64)
    return sums / cell_sizes(image.width, image.height, cell)


def area_means(small: NDArray[np.uint8], size: tuple[int, int], cell: int) -> Means:
    """Means of each cell of a `size` = (width, height) picture, from a smaller copy of it.

    A cell's border falls between the copy's pixels: they count by the part inside.
    """
    return _cells(_cells(small, size[1], cell).transpose(1, 0, 2), size[0], cell).transpose(1, 0, 2)


def _cells(rows: NDArray[Any], length: int, cell: int) -> Means:
    """Average `rows` over cells of `length` target pixels along the first axis; one cell at a
    time, because the whole in floating point would be eight times the copy's size."""
    borders = np.minimum(np.arange(0, length + cell, cell), length) * (len(rows) / length)
    means = np.empty((len(borders) - 1, *rows.shape[1:]))
    for index, (start, end) in enumerate(_pairs(borders)):
        first, last = int(start), min(int(end), len(rows) - 1)
        total = rows[first:last].sum(0, dtype=np.float64)
        total += (end - last) * rows[last] - (start - first) * rows[first]
        means[index] = total / (end - start)
    return means


def _pairs(values: NDArray[np.float64]) -> Iterator[tuple[float, float]]:
    return zip(values[:-1].tolist(), values[1:].tolist(), strict=True)
