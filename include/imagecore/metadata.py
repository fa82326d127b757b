"""Metadata that libvips would spoil on its way into a TIFF."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyvips

_IPTC = "iptc-data"
_PHOTOSHOP = b"Photoshop 3.0\0"
_IPTC_RESOURCE = 0x0404


def mend_iptc(image: pyvips.Image) -> pyvips.Image:
    """The picture with IPTC data that reach the TIFF whole, or with none.

    libvips 8.18 writes only the first quarter of them (it counts in 32-bit words what libtiff
    counts in bytes), and of a JPEG it takes the whole Photoshop segment for IPTC.
    """
    import pyvips

    if image.get_typeof(_IPTC) == 0:
        return image
    data = bytes(image.get(_IPTC))
    iptc = _from_photoshop(data) if data.startswith(_PHOTOSHOP) else data
    copy = image.copy()
    copy.remove(_IPTC)
    if iptc:
        whole = iptc + bytes(-len(iptc) % 4)
        copy.set_type(pyvips.GValue.blob_type, _IPTC, whole + bytes(3 * len(whole)))
    return copy


def _from_photoshop(data: bytes) -> bytes:
    """The IPTC block among Photoshop's resources: 8BIM, number, padded name, size, padded data."""
    at = len(_PHOTOSHOP)
    while data[at : at + 4] == b"8BIM" and at + 12 <= len(data):
        number = int.from_bytes(data[at + 4 : at + 6], "big")
        start = at + 6 + (data[at + 6] + 2 & ~1)
        size = int.from_bytes(data[start : start + 4], "big")
        if number == _IPTC_RESOURCE:
            return data[start + 4 : start + 4 + size]
        at = start + 4 + size + size % 2
    return b""
