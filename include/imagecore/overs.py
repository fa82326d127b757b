"""Layers of a composite: read, laid over each other, and reduced.

Colours are multiplied by their alpha before anything is added or averaged, or the hidden colours
of transparent pixels would darken every edge. What is transparent all round is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imagecore.errors import ItemFailed
from imagecore.picture import inspect, pipeline, plan
from imagecore.recipe import Recipe, recipe_from
from imagecore.weights import Floats, weights_of

Bytes = NDArray[np.uint8]

_LAST = np.uint32(0xFF) << np.uint32(24)
_ROWS = 32
"""Rows worked on together: few enough to stay in the processor's cache."""
_ROUNDED = np.float32(1 / 256)
"""More than 32 bits get wrong."""


@dataclass(frozen=True)
class Planes:
    """A part of a canvas, at `left`, `top` pixels; the rest is transparent.

    `samples` is rows x 4 x columns: red, green and blue times alpha, and alpha; 0 to 255.
    """

    left: int
    top: int
    samples: Floats

    @property
    def right(self) -> int:
        return self.left + self.samples.shape[2]

    @property
    def bottom(self) -> int:
        return self.top + self.samples.shape[0]

    def part(self, left: int, top: int, right: int, bottom: int) -> Floats:
        """The samples of a box inside, not copied."""
        return self.samples[
            top - self.top : bottom - self.top, :, left - self.left : right - self.left
        ]


