"""Check a picture of a ladder with other readers than those of the library that wrote it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from imagecore.layout import VerificationFailed
from imagecore.tilemeans import cell_sides

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

_CELL = 64
_FAULTS = (RuntimeError, ValueError, LookupError, struct.error, zlib.error)
_PROGRESSIVE, _SCAN, _TABLES = 0xC2, 0xDA, 0xDB
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APP0, _APP2, _COMMENT = 0xE0, 0xE2, 0xFE
_APPS = range(_APP0, 0xF0)
_HALVED = [0x22, 0x11, 0x11]
"""Samples of each component across and down: four of brightness to one of each colour."""
_ICC = b"ICC_PROFILE\0"
_CHUNKS = {b"IHDR", b"iCCP", b"pHYs", b"IDAT", b"IEND"}
# ITU-R BT.601, as JPEG defines it.
_RGB_TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)
# How far black and white, which cut off what overshoots them, were seen to move a cell's mean: 3.3.
_CLIPPED = 5.0
# Of the conversion and both transforms.
_ROUNDED = 1.5


def check_jpeg(data: bytes, meant: Pixels, quality: int, profile: bytes | None) -> None:
    """Compare a JPEG file with the red, green and blue it was made of, height × width × 3.

    It must be progressive, of that quality and size, its colour stored at half size, without
    metadata but `profile`; each cell of 64 × 64 pixels may differ by what the quality explains.

    Raises:
        VerificationFailed: with the first thing found wrong.
    """
    import imagecodecs

    try:
        _check_segments(data, meant, quality, profile)
        # As stored: turned into red, green and blue, clipped colours would count as faults.
        found = imagecodecs.jpeg8_decode(data, outcolorspace="YCBCR")
    except _FAULTS as fault:
        raise VerificationFailed(f"the result cannot be read back: {fault}") from fault
    if found.shape != meant.shape:
        raise VerificationFailed(f"the result is {found.shape}, should be {meant.shape}")
    _compare_cells(found, meant, _tables(quality))


def check_png(data: bytes, meant: Pixels, profile: bytes | None) -> None:
    """Compare a PNG file with the pixels it was made of: every one must be the same.

    Raises:
        VerificationFailed: with the first thing found wrong.
    """
    import imagecodecs

    try:
        chunks = list(_chunks(data))
        found = imagecodecs.png_decode(data)
        stored = next((_inflated(body) for kind, body in chunks if kind == b"iCCP"), None)
    except _FAULTS as fault:
        raise VerificationFailed(f"the result cannot be read back: {fault}") from fault
    foreign = sorted({kind for kind, _ in chunks} - _CHUNKS)
    if foreign:
        raise VerificationFailed(f"the result carries {foreign[0].decode('latin-1')} metadata")
    if stored != profile:
        raise VerificationFailed("the ICC profile differs")
    if found.dtype != meant.dtype or not np.array_equal(found, meant):
        raise VerificationFailed("the result has other pixels than were meant")


def _check_segments(data: bytes, meant: Pixels, quality: int, profile: bytes | None) -> None:
    segments = list(_segments(data))
    if not data.endswith(b"\xff\xd9"):
        raise VerificationFailed("the JPEG has no end")
    frames = [(marker, body) for marker, body in segments if marker in _FRAMES]
    if [marker for marker, _ in frames] != [_PROGRESSIVE]:
        raise VerificationFailed("the JPEG is not progressive")
    size = struct.unpack(">HH", frames[0][1][1:5])
    if size != meant.shape[:2]:
        raise VerificationFailed(f"the JPEG is {size[1]} x {size[0]}: {meant.shape} was meant")
    if list(frames[0][1][7::3]) != _HALVED:
        raise VerificationFailed("the JPEG's colour is not stored at half size")
    if _tables_in(segments) != _tables(quality):
        raise VerificationFailed(f"the JPEG is not of quality {quality}")
    for marker, body in segments:
        icc = marker == _APP2 and body.startswith(_ICC)
        if marker == _COMMENT or (marker in _APPS and marker != _APP0 and not icc):
            raise VerificationFailed(f"the JPEG carries metadata (marker {marker:02x})")
    if (_profile_in(segments) or None) != profile:
        raise VerificationFailed("the ICC profile differs")


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers and bodies up to the first scan."""
    at = 2
    while True:
        sync, marker, length = struct.unpack_from(">BBH", data, at)
        if sync != 0xFF:
            raise ValueError(f"no marker at {at}")
        yield marker, data[at + 4 : at + 2 + length]
        if marker == _SCAN:
            return
        at += 2 + length


