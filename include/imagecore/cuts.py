"""The cuts of a composite: trimmed, one end dropped, and centred on a transparent ground.

Their geometry is that of the ImageMagick commands of the legacy, to the pixel:

    trim     -trim +repage -resize WxH -gravity center -background transparent -extent WxH
    top      -trim +repage -gravity south -chop 0xD% -resize Wx -gravity center -extent WxH
    bottom   -trim +repage -gravity north -chop 0xD% -resize Wx -gravity center -extent WxH
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from imagecore.overs import Bytes, Planes, straight
from imagecore.renderstyle import Cut
from imagecore.weights import Floats, mitchell_weights

_TRACE = 3
"""Alpha that Lanczos gives to pixels two beside an opaque edge; ImageMagick's filter does not."""


def cuts_of(composite: Bytes, cuts: Sequence[Cut]) -> list[Bytes]:
    """The pixels of `trim`, `top` and `bottom` cuts, each height x width x RGBA of 8 bits.

    Nothing is left by trimming a composite that is all of one colour, or transparent: its cuts
    are transparent.

    Raises:
        ValueError: there is no cut of that kind.
    """
    if not cuts:
        return []
    left, top, right, bottom = trim_box(composite)
    shown = _premultiplied(composite[top:bottom, left:right]).astype(np.float32)
    return [_cut(shown, each) for each in cuts]


def trim_box(pixels: Bytes) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is left when the border is cut off, the last two one
    past it; all 0 when nothing is.

    The border is what has the colour of the corner beside it: the top left one for the left and
    upper side, the top right one for the right side, the bottom left one for the lower side.
    Transparent pixels are all alike, and what Lanczos leaves beside a hard edge counts as such.
    """
    whole = np.ascontiguousarray(pixels).view("<u4")[..., 0]
    whole = whole * (whole > (_TRACE << 24 | 0xFFFFFF))
    first, right, lower = whole[0, 0], whole[0, -1], whole[-1, 0]
    inside = whole != first
    rows, columns = _used(inside, 1), _used(inside, 0)
    last = columns if right == first else _used(whole != right, 0)
    lowest = rows if lower == first else _used(whole != lower, 1)
    if not (rows.size and last.size and lowest.size):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(last[-1]) + 1, int(lowest[-1]) + 1


def _used(inside: np.ndarray, axis: int) -> np.ndarray:
    return np.flatnonzero(inside.any(axis=axis))


def _cut(shown: Floats, cut: Cut) -> Bytes:
    high, wide = shown.shape[:2]
    if cut.kind not in {"trim", "top", "bottom"}:
        raise ValueError(f"there is no cut of the kind {cut.kind!r}: choose trim, top or bottom")
    if not shown.size:
        return np.zeros((cut.height, cut.width, 4), np.uint8)
    if cut.kind == "trim":
        return _centred(shown, *_fitted(wide, high, cut), cut)
    kept = max(1, high - _half_up(high * cut.drop, 100))
    shown = shown[high - kept :] if cut.kind == "bottom" else shown[:kept]
    return _centred(shown, cut.width, max(1, _half_up(kept * cut.width, wide)), cut)


def _fitted(wide: int, high: int, cut: Cut) -> tuple[int, int]:
    """The size that fits inside the cut, larger or smaller, with the same shape."""
    if wide * cut.height >= high * cut.width:
        return cut.width, max(1, _half_up(high * cut.width, wide))
    return max(1, _half_up(wide * cut.height, high)), cut.height


def _half_up(dividend: int, divisor: int) -> int:
    """The quotient rounded, halves up.

    >>> _half_up(50 * 33, 100)
    17
    """
    return (2 * dividend + divisor) // (2 * divisor)


def _centred(shown: Floats, wide: int, high: int, cut: Cut) -> Bytes:
    """Resized to `wide` x `high` pixels, in the middle of a transparent cut or cut by it.

    By the filter ImageMagick takes for pictures with alpha.
    """
    rows, columns = shown.shape[:2]
    # Halves are rounded as ImageMagick does: each length for itself.
    left, top = cut.width // 2 - wide // 2, cut.height // 2 - high // 2
    across = mitchell_weights(columns, wide, max(0, -left), min(wide, cut.width - left))
    down = mitchell_weights(rows, high, max(0, -top), min(high, cut.height - top))
    _, fewer = down.rows(0, shown.reshape(rows, -1))
    lines = fewer.reshape(down.size, columns, 4).transpose(0, 2, 1).reshape(-1, columns)
    _, small = across.columns(0, lines)
    planes = Planes(max(0, left), max(0, top), small.reshape(down.size, 4, across.size))
    return straight(planes, cut.width, cut.height)


def _premultiplied(pixels: Bytes) -> Bytes:
    """Colours times alpha, where that makes a difference: composites are mostly opaque or empty."""
    made = np.array(pixels).reshape(-1, 4)
    whole = made.view("<u4")[:, 0]
    soft = np.flatnonzero((whole > 0) & (whole < 0xFF << 24))
    few = made[soft].astype(np.uint16)
    product = few[:, :3] * few[:, 3:] + np.uint16(128)
    made[soft, :3] = (product + (product >> 8)) >> 8  # divided by 255, rounded
    return made.reshape(pixels.shape)