@dataclass(frozen=True)
class Pixels:
    """A layer file's pixels. `width` x `height` is its canvas; `samples`, as in Planes but of
    8 bits and not multiplied, is its part at `left`, `top` that is not transparent."""

    width: int
    height: int
    left: int
    top: int
    samples: Bytes
    opaque: bool
    notes: tuple[str, ...]

    @property
    def canvas(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def nbytes(self) -> int:
        return self.samples.nbytes

    def premultiplied(self) -> Planes:
        return Planes(self.left, self.top, _premultiplied(self.samples))


@cache
def _reading() -> Recipe:
    """How a layer is read: in sRGB of 8 bits, at its own size, not turned."""
    options = {"compression": "webp", "loaders": ["png"], "autorotate": False}
    return recipe_from("iiif", {**options, "max_width": 0, "max_height": 0})


def read_layer(file: Path) -> Pixels:
    """Decode a layer file. 16 bits, palettes, grey and foreign profiles become 8 bits of sRGB.

    `opaque` says that the file has no transparency at all.

    Raises:
        UnreadableImage: the file is damaged or no PNG picture.
        ItemFailed: there is no such file.
        pyvips.Error: libvips found it damaged while decoding.
    """
    recipe = _reading()
    try:
        planned = plan(inspect(file, recipe), recipe, copyright=False)
    except FileNotFoundError:
        raise ItemFailed("there is no such file") from None
    image = pipeline(planned)
    opaque = not image.hasalpha()
    if opaque:
        image = image.bandjoin(255)
    pixels = image.numpy()
    left, top, right, bottom = box_of(pixels)
    shown = np.ascontiguousarray(pixels[top:bottom, left:right].transpose(0, 2, 1))
    return Pixels(image.width, image.height, left, top, shown, opaque, planned.notes)


def box_of(pixels: Bytes) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is not transparent in rows x columns x RGBA; the last
    two are one past it, and all are 0 where nothing is."""
    whole = np.ascontiguousarray(pixels).view("<u4")[..., 0]
    rows = np.flatnonzero(np.bitwise_or.reduce(whole, axis=1) & _LAST)
    columns = np.flatnonzero(np.bitwise_or.reduce(whole, axis=0) & _LAST)
    if not rows.size:
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def laid_over(below: Sequence[Planes], layer: Pixels) -> tuple[Planes, Planes]:
    """What is seen in the layer's part once it lies over `below`, and by how much that changes
    the composite as libvips gives it. Of `below`, later ones hide earlier ones."""
    above = layer.premultiplied()
    seen = np.zeros_like(above.samples)
    for planes in below:
        _paste(planes, Planes(above.left, above.top, seen))
    change = above.samples
    for row in range(0, len(seen), _ROWS):
        shown, laid = seen[row : row + _ROWS], change[row : row + _ROWS]
        before = _in_8_bits(shown) if below else shown.copy()
        shown *= 1 - laid[:, 3:] * np.float32(1 / 255)
        shown += laid
        laid[...] = _in_8_bits(shown)
        laid -= before
    return Planes(layer.left, layer.top, seen), Planes(layer.left, layer.top, change)


def over(below: Planes, above: Planes) -> Planes:
    """One over the other."""
    made = _grown(below, above)
    part = made.part(above.left, above.top, above.right, above.bottom)
    part *= 1 - above.samples[:, 3:] * np.float32(1 / 255)
    part += above.samples
    return made


def added(first: Planes, second: Planes) -> Planes:
    """The sum of both."""
    made = _grown(first, second)
    made.part(second.left, second.top, second.right, second.bottom)[...] += second.samples
    return made


def legal(planes: Planes) -> Planes:
    """Without what Lanczos made less than nothing, more than opaque, or brighter than white."""
    # Where alpha went over, the colours went over with it, as in `straight`.
    samples = planes.samples * (np.float32(255) / np.maximum(planes.samples[:, 3:], 255))
    np.clip(samples, 0, 255, out=samples)
    np.minimum(samples[:, :3], samples[:, 3:], out=samples[:, :3])
    return Planes(planes.left, planes.top, samples)


def reduced(planes: Planes, canvas: tuple[int, int], fit: tuple[int, int]) -> Planes:
    """The part of the canvas that `planes` become when all of it, `canvas` pixels wide and high,
    is made to fit inside `fit` by libvips' resize.

    Resizing adds weighted pixels up, row by row and column by column, so a part can be resized
    alone, and sums of parts give the sum.
    """
    across, down = (weights_of(side, _scale(canvas, fit, side)) for side in canvas)
    high, _, wide = planes.samples.shape
    if not high or not wide:
        return Planes(0, 0, np.zeros((0, 4, 0), np.float32))
    top, rows = down.rows(planes.top, planes.samples.reshape(high, 4 * wide))
    left, columns = across.columns(planes.left, rows.reshape(-1, wide))
    return Planes(left, top, columns.reshape(len(rows), 4, -1))


def fitted_size(canvas: tuple[int, int], fit: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a canvas made to fit; at least one pixel.

    >>> fitted_size((1600, 2400), (800, 800))
    (533, 800)
    """
    wide, high = (weights_of(side, _scale(canvas, fit, side)).size for side in canvas)
    return wide, high


def straight(planes: Planes, width: int, height: int) -> Bytes:
    """The whole canvas as rows x columns x RGBA of 8 bits, alpha not multiplied."""
    pixels = np.zeros((height, width, 4), np.uint8)
    for row in range(0, len(planes.samples), _ROWS):
        samples = planes.samples[row : row + _ROWS]
        alpha = samples[:, 3]
        whole = (np.clip(alpha, 0, 255) + np.float32(0.5)).astype(np.uint8)
        # By what Lanczos made of alpha, over 255 too: the colours went over with it.
        scale = 255 / np.maximum(alpha, np.float32(0.5))
        scale *= whole > 0
        colours = samples[:, :3] * scale[:, None]
        colours += np.float32(0.5)
        np.clip(colours, 0, 255, out=colours)
        top = planes.top + row
        part = pixels[top : top + len(samples), planes.left : planes.right]
        part[..., :3] = colours.astype(np.uint8).transpose(0, 2, 1)
        part[..., 3] = whole
    return pixels


def _premultiplied(samples: Bytes) -> Floats:
    made = np.empty(samples.shape, np.float32)
    for row in range(0, len(samples), _ROWS):
        rows = slice(row, row + _ROWS)
        made[rows] = samples[rows]
        made[rows, :3] *= made[rows, 3:] * np.float32(1 / 255)
    return made


def _in_8_bits(samples: Floats) -> Floats:
    """What is left of them in 8 bits, alpha not multiplied, which is how libvips hands a composite
    on to be resized: it drops fractions, here only true ones, or white over white would darken.
    Layers are laid over the undiminished samples, or losses would add up."""
    alpha = samples[:, 3:]
    scale = 255 / np.maximum(alpha, _ROUNDED)
    made = samples * scale
    made[:, 3:] = alpha
    made += _ROUNDED
    np.floor(made, out=made)
    made[:, :3] *= made[:, 3:] * np.float32(1 / 255)
    return made


def _paste(source: Planes, target: Planes) -> None:
    """Put what they share of `source` in place of what `target` holds."""
    left, top = max(source.left, target.left), max(source.top, target.top)
    right, bottom = min(source.right, target.right), min(source.bottom, target.bottom)
    if left < right and top < bottom:
        box = left, top, right, bottom
        target.part(*box)[...] = source.part(*box)


def _grown(planes: Planes, other: Planes) -> Planes:
    """A copy that has room for `other` as well."""
    filled = [each for each in (planes, other) if each.samples.size] or [planes]
    left, top = min(each.left for each in filled), min(each.top for each in filled)
    right, bottom = max(each.right for each in filled), max(each.bottom for each in filled)
    made = Planes(left, top, np.zeros((bottom - top, 4, right - left), np.float32))
    _paste(planes, made)
    return made


def _scale(canvas: tuple[int, int], fit: tuple[int, int], side: int) -> float:
    """As libvips' thumbnail has it: one for both sides, but no side shrinks to nothing."""
    return max(min(fit[0] / canvas[0], fit[1] / canvas[1]), 1 / side)