def _tables_in(segments: list[tuple[int, bytes]]) -> dict[int, bytes]:
    tables = {}
    body = b"".join(body for marker, body in segments if marker == _TABLES)
    for at in range(0, len(body), 65):
        tables[body[at]] = body[at + 1 : at + 65]
    return tables


def _profile_in(segments: list[tuple[int, bytes]]) -> bytes:
    """The profile's pieces in the order of their numbers."""
    found = [body[len(_ICC) :] for marker, body in segments if marker == _APP2]
    return b"".join(piece[2:] for piece in sorted(found, key=lambda piece: piece[0]))


@cache
def _tables(quality: int) -> dict[int, bytes]:
    """The quantisers of a quality, as another encoder writes them."""
    import imagecodecs

    sample = imagecodecs.jpeg8_encode(np.zeros((16, 16, 3), np.uint8), level=quality)
    return _tables_in(list(_segments(bytes(sample))))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += length + 12
    if at != len(data):
        raise ValueError(f"{len(data)} bytes where {at} belong")


def _inflated(body: bytes) -> bytes:
    return zlib.decompress(body.partition(b"\0")[2][1:])


def _compare_cells(found: Pixels, meant: Pixels, tables: dict[int, bytes]) -> None:
    height, width = meant.shape[:2]
    sides = cell_sides(width, height, _CELL)
    real = (sides[0] * sides[1])[..., 0]
    means, squares = _differences(found, meant)
    means /= real[..., None]
    noise = np.sqrt(squares / real)
    luma = _noise(tables[0], sides, 8)
    # Of a whole block only the first coefficient, eight times the mean, moves the mean.
    whole = ((sides[0] % 8 == 0) & (sides[1] % 8 == 0))[..., 0]
    _refuse(noise, luma, "brightness")
    _refuse(np.abs(means[..., 0]), np.where(whole, tables[0][0] / 16 + _CLIPPED, luma), "light")
    _refuse(np.abs(means[..., 1:]).max(-1), _colour_allowed(tables[1], sides), "colour")


def _noise(table: bytes, sides: tuple[Floats, Floats], block: int) -> Floats:
    """The most a cell can differ, root mean square: each coefficient of each block it touches
    by half a quantiser step, all of it in the visible part."""
    down, across = sides
    touched = np.ceil(down / block) * np.ceil(across / block) * block**2
    steps = np.frombuffer(table, np.uint8).astype(np.float64)
    energy = np.mean(steps**2) / 4
    return (np.sqrt(energy * touched / (down * across)) + _ROUNDED)[..., 0]


def _colour_allowed(table: bytes, sides: tuple[Floats, Floats]) -> Floats:
    """Colour is stored at half size and spread again: a quarter of each outermost row and column
    comes from the neighbour."""
    down, across = sides
    whole = ((down % 16 == 0) & (across % 16 == 0))[..., 0]
    spread = (128 / down + 128 / across)[..., 0]
    return spread + np.where(whole, table[0] / 16 + _CLIPPED, _noise(table, sides, 16))


def _differences(found: Pixels, meant: Pixels) -> tuple[Floats, Floats]:
    """Sums of differences in each cell, by band, and of squared ones in brightness."""
    height, width = meant.shape[:2]
    starts = np.arange(0, width, _CELL)
    sums, squares = [], []
    for top in range(0, height, _CELL):
        strip = meant[top : top + _CELL].astype(np.float32) @ _RGB_TO_YCC.T
        strip[..., 1:] += 128
        strip -= found[top : top + _CELL]
        sums.append(np.add.reduceat(strip.sum(0), starts, dtype=np.float64))
        light = strip[..., 0]
        squares.append(np.add.reduceat((light * light).sum(0), starts, dtype=np.float64))
    return np.stack(sums), np.stack(squares)


def _refuse(found: Floats, allowed: Floats, what: str) -> None:
    over = found - allowed
    if over.max() > 0:
        row, column = np.unravel_index(int(over.argmax()), over.shape)
        raise VerificationFailed(
            f"{what} differs by {found[row, column]:.1f} in the {_CELL} pixels "
            f"at {column * _CELL}, {row * _CELL}"
        )
