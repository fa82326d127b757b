"""Files of finished composites: encoded, and checked with other readers than wrote them."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from imagecore.ladder_check import check_jpeg, check_png
from imagecore.layout import VerificationFailed
from imagecore.overs import Bytes
from imagecore.renderstyle import Format

_INCH_MM, _INCH_M = 25.4, 0.0254
_UP = 2
_RGBA_8_BITS = b"\x08\x06\0\0\0"
_LEVEL = 2
"""Of libdeflate. On drawn cloth 2 was faster than 1 and gave 2 % less; 6 takes thrice as long."""
_CELL = 16
_SAME = 99.0
_EFFORT = 2


def encoded(pixels: Bytes, format: Format, ppi: int) -> tuple[bytes, Bytes]:
    """A file's bytes for height x width x RGBA, and the pixels that are meant to be in it: of a
    jpeg, red, green and blue on the format's background.

    Raises:
        pyvips.Error: it cannot be encoded.
        ValueError: there is no such format.
    """
    if format.name == "png":
        return _png(pixels, ppi), pixels
    import pyvips

    image = pyvips.Image.new_from_array(pixels, interpretation="srgb")
    image = image.copy(xres=ppi / _INCH_MM, yres=ppi / _INCH_MM)
    quality = {"Q": format.quality} if format.quality else {"lossless": True}
    if format.name == "webp":
        return image.webpsave_buffer(**quality, effort=_EFFORT, exact=True, keep="none"), pixels
    if format.name == "avif":
        options = {**quality, "compression": "av1", "effort": _EFFORT}
        return image.heifsave_buffer(**options, keep="none"), pixels
    if format.name == "jpeg":
        flat = image.flatten(background=list(format.background)).copy_memory()
        options = {"Q": format.quality, "interlace": True, "subsample_mode": "on"}
        return flat.jpegsave_buffer(**options, keep="none"), flat.numpy()
    raise ValueError(f"there is no format {format.name!r}: choose png, webp, avif or jpeg")


def _png(pixels: Bytes, ppi: int) -> bytes:
    """By libdeflate, which is nearly twice as fast as libvips' writer for files of the same size.
    Each line is stored as its difference from the one above."""
    import imagecodecs

    high, wide = pixels.shape[:2]
    lines = np.ascontiguousarray(pixels).reshape(high, -1)
    buffer = bytearray(high * (1 + lines.shape[1]))
    stored = np.frombuffer(buffer, np.uint8).reshape(high, -1)
    stored[:, 0] = _UP
    stored[0, 1:] = lines[0]
    np.subtract(lines[1:], lines[:-1], out=stored[1:, 1:])
    per_metre = round(ppi / _INCH_M)
    chunks = (
        (b"IHDR", struct.pack(">II", wide, high) + _RGBA_8_BITS),
        (b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1)),
        (b"IDAT", imagecodecs.deflate_encode(buffer, level=_LEVEL)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def check_picture(data: bytes, meant: Bytes, format: Format) -> None:
    """Compare a file's bytes with the pixels meant to be in it.

    Every pixel must be the same where the format loses nothing; else no cell of 16 x 16 pixels
    may differ by more than the quality explains.

    Raises:
        VerificationFailed: with the first thing found wrong.
    """
    if format.name == "png":
        check_png(data, meant, None)
    elif format.name == "jpeg":
        assert format.quality is not None
        check_jpeg(data, meant, format.quality, None)
    else:
        _compare(_decoded(data, format.name), meant, format.quality)


def psnr(found: Bytes, right: Bytes) -> float:
    """How alike two pictures with alpha are, in dB, over the pixels that are seen in either;
    colours count as much as they are opaque. 99 dB at most, which is no difference."""
    seen = (found[..., 3] > 0) | (right[..., 3] > 0)
    difference = premultiplied(found[seen]) - premultiplied(right[seen])
    error = float(np.mean(difference**2)) if difference.size else 0.0
    return min(_SAME, float(10 * np.log10(255**2 / error))) if error else _SAME


def premultiplied(pixels: Bytes) -> np.ndarray:
    """Colours times alpha, 0 to 255, as float32."""
    made = pixels.astype(np.float32)
    made[..., :3] *= made[..., 3:] / 255
    return made


def _decoded(data: bytes, name: str) -> Bytes:
    import imagecodecs

    try:
        avif = name == "avif"
        found: Bytes = imagecodecs.avif_decode(data) if avif else imagecodecs.webp_decode(data)
    except (RuntimeError, ValueError, LookupError) as fault:
        raise VerificationFailed(f"the result cannot be read back: {fault}") from fault
    if found.ndim == 3 and found.shape[2] == 3:  # written without alpha where all is opaque
        found = np.dstack([found, np.full(found.shape[:2], 255, np.uint8)])
    return found


def _compare(found: Bytes, meant: Bytes, quality: int | None) -> None:
    if found.shape != meant.shape:
        raise VerificationFailed(f"the result is {found.shape}, should be {meant.shape}")
    if quality is None:
        if not np.array_equal(found, meant):
            raise VerificationFailed("the result has other pixels than were meant")
        return
    apart = premultiplied(found) - premultiplied(meant)
    rows, columns = (np.arange(0, side, _CELL) for side in apart.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(apart, rows, axis=0), columns, axis=1)
    high, wide = (
        np.minimum(_CELL, side - starts)
        for side, starts in ((found.shape[0], rows), (found.shape[1], columns))
    )
    means = np.abs(sums).max(axis=2) / np.outer(high, wide)
    if means.max() > _allowed(quality):
        row, column = np.unravel_index(int(means.argmax()), means.shape)
        raise VerificationFailed(
            f"colours differ by {means[row, column]:.1f} in the {_CELL} pixels "
            f"at {column * _CELL}, {row * _CELL}"
        )


def _allowed(quality: int) -> float:
    return 12 + (100 - quality) / 2
