"""Hostile files: each ends done and verified, refused with a readable reason, or failed; none
hangs, and the worker makes the next good picture."""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from pictures import PHOTOS, data_of, photo

import imagecore
from imagecore.errors import ItemFailed, UnreadableImage
from imagecore.recipe import PRESETS, recipe_from
from imagecore.sandbox import PictureWorker

JPEG = data_of(photo(), "JPEG")
PROGRESSIVE = data_of(photo(), "JPEG", progressive=True)
PNG = data_of(photo(), "PNG")
WEBP = data_of(photo(), "WEBP")
GIF = data_of(photo(), "GIF")
COFFEE = pyvips.Image.new_from_file(str(PHOTOS / "coffee.png"))
AVIF = COFFEE.heifsave_buffer(compression="av1", effort=0)
TIFF = data_of(photo(), "TIFF", compression="tiff_adobe_deflate")
LZW = data_of(photo(), "TIFF", compression="tiff_lzw")
PLAIN_TIFF = data_of(photo(), "TIFF")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int, data: bytes, kind: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", data)
        + _chunk(b"IEND", b"")
    )


def _cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def _flip(data: bytes, share: float) -> bytes:
    at = int(len(data) * share)
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def _hole(data: bytes, share: float) -> bytes:
    at = int(len(data) * share)
    return data[:at] + bytes(64) + data[at + 64 :]


def _huge_jpeg() -> bytes:
    at = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:at] + struct.pack(">HH", 65000, 65000) + JPEG[at + 4 :]


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.jpg", bytes(50_000_000))
    return file.getvalue()


def _tiff_with(tag: int, value: int) -> bytes:
    """The plain TIFF with one number of its directory replaced."""
    with tifffile.TiffFile(io.BytesIO(PLAIN_TIFF)) as tiff:
        at = tiff.pages[0].aspage().tags[tag].valueoffset
    return PLAIN_TIFF[:at] + struct.pack("<I", value) + PLAIN_TIFF[at + 4 :]


def _looping_tiff() -> bytes:
    """A TIFF whose directory names itself as the next."""
    with tifffile.TiffFile(io.BytesIO(PLAIN_TIFF)) as tiff:
        at = tiff.pages[0].aspage().offset
    next_at = at + 2 + 12 * int.from_bytes(PLAIN_TIFF[at : at + 2], "little")
    return PLAIN_TIFF[:next_at] + struct.pack("<I", at) + PLAIN_TIFF[next_at + 4 :]


def _inflating_tiff() -> bytes:
    """A deflate strip that holds a hundred times the pixels it should."""
    file = io.BytesIO()
    pixels = np.zeros((64, 64, 3), np.uint8)
    tifffile.imwrite(file, pixels, photometric="rgb", compression="adobe_deflate")
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as tiff:
        page = tiff.pages[0].aspage()
        offset, size = page.tags["StripOffsets"], page.tags["StripByteCounts"]
        data = bytearray(file.getvalue())
        bomb = zlib.compress(bytes(200_000_000))
        width = 2 if size.dtype == 3 else 4
        data[offset.valueoffset : offset.valueoffset + 4] = struct.pack("<I", len(data))
        data[size.valueoffset : size.valueoffset + width] = len(bomb).to_bytes(4, "little")[:width]
    return bytes(data) + bomb


def _animation(frames: int) -> bytes:
    one = photo(20, 20).convert("P")
    more = [one.point(lambda value, n=n: (value + n) % 256) for n in range(1, frames)]
    return data_of(one, "GIF", save_all=True, append_images=more)


SVG_READS_FILES = b"""<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><text>&x;</text></svg>"""

