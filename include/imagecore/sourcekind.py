"""What a file really is, by its first bytes, and the damage libvips' own readers let through."""

from __future__ import annotations

import mimetypes
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from imagecore.errors import UnreadableImage
from imagecore.layout import TIFF_FAULTS

if TYPE_CHECKING:
    import tifffile

# What to do with the kinds nobody here can read.
_ADVICE = {
    "heic": "HEIC pictures (HEVC) have no decoder here; convert it to JPEG, PNG or TIFF",
    "pdf": "PDF documents are not pictures; export the page as TIFF or PNG",
    "eps": "EPS and PostScript are programs, not pictures; export it as TIFF or PNG",
    "bmp": "BMP pictures are not read; convert it to PNG",
    "jp2": "JPEG 2000 pictures are not read; convert it to TIFF",
    "jxl": "JPEG XL pictures are not read; convert it to PNG",
    "psd": "Photoshop documents are not read; save it as TIFF",
    "raw": "camera raw holds only a preview that could be read; develop it to TIFF",
    "svg": "SVG drawings are read only when the recipe's loaders name svg",
}
_MEDIA_TYPES = {
    "pdf": "application/pdf",
    "eps": "application/postscript",
    "svg": "image/svg+xml",
    "psd": "image/vnd.adobe.photoshop",
    "raw": "image/x-canon-cr2",
}
_DEFLATE = (8, 32946)
_CHUNK = 1 << 20


def sniff(path: Path) -> str:
    """The kind of picture a file holds, by its content alone; never by its name.

    Raises:
        UnreadableImage: the file is empty or of no known kind.
    """
    with path.open("rb") as file:
        head = file.read(1024)
    if not head:
        raise UnreadableImage("the file is empty")
    kind = kind_of(head)
    if kind is None:
        raise UnreadableImage("this is not a picture of any known kind")
    return kind


def kind_of(head: bytes) -> str | None:
    """The kind of picture that begins with these bytes (1,024 are enough); None: it is none."""
    return _by_magic(head) or _by_brand(head) or _by_text(head)


def content_type(head: bytes, name: str) -> str:
    """The media type of a file that begins with `head`: by its content where that is a picture,
    by its name's extension where not; and no file is called a picture by its name alone."""
    kind = kind_of(head)
    if kind is not None:
        return _MEDIA_TYPES.get(kind, f"image/{kind}")
    guess = mimetypes.guess_type(name)[0] or ""
    return guess if guess and not guess.startswith("image/") else "application/octet-stream"


def refuse_kind(kind: str, loaders: tuple[str, ...]) -> None:
    """Raise UnreadableImage, saying what to do instead, unless `loaders` names the kind."""
    if kind not in loaders:
        advice = _ADVICE.get(kind, f"{kind} pictures are not among the loaders of this recipe")
        raise UnreadableImage(advice)


def _by_magic(head: bytes) -> str | None:
    magics = {
        b"\xff\xd8\xff": "jpeg",
        b"\x89PNG\r\n\x1a\n": "png",
        b"GIF87a": "gif",
        b"GIF89a": "gif",
        b"BM": "bmp",
        b"%PDF": "pdf",
        b"%!PS": "eps",
        b"\xc5\xd0\xd3\xc6": "eps",
        b"\x00\x00\x00\x0cjP  ": "jp2",
        b"\xff\x4f\xff\x51": "jp2",
        b"\x00\x00\x00\x0cJXL ": "jxl",
        b"\xff\x0a": "jxl",
        b"8BPS": "psd",
    }
    for magic, kind in magics.items():
        if head.startswith(magic):
            return kind
    if head[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}:
        return "raw" if head[8:10] == b"CR" else "tiff"
    return "webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def _by_brand(head: bytes) -> str | None:
    if head[4:8] != b"ftyp":
        return None
    brands = {head[8:12]} | {head[at : at + 4] for at in range(16, head[3] + 1, 4)}
    if brands & {b"avif", b"avis"}:
        return "avif"
    return "heic" if brands & {b"heic", b"heix", b"hevc", b"mif1", b"msf1"} else None


def _by_text(head: bytes) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<?xml", b"<svg", b"<!doctype svg", b"<!--")) and b"<svg" in text:
        return "svg"
    return None


def check_tiff_source(path: Path, max_bytes: int) -> int:
    """Refuse a TIFF whose first page is a preview or whose deflate data fail their checksum.

    libtiff stops inflating at the last pixel and never sees the Adler-32 behind it, so damage
    that still inflates would pass as other pixels. `max_bytes` bounds what a strip may inflate
    to. Returns the number of full-size pages (at most 1000 are counted).

    Raises:
        UnreadableImage: damaged, or a camera's raw file in TIFF's clothes.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            first = tiff.pages[0]
            assert isinstance(first, tifffile.TiffPage)
            if "DNGVersion" in first.tags or first.is_reduced:
                raise UnreadableImage(_ADVICE["raw"])
            if first.compression in _DEFLATE:
                _inflate_all(tiff.filehandle, first, max_bytes)
            return _full_size_pages(tiff)
    except TIFF_FAULTS as bad:
        raise UnreadableImage(f"the TIFF's directory is damaged: {bad}") from bad


def _full_size_pages(tiff: tifffile.TiffFile) -> int:
    count = 0
    for number, page in enumerate(tiff.pages):
        if number == 1000:
            break
        count += not page.aspage().is_reduced
    return max(count, 1)


def _inflate_all(file: BinaryIO, page: tifffile.TiffPage, max_bytes: int) -> None:
    for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(offset)
        try:
            _inflate(file, size, max_bytes)
        except zlib.error as bad:
            raise UnreadableImage(f"compressed data of the TIFF are damaged: {bad}") from bad


def _inflate(file: BinaryIO, size: int, max_bytes: int) -> None:
    stream, left, made = zlib.decompressobj(), size, 0
    while left > 0 and not stream.eof:
        data = file.read(min(left, _CHUNK))
        if not data:
            raise UnreadableImage("the TIFF ends before its last strip")
        left -= len(data)
        while data and not stream.eof:
            made += len(stream.decompress(data, _CHUNK))
            data = stream.unconsumed_tail
            if made > max_bytes:
                raise UnreadableImage("a strip of the TIFF inflates to more than its pixels")
    if size and not stream.eof:
        raise UnreadableImage("compressed data of the TIFF end too early")
