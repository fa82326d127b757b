"""Resizing of lines of pixels as products of matrices, which can do a part alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyvips

Floats = NDArray[np.float32]

_BLOCK = 16
"""Pixels of a result made by one product: more take more needless zeros along."""
_COLUMNS = 256


@dataclass(frozen=True)
class Weights:
    """How much each pixel of a line counts in each pixel of the resized one, in blocks: the
    first pixel of the result, the first of the line, and a row of weights for each result."""

    size: int
    blocks: tuple[tuple[int, int, Floats], ...]

    def rows(self, start: int, lines: Floats) -> tuple[int, Floats]:
        """Resize from top to bottom lines that begin at row `start`; returns the result's first
        row, and its rows."""
        used = self._used(start, start + len(lines))
        first, end = used[0][0], used[-1][0] + len(used[-1][1])
        made = np.empty((end - first, lines.shape[1]), np.float32)
        for at, weights, part in used:
            np.matmul(weights, lines[part], out=made[at - first : at - first + len(weights)])
        return first, made

    def columns(self, start: int, lines: Floats) -> tuple[int, Floats]:
        """As `rows`, from left to right."""
        used = self._used(start, start + lines.shape[1])
        first, end = used[0][0], used[-1][0] + len(used[-1][1])
        made = np.empty((len(lines), end - first), np.float32)
        for at, weights, part in used:
            made[:, at - first : at - first + len(weights)] = lines[:, part] @ weights.T
        return first, made

    def _used(self, start: int, end: int) -> list[tuple[int, Floats, slice]]:
        """The blocks these pixels count in, with their weights and where they are in the line."""
        used = []
        for at, first, weights in self.blocks:
            low, high = max(first, start), min(first + weights.shape[1], end)
            if low < high:
                part = slice(low - start, high - start)
                used.append((at, weights[:, low - first : high - first], part))
        return used


@lru_cache(maxsize=16)
def weights_of(side: int, scale: float) -> Weights:
    """The weights of libvips' own Lanczos, read off what it makes of single bright pixels."""
    import pyvips

    parts = []
    for first in range(0, side, _COLUMNS):
        lit = np.eye(side, min(_COLUMNS, side - first), -first, np.float32)
        # A band for each: side by side, those of an enlarged picture would run together.
        image: pyvips.Image = pyvips.Image.new_from_array(lit[:, None])
        made = image.resize(1, vscale=scale, kernel="lanczos3")
        parts.append(made.numpy().reshape(made.height, -1))
    matrix = np.concatenate(parts, axis=1)
    blocks = []
    for at in range(0, len(matrix), _BLOCK):
        rows = matrix[at : at + _BLOCK]
        counted = np.flatnonzero(rows.any(axis=0))
        first, last = int(counted[0]), int(counted[-1])
        blocks.append((at, first, np.ascontiguousarray(rows[:, first : last + 1])))
    return Weights(len(matrix), tuple(blocks))


@lru_cache(maxsize=64)
def mitchell_weights(side: int, size: int, first: int, end: int) -> Weights:
    """The weights of ImageMagick's Mitchell filter, of a line of `side` pixels made `size` long,
    for the pixels from `first` up to `end` of the result."""
    step = side / size
    wide = max(step, 1.0)
    blocks = []
    for at in range(first, end, _BLOCK):
        centres = (np.arange(at, min(at + _BLOCK, end)) + 0.5) * step
        low = max(0, math.floor(centres[0] - 2 * wide))
        pixels = np.arange(low, min(side, math.ceil(centres[-1] + 2 * wide)))
        apart = np.abs(pixels + 0.5 - centres[:, None]) / wide
        near = (7 * apart - 12) * apart**2 + 16 / 3
        far = ((-7 / 3 * apart + 12) * apart - 20) * apart + 32 / 3
        counted = np.where(apart < 1, near, np.where(apart < 2, far, 0.0))
        counted /= counted.sum(axis=1, keepdims=True)
        blocks.append((at - first, low, counted.astype(np.float32)))
    return Weights(end - first, tuple(blocks))
