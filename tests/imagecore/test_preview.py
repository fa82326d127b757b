"""A picture in small: every kind that is read, upright, in sRGB, without metadata; a damaged one as
far as it goes; and nothing that is too large to look at."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from numpy.typing import NDArray
from pictures import data_of, photo, quarters
from PIL import Image, ImageCms

from imagecore import preview
from imagecore.errors import DiskFull, UnreadableImage
from imagecore.preview import Preview, make_preview
from imagecore.sandbox import PictureWorker

PHOTO = photo()
SMALL = PHOTO.resize((200, 133), Image.Resampling.LANCZOS)
COFFEE = pyvips.Image.new_from_array(np.asarray(PHOTO)).copy(interpretation="srgb")


def shown(folder: Path, data: bytes, side: int = 200) -> tuple[Preview, Image.Image]:
    """The preview of a picture whose name says nothing, and what is in it."""
    (folder / "picture[page=9]").write_bytes(data)
    made = make_preview(folder / "picture[page=9]", folder / "preview", side)
    image = Image.open(folder / "preview")
    image.load()
    assert image.get_format_mimetype() == made.media_type
    assert image.size == (made.width, made.height)
    return made, image


def far(image: Image.Image, wanted: Image.Image = SMALL, by: int = 4) -> float:
    """Mean difference of the samples, after both are made smaller: JPEG moves single pixels."""
    one, other = (
        np.asarray(each.convert("RGB").reduce(by)).astype(int) for each in (image, wanted)
    )
    return float(abs(one - other).mean())


def tiff(pixels: NDArray[np.generic], **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def pyramid() -> bytes:
    data: bytes = COFFEE.tiffsave_buffer(tile=True, pyramid=True, tile_width=128, tile_height=128)
    return data


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(data_of(PHOTO, "JPEG", quality=95), id="jpeg"),
        pytest.param(data_of(PHOTO, "JPEG", quality=95, progressive=True), id="progressive"),
        pytest.param(data_of(PHOTO, "PNG"), id="png"),
        pytest.param(data_of(PHOTO, "TIFF", compression="tiff_lzw"), id="tiff"),
        pytest.param(data_of(PHOTO, "WEBP", quality=95), id="webp"),
        pytest.param(data_of(PHOTO, "GIF"), id="gif"),
        pytest.param(COFFEE.heifsave_buffer(compression="av1", effort=0, Q=90), id="avif"),
        pytest.param(pyramid(), id="pyramid"),
        pytest.param(tiff(np.asarray(PHOTO).astype("u2") * 257, photometric="rgb"), id="16 bits"),
    ],
)
def test_each_kind_is_shown_by_its_content(data, tmp_path):
    made, image = shown(tmp_path, data)
    assert made == Preview("image/jpeg", 200, 133)
    assert image.mode == "RGB"
    assert far(image) < 4


def test_cmyk_is_shown_in_srgb(tmp_path):
    inks = COFFEE.icc_transform("cmyk", embedded=False, input_profile="srgb")
    for data in (inks.jpegsave_buffer(Q=95), inks.jpegsave_buffer(Q=95, keep="none")):
        made, image = shown(tmp_path, data)
        assert (made.media_type, image.mode) == ("image/jpeg", "RGB")
        assert far(image) < 12


def test_another_profile_is_converted_and_not_kept(tmp_path):
    wide = COFFEE.icc_transform("p3", embedded=False, input_profile="srgb")
    data = wide.pngsave_buffer()
    assert b"iCCP" in data
    assert far(Image.open(io.BytesIO(data)).resize((200, 133))) > 4
    _, image = shown(tmp_path, data)
    assert far(image) < 2


def test_transparency_gives_a_png(tmp_path):
    alpha = Image.linear_gradient("L").resize(PHOTO.size)
    picture = PHOTO.copy()
    picture.putalpha(alpha)
    made, image = shown(tmp_path, data_of(picture, "PNG"))
    assert (made.media_type, image.mode) == ("image/png", "RGBA")
    assert abs(np.asarray(image)[..., 3].mean() - 127.5) < 2
    grey = tiff(np.full((50, 60, 2), 40000, "u2"), photometric="minisblack", extrasamples=[2])
    made, image = shown(tmp_path, grey)
    assert (made.media_type, image.mode) == ("image/png", "RGBA")
    assert image.getpixel((9, 9))[3] == 40000 // 257


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_upright(orientation, tmp_path):
    exif = Image.Exif()
    exif[274] = orientation
    _, image = shown(tmp_path, data_of(quarters(), "JPEG", exif=exif, quality=95), 32)
    upright = upright_quarters(orientation)
    assert image.size == ((32, 24) if orientation < 5 else (24, 32))
    assert far(image.resize((2, 2), Image.Resampling.BOX), upright, 1) < 20


def upright_quarters(orientation: int) -> Image.Image:
    """Four pixels turned as a viewer would."""
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    four = quarters(2, 2)
    return four.transpose(turns[orientation]) if orientation in turns else four


def test_nothing_is_enlarged_and_extreme_shapes_keep_a_pixel(tmp_path):
    made, _ = shown(tmp_path, data_of(quarters(), "PNG"), 500)
    assert (made.width, made.height) == (64, 48)
    for size, result in (((60000, 3), (200, 1)), ((3, 60000), (1, 200)), ((1, 1), (1, 1))):
        made, _ = shown(tmp_path, pyvips.Image.black(*size).jpegsave_buffer())
        assert (made.width, made.height) == result


def test_of_several_pages_the_first_is_shown(tmp_path):
    file = io.BytesIO()
    PHOTO.save(file, "TIFF", save_all=True, append_images=[Image.new("RGB", (50, 50))])
    assert far(shown(tmp_path, file.getvalue())[1]) < 4


def test_no_metadata_is_kept(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    clear = PHOTO.convert("RGBA")
    for picture, kind in ((PHOTO, "JPEG"), (PHOTO, "WEBP"), (clear, "PNG")):
        source = data_of(picture, kind, exif=exif, icc_profile=icc, comment="a secret")
        assert b"a secret place" in source
        shown(tmp_path, source)
        data = (tmp_path / "preview").read_bytes()
        for left in (b"secret", b"Exif", b"eXIf", b"ICC_PROFILE", b"iCCP", b"tEXt", b"http"):
            assert left not in data


def test_colour_is_whole_in_a_large_preview_and_halved_in_a_small_one(tmp_path):
    for side, sampling in ((400, (2, 2)), (401, (1, 1))):
        shown(tmp_path, data_of(PHOTO, "PNG"), side)
        data = (tmp_path / "preview").read_bytes()
        at = data.index(b"\xff\xc0")
        assert divmod(data[at + 11], 16) == sampling


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(half(data_of(PHOTO, "JPEG")), id="jpeg"),
        pytest.param(half(data_of(PHOTO, "PNG")), id="png"),
        pytest.param(half(tiff(np.asarray(PHOTO), photometric="rgb", rowsperstrip=8)), id="tiff"),
        pytest.param(half(data_of(PHOTO, "GIF", interlace=0)), id="gif"),
    ],
)
def test_a_picture_cut_short_shows_what_there_is_of_it(data, tmp_path):
    _, image = shown(tmp_path, data)
    top = (0, 0, 200, 50)
    assert far(image.crop(top), SMALL.crop(top)) < 3
    assert far(image) > 20


def test_a_flipped_byte_does_not_hide_a_picture(tmp_path):
    data = bytearray(data_of(PHOTO, "TIFF", compression="tiff_adobe_deflate"))
    data[len(data) // 2] ^= 0x10
    assert shown(tmp_path, bytes(data))[0] == Preview("image/jpeg", 200, 133)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb() -> bytes:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", zlib.compress(bytes(10_000_000))),
            _chunk(b"IEND", b""),
        ]
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"a text file with the name of a picture", "not a picture of any known kind"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG drawings"),
        (b"<html><img src=x onerror=alert(1)>", "not a picture of any known kind"),
        (b"%PDF-1.7", "PDF documents"),
        (half(data_of(PHOTO, "WEBP")), "the picture is damaged"),
        (half(data_of(PHOTO, "TIFF", compression="tiff_lzw")), "damaged"),
        (data_of(PHOTO, "JPEG")[:100], "damaged"),
        (tiff(np.zeros((40, 50), "f4")), "samples of type float have no agreed range"),
        (bomb(), "50000 x 50000 is more than the 400000000 pixels of a preview"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_a_reason(data, reason, tmp_path):
    with pytest.raises(UnreadableImage, match=reason):
        shown(tmp_path, data)
    assert not (tmp_path / "preview").exists()


def test_too_large_is_refused_before_anything_is_decoded(monkeypatch, tmp_path):
    def thumbnail(*_: object, **__: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(pyvips.Image, "thumbnail_source", thumbnail)
    with pytest.raises(UnreadableImage, match="more than"):
        shown(tmp_path, bomb())
    monkeypatch.setattr(preview, "MAX_PIXELS", 600 * 400 - 1)
    with pytest.raises(UnreadableImage, match="600 x 400 is more than the 239999 pixels"):
        shown(tmp_path, data_of(PHOTO, "PNG"))
    monkeypatch.setattr(preview, "MAX_PIXELS", 600 * 400)
    with pytest.raises(AssertionError, match="it was decoded"):
        shown(tmp_path, data_of(PHOTO, "PNG"))


def test_a_full_disk_is_not_the_pictures_fault(tmp_path):
    (tmp_path / "s.png").write_bytes(data_of(PHOTO, "PNG"))
    with pytest.raises(DiskFull):
        make_preview(tmp_path / "s.png", Path("/dev/full"), 100)


def test_the_child_makes_the_same_and_never_shows_the_file_before(tmp_path):
    source, target = tmp_path / "s", tmp_path / "t"
    with PictureWorker(temp_dir=tmp_path, timeout_s=30, memory_mb=1024, file_mb=64) as worker:
        for colour in ((255, 0, 0), (0, 0, 255)):
            source.write_bytes(data_of(Image.new("RGB", (300, 200), colour), "JPEG", quality=95))
            made = worker.preview(source, target, 100)
            assert made == make_preview(source, tmp_path / "here", 100)
            assert target.read_bytes() == (tmp_path / "here").read_bytes()
            found = np.asarray(Image.open(target)).reshape(-1, 3).mean(axis=0)
            assert abs(found - colour).max() < 4
        pid = worker.pid
        source.write_bytes(bomb())
        with pytest.raises(UnreadableImage, match="50000 x 50000"):
            worker.preview(source, target, 100)
        source.write_bytes(b"no picture")
        with pytest.raises(UnreadableImage, match="not a picture"):
            worker.preview(source, target, 100)
        assert worker.pid == pid