REFUSED: dict[str, bytes] = {
    "empty file": b"",
    "one byte": b"\xff",
    "text named jpg": b"this is a letter, not a picture\n" * 50,
    "html error page": b"<!DOCTYPE html><html><body>403</body></html>",
    "zeros": bytes(100_000),
    "random bytes": np.random.default_rng(0).bytes(10_000),
    "zip of zeros": _zip(),
    "gzipped jpeg": gzip.compress(JPEG),
    "python script": b"#!/usr/bin/env python\nimport os\n",
    "csv, which libvips would read": b"1,2,3\n4,5,6\n",
    "ppm, which libvips would read": b"P6 1 1 255\nabc",
    "libvips' own format": COFFEE.write_to_memory()[:10] + bytes(100),
    "svg with an entity": SVG_READS_FILES,
    "jpeg signature only": b"\xff\xd8\xff",
    "png signature only": PNG[:8],
    "tiff signature only": b"II*\0",
    "gif signature only": b"GIF89a",
    "jpeg cut at 2 %": _cut(JPEG, 0.02),
    "jpeg cut at half": _cut(JPEG, 0.5),
    "jpeg cut at 99 %": _cut(JPEG, 0.99),
    "jpeg without its end marker": JPEG[:-2],
    "progressive jpeg cut at half": _cut(PROGRESSIVE, 0.5),
    "png cut at half": _cut(PNG, 0.5),
    "png cut at 99 %": _cut(PNG, 0.99),
    "png with a flipped bit": _flip(PNG, 0.5),
    "png with a hole": _hole(PNG, 0.7),
    "webp cut at half": _cut(WEBP, 0.5),
    "webp cut at 99 %": _cut(WEBP, 0.99),
    "gif cut at half": _cut(GIF, 0.5),
    "avif cut at half": _cut(AVIF, 0.5),
    "avif cut at 99 %": _cut(AVIF, 0.99),
    "tiff cut at half": _cut(TIFF, 0.5),
    "lzw tiff cut at half": _cut(LZW, 0.5),
    "plain tiff cut at 99 %": _cut(PLAIN_TIFF, 0.99),
    "deflate tiff with a flipped bit": _flip(TIFF, 0.5),
    "deflate tiff with a hole": _hole(TIFF, 0.5),
    "jpeg that claims 65000 x 65000": _huge_jpeg(),
    "png that claims two billion pixels a side": _png(2**31 - 1, 2**31 - 1, b""),
    "png of 30000 x 30000 zeros cut": _png(30000, 30000, zlib.compress(bytes(10_000_000))),
    "png without pixels": _png(100, 100, zlib.compress(b"")),
    "png of no width": _png(0, 10, zlib.compress(b"\0" * 10)),
    "tiff that claims 2^31 wide": _tiff_with(256, 2**31),
    "tiff of no height": _tiff_with(257, 0),
    "tiff whose strip is outside": _tiff_with(273, 2**31),
    "deflate tiff that inflates a hundredfold": _inflating_tiff(),
}
COMMENT = b"\xff\xfe\xff\xff" + b"x" * 65533
EITHER: dict[str, bytes] = {
    "jpeg with a flipped bit": _flip(JPEG, 0.5),
    "jpeg with a hole": _hole(JPEG, 0.5),
    "progressive jpeg with a hole": _hole(PROGRESSIVE, 0.5),
    "webp with a hole": _hole(WEBP, 0.5),
    "gif with a hole": _hole(GIF, 0.5),
    "avif with a hole": _hole(AVIF, 0.6),
    "lzw tiff with a hole": _hole(LZW, 0.5),
    "tiff whose directories loop": _looping_tiff(),
    "png of 20000 x 20000 zeros": _png(20000, 20000, zlib.compress(bytes(20001 * 20000), 1), 0),
    "gif of 200 frames": _animation(200),
    "jpeg with two megabytes of comments": JPEG[:2]
    + (b"\xff\xfe\xff\xff" + b"x" * 65533) * 32
    + JPEG[2:],
}
RECIPE = recipe_from("legacy", {"max_width": 500, "max_height": 500})
LONGEST_S = 20


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    temp = tmp_path_factory.mktemp("worker")
    with PictureWorker(temp_dir=temp, timeout_s=LONGEST_S, memory_mb=1024, file_mb=500) as each:
        yield each


