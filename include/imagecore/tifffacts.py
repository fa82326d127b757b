"""What one page of a TIFF says of itself, in words."""

from __future__ import annotations

import struct
from typing import Any

from imagecore.errors import UnreadableImage
from imagecore.text import printable
from imagecore.tiffdirectory import Directory

COMPRESSIONS = {
    1: "none",
    5: "lzw",
    7: "jpeg",
    8: "deflate",
    32773: "packbits",
    32946: "deflate",
    50000: "zstd",
    50001: "webp",
}
"""Those in which a tile stands alone, with what its directory says."""
MAX_BANDS = 32

_PHOTOMETRICS = {
    0: "grey, white is zero",
    1: "grey",
    2: "RGB",
    3: "palette",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELab",
}
_SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "float", 5: "complex", 6: "complex"}
_PER_INCH = {2: 1.0, 3: 2.54}
_ALPHAS = {1, 2}
_SHOWN_TEXT = 500
_PROFILE_TAGS = 100


def page_facts(page: Directory) -> dict[str, Any]:
    """As JSON can hold it; `dpi` is dots per inch across and down. What it does not say is None.

    Raises:
        UnreadableImage: it is damaged.
    """
    bits = bits_of(page)
    return {
        "compression": _name(COMPRESSIONS, page.number(259, 1)),
        "photometric": _name(_PHOTOMETRICS, page.number(262, -1)),
        "bands": page.number(277, 1),
        "bits": bits[0] if len(set(bits)) == 1 else list(bits),
        "sample_format": _name(_SAMPLE_FORMATS, page.number(339, 1)),
        "alpha": bool(_ALPHAS & set(_few(page, 338))),
        "orientation": page.number(274, 1),
        "dpi": _dpi(page),
        "profile": _profile(page),
        "software": _shown(page.text(305)),
        "datetime": _shown(page.text(306)),
        "description": _shown(page.text(270)),
    }


def bits_of(page: Directory) -> tuple[int, ...]:
    """Bits of a sample, for each band that says so."""
    return _few(page, 258) or (1,)


def _few(page: Directory, tag: int) -> tuple[int, ...]:
    field = page.fields.get(tag)
    return page.numbers(tag, 0, min(field.count, MAX_BANDS)) if field else ()


def _name(names: dict[int, str], number: int) -> str:
    return names.get(number, f"number {number}")


def _dpi(page: Directory) -> list[float] | None:
    scale = _PER_INCH.get(page.number(296, 2))
    across, down = page.ratio(282), page.ratio(283)
    if scale is None or across is None or down is None:
        return None
    return [round(across * scale, 2), round(down * scale, 2)]


def _profile(page: Directory) -> str | None:
    field = page.fields.get(34675)
    if field is None:
        return None
    try:
        name = _profile_name(page.raw(34675))
    except (UnreadableImage, struct.error):
        name = None
    return _shown(name) or f"{field.bytes} bytes without a name"


def _profile_name(profile: bytes) -> str | None:
    """The name of an ICC profile, of version 2 or 4."""
    (count,) = struct.unpack_from(">I", profile, 128)
    for number in range(min(count, _PROFILE_TAGS)):
        name, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * number)
        data = profile[offset : offset + size] if name == b"desc" else b""
        if data[:4] == b"desc":
            (length,) = struct.unpack_from(">I", data, 8)
            return data[12 : 12 + length].partition(b"\0")[0].decode(errors="replace")
        if data[:4] == b"mluc":
            length, start = struct.unpack_from(">II", data, 20)
            return data[start : start + length].decode("utf-16-be", errors="replace")
    return None


def _shown(text: str | None) -> str | None:
    return None if text is None else printable(text, _SHOWN_TEXT)