def _next_one_works(worker, tmp_path):
    made = worker.make_pyramid(PHOTOS / "chessboard_RGB.png", tmp_path / "good.tif", RECIPE)
    assert (made.width, made.height) == (200, 200)


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_a_reason_a_person_can_read(worker, tmp_path, case):
    source = tmp_path / "source.jpg"
    source.write_bytes(REFUSED[case])
    with pytest.raises(UnreadableImage) as caught:
        worker.make_pyramid(source, tmp_path / "t.tif", RECIPE)
    reason = str(caught.value)
    assert len(reason) > 15
    assert reason.isprintable()
    assert str(tmp_path) not in reason
    assert [each.name for each in tmp_path.iterdir()] == ["source.jpg"]
    _next_one_works(worker, tmp_path)


@pytest.mark.parametrize("case", EITHER)
def test_it_ends_verified_or_refused_in_time(worker, tmp_path, case):
    source = tmp_path / "source.jpg"
    source.write_bytes(EITHER[case])
    started = time.monotonic()
    try:
        size = worker.make_pyramid(source, tmp_path / "t.tif", RECIPE).bytes
    except (UnreadableImage, ItemFailed):
        size = None
    target = tmp_path / "t.tif"
    assert (target.stat().st_size if target.exists() else None) == size
    assert time.monotonic() - started < LONGEST_S + 2
    _next_one_works(worker, tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "pic[page=3].jpg",
        "pic.jpg[shrink=8]",
        "-rf.jpg",
        "a b\tc.jpg",
        "new\nline.jpg",
        "ünïcödé-图片-🎨.jpg",
        "%s%n%d.jpg",
        "$(touch x);`id`.jpg",
        "\\..\\up.jpg",
        "x" * 240 + ".jpg",
        os.fsdecode(b"latin-\xe9.jpg"),
    ],
    ids=lambda name: ascii(name)[:24],
)
def test_a_name_is_only_a_name(worker, tmp_path, name):
    source = tmp_path / name
    source.write_bytes(JPEG)
    info = worker.make_pyramid(source, tmp_path / f"{name[:200]}.tif", RECIPE)
    assert (info.source_width, info.source_height) == (600, 400)
    assert sorted(each.suffix for each in tmp_path.iterdir()) == [source.suffix, ".tif"]


@pytest.mark.parametrize("kind", ["folder", "missing", "device"])
def test_what_is_no_file_fails_the_item_alone(worker, tmp_path, kind):
    source = {"folder": tmp_path, "missing": tmp_path / "no", "device": "/dev/null"}[kind]
    with pytest.raises((ItemFailed, UnreadableImage)):
        worker.make_pyramid(source, tmp_path / "t.tif", RECIPE)
    _next_one_works(worker, tmp_path)


def test_the_pixel_limit_holds_before_anything_is_decoded(worker, tmp_path):
    source = tmp_path / "source.png"
    source.write_bytes(EITHER["png of 20000 x 20000 zeros"][:100])  # who decodes it calls it cut
    with pytest.raises(UnreadableImage, match="20000 x 20000 is more than the 1000000 pixels"):
        worker.make_pyramid(
            source, tmp_path / "t.tif", recipe_from("iiif", {"max_pixels": 1_000_000})
        )


def test_only_allowed_readers_are_open(worker, tmp_path):
    source = tmp_path / "s.png"
    source.write_bytes(PNG)
    with pytest.raises(UnreadableImage, match="png pictures are not among the loaders"):
        worker.make_pyramid(source, tmp_path / "t.tif", recipe_from("iiif", {"loaders": ["jpeg"]}))
    worker.make_pyramid(source, tmp_path / "t.tif", PRESETS["iiif"])


def test_libvips_itself_refuses_every_other_reader(tmp_path):
    (tmp_path / "s.png").write_bytes(PNG)
    (tmp_path / "s.jpg").write_bytes(JPEG)
    code = (
        "import pyvips; from imagecore.picture import allow_only; allow_only(('png',))\n"
        "print(pyvips.Image.pngload('s.png').width)\n"
        "for load in ('jpegload', 'csvload', 'svgload', 'tiffload', 'vipsload'):\n"
        "    try: getattr(pyvips.Image, load)('s.jpg')\n"
        "    except pyvips.Error as error: print('blocked' if 'blocked' in str(error) else error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(imagecore.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["600"] + ["blocked"] * 5
