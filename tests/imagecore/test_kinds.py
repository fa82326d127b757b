"""The policy for every kind of picture: one test for each row of docs/PICTURES.md."""

import io
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from pictures import PHOTOS, data_of, page_of, photo, pixels_of, quarters
from PIL import Image, ImageCms

from imagecore.errors import UnreadableImage
from imagecore.pyramid import PyramidInfo, make_pyramid
from imagecore.recipe import PRESETS, recipe_from
from imagecore.sourcekind import sniff

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"></x:xmpmeta>'
P3 = bytes(pyvips.Image.profile_load("p3"))
SRGB = bytes(pyvips.Image.profile_load("srgb"))
CMYK = bytes(pyvips.Image.profile_load("cmyk"))


@pytest.fixture
def make(tmp_path):
    def run(data: bytes, preset: str, **overrides) -> tuple[PyramidInfo, Path]:
        source, target = tmp_path / "source", tmp_path / "t.tif"
        source.write_bytes(data)
        return make_pyramid(source, target, recipe_from(preset, overrides)), target

    return run


def _oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return data_of(quarters(), "JPEG", exif=exif, quality=95, subsampling=0)


UPRIGHT = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
    8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied_and_reset(make, orientation, preset):
    info, target = make(_oriented(orientation), preset)
    right = UPRIGHT[orientation](np.asarray(quarters()).astype(int))
    assert np.abs(pixels_of(target) - right).mean() < 8
    assert page_of(target).tags.valueof(274, 1) == 1
    assert any("upright" in note for note in info.notes) == (orientation != 1)


def test_autorotate_off_keeps_the_pixels_as_stored_and_drops_the_tag(make):
    _, target = make(_oriented(6), "legacy", autorotate=False)
    assert np.abs(pixels_of(target) - np.asarray(quarters()).astype(int)).mean() < 8
    assert page_of(target).tags.valueof(274, 1) == 1


def _transparent(mode: str) -> Image.Image:
    picture = photo(80, 60).convert(mode)
    picture.putalpha(Image.new("L", (80, 60), 0))
    return picture


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_kept_by_deflate_and_flattened_by_jpeg(make, mode):
    data = data_of(_transparent(mode), "PNG")
    _, target = make(data, "legacy")
    assert np.array_equal(pixels_of(target), np.asarray(_transparent(mode)))
    info, target = make(data, "iiif", background=[200, 200, 200])
    assert np.abs(pixels_of(target).astype(int) - 200).max() <= 3
    assert info.notes == ("transparency flattened on the background",)


def test_hidden_colours_do_not_bleed_into_edges_when_resized(make):
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :31] = 255, 0, 0, 255
    pixels[:, 31:] = 0, 255, 0, 0
    _, target = make(data_of(Image.fromarray(pixels), "PNG"), "legacy", max_width=20)
    made = pixels_of(target).astype(int)
    assert (made[..., 1] * (made[..., 3] > 8)).max() <= 2


@pytest.mark.parametrize("profile", [None, CMYK], ids=["bare", "profile"])
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_kept_or_converted_to_srgb(make, kind, profile):
    data = data_of(
        photo(120, 80).convert("CMYK"), kind, **({"icc_profile": profile} if profile else {})
    )
    _, target = make(data, "legacy")
    page = page_of(target)
    assert (int(page.photometric), page.samplesperpixel) == (5, 4)
    assert page.tags.valueof(34675) == profile
    assert (
        np.abs(pixels_of(target) - np.asarray(photo(120, 80).convert("CMYK")).astype(int)).mean()
        < 4
    )
    info, target = make(data, "iiif")
    assert page_of(target).samplesperpixel == 3
    assert np.abs(pixels_of(target) - np.asarray(photo(120, 80)).astype(int)).mean() < 30
    assert "converted to sRGB" in info.notes


def test_cmyk_can_be_kept_in_jpeg_tiles(make):
    data = data_of(photo().convert("CMYK"), "TIFF")
    _, target = make(data, "iiif", colour="keep")
    assert int(page_of(target).photometric) == 5


def test_a_wide_gamut_profile_is_kept_or_converted(make):
    red = Image.new("RGB", (64, 64), (200, 100, 100))
    data = data_of(red, "JPEG", icc_profile=P3, quality=95)
    _, target = make(data, "legacy")
    assert page_of(target).tags.valueof(34675) == P3
    info, target = make(data, "iiif")
    assert info.notes == ("converted to sRGB",)
    assert pixels_of(target)[30, 30, 0] > 205
    assert page_of(target).tags.valueof(34675) == SRGB


def test_a_profile_that_is_srgb_already_moves_no_pixel(make):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    info, target = make(data_of(photo(), "JPEG", icc_profile=srgb), "iiif")
    assert info.notes == ()
    assert page_of(target).tags.valueof(34675) == srgb


BROKEN = {
    "text": b"garbage" * 50,
    "cut": P3[:200],
    "zeroed": P3[:200] + bytes(100) + P3[300:],
    "of CMYK": CMYK,
}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_profile_is_dropped_and_noted(make, fault, preset):
    info, target = make(data_of(photo(), "TIFF", icc_profile=BROKEN[fault]), preset)
    assert info.notes == ("broken ICC profile dropped",)
    assert page_of(target).tags.valueof(34675) is None
    assert np.abs(pixels_of(target) - np.asarray(photo()).astype(int)).mean() < 6


def _deep(kind: str, shape: tuple[int, ...]) -> bytes:
    pixels = np.full(shape, 0x40FF, np.uint16)
    file = io.BytesIO()
    if kind == "tiff":
        tifffile.imwrite(file, pixels, photometric="rgb" if len(shape) == 3 else "minisblack")
        return file.getvalue()
    space = "rgb16" if len(shape) == 3 else "grey16"
    return pyvips.Image.new_from_array(pixels).copy(interpretation=space).pngsave_buffer()


@pytest.mark.parametrize("shape", [(40, 50, 3), (40, 50)], ids=["colour", "grey"])
@pytest.mark.parametrize("kind", ["tiff", "png"])
def test_16_bits_are_kept_by_deflate_and_scaled_for_jpeg(make, kind, shape):
    _, target = make(_deep(kind, shape), "legacy")
    assert pixels_of(target).dtype == np.uint16
    assert set(pixels_of(target).ravel().tolist()) == {0x40FF}
    info, target = make(_deep(kind, shape), "iiif")
    inside = pixels_of(target)[:32, :32]
    assert set(inside.ravel().tolist()) == {65}, "16639 / 257 = 64.7; a shift would give 64"
    assert info.notes == ("16 bits scaled to 8",)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["1", "P", "L"])
def test_one_bit_palette_and_grey_become_8_bits(make, kind, mode):
    picture = photo().convert(mode)
    _, target = make(data_of(picture, kind), "legacy")
    wanted = picture.convert("RGB" if mode == "P" else "L")
    assert np.array_equal(pixels_of(target).squeeze(), np.asarray(wanted))


def test_grey_with_a_profile_stays_grey_in_srgb(make):
    import imagecodecs

    profile = bytes(imagecodecs.cms_profile("gray", gamma=1.0))
    info, target = make(data_of(photo().convert("L"), "JPEG", icc_profile=profile), "iiif")
    assert page_of(target).samplesperpixel == 1
    assert info.notes == ("converted to sRGB",)
    assert pixels_of(target).mean() > np.asarray(photo().convert("L")).mean() + 20


def test_of_several_pages_the_first_is_taken_and_noted(make):
    pages = [photo(60, 40), quarters(), quarters()]
    data = data_of(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    info, target = make(data, "legacy")
    assert np.array_equal(pixels_of(target), np.asarray(pages[0]))
    assert info.notes == ("first of 3 pages",)


def test_the_smaller_levels_of_a_pyramid_are_not_pages(make):
    _, first = make(data_of(photo(), "PNG"), "legacy", tile=128)
    info, _ = make(first.read_bytes(), "lossless")
    assert info.notes == ()


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken_and_noted(make, kind):
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = data_of(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    info, target = make(data, "legacy")
    assert info.notes[0] == "first of 3 frames"
    assert pixels_of(target)[5, 5, :3].tolist() == [255, 0, 0]


def test_avif_is_read(make):
    buffer = pyvips.Image.new_from_file(str(PHOTOS / "coffee.png")).heifsave_buffer(
        compression="av1", effort=0
    )
    info, target = make(buffer, "iiif")
    assert info.source_kind == "avif"
    assert np.abs(pixels_of(target) - np.asarray(photo()).astype(int)).mean() < 10


SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30">'
    b'<rect width="40" height="30" fill="red"/></svg>'
)


def test_svg_is_read_only_when_the_recipe_names_it(make):
    with pytest.raises(UnreadableImage, match="loaders name svg"):
        make(SVG, "iiif")
    info, target = make(SVG, "iiif", loaders=["svg"])
    assert (info.width, info.height) == (40, 30)
    assert pixels_of(target)[10, 10].tolist()[0] > 250


REFUSED = {
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
    "pdf": b"%PDF-1.7\n" + bytes(64),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "bmp": data_of(photo(8, 8), "BMP"),
    "jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(64),
    "jxl": b"\xff\x0a" + bytes(64),
    "psd": b"8BPS" + bytes(64),
    "raw": b"II*\0\x10\0\0\0CR\2\0" + bytes(64),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_kinds_without_a_decoder_are_refused_with_what_to_do(make, kind):
    with pytest.raises(UnreadableImage, match=r"convert it|export|save it|develop it"):
        make(REFUSED[kind], "legacy")


def test_a_camera_raw_file_in_tiff_clothes_is_not_taken_for_its_preview(make):
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((20, 30, 3), np.uint8), photometric="rgb", subfiletype=1)
    with pytest.raises(UnreadableImage, match="preview"):
        make(file.getvalue(), "legacy")


@pytest.mark.parametrize("dtype", ["float32", "uint32", "int16"])
def test_samples_without_an_agreed_range_are_refused(make, dtype):
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((20, 30), dtype), photometric="minisblack")
    with pytest.raises(UnreadableImage, match="no agreed range"):
        make(file.getvalue(), "legacy")


@pytest.mark.parametrize("bands", [5, 6])
def test_more_channels_than_a_picture_has_are_refused(make, bands):
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((20, 30, bands), np.uint8), photometric="rgb")
    with pytest.raises(UnreadableImage, match="channels"):
        make(file.getvalue(), "legacy")


def test_lab_is_refused(make):
    with pytest.raises(UnreadableImage):
        make(data_of(photo().convert("LAB"), "TIFF"), "legacy")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", [(1, 1), (512, 512), (30000, 7), (1203, 1203), (1203, 7)])
def test_extreme_and_odd_sizes(make, size, preset):
    info, _ = make(data_of(photo(*size), "PNG"), preset)
    assert (info.source_width, info.source_height) == size


def test_what_metadata_survives(make):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    data = data_of(photo(), "JPEG", exif=exif, xmp=XMP, icc_profile=P3, dpi=(72, 72))
    _, target = make(data, "legacy")
    tags = page_of(target).tags
    assert tags.valueof(34675) == P3
    assert tags.valueof(700) == XMP
    assert tags.valueof(34665) is None, "libvips writes no EXIF into TIFF"
    assert tags.valueof(282) == (300, 1)


CAPTION = b"\x1c\x02\x78\0\x07caption"


def _with_photoshop(*resources: tuple[int, bytes]) -> bytes:
    parts = b"".join(
        b"8BIM" + number.to_bytes(2, "big") + b"\0\0" + len(data).to_bytes(4, "big") + data
        for number, data in resources
    )
    segment = b"Photoshop 3.0\0" + parts
    jpeg = data_of(photo(), "JPEG")
    return jpeg[:2] + b"\xff\xed" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]


def _iptc_tiff() -> bytes:
    file = io.BytesIO()
    tags = [(33723, "B", len(CAPTION), CAPTION, True)]
    tifffile.imwrite(file, np.asarray(photo()), photometric="rgb", extratags=tags)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [_with_photoshop((1005, b"four"), (0x0404, CAPTION)), _iptc_tiff()],
    ids=["jpeg", "tiff"],
)
def test_iptc_survives_whole(make, data):
    _, target = make(data, "legacy")
    assert bytes(page_of(target).tags.valueof(33723)) == CAPTION


@pytest.mark.parametrize("resources", [(), ((1005, b"four"),), ((0x0404, b""),)])
def test_photoshop_data_without_iptc_leave_none(make, resources):
    _, target = make(_with_photoshop(*resources), "legacy")
    assert page_of(target).tags.valueof(33723) is None


GOOD_BUT_ODD = {
    "JPEG with a motion photo behind it": data_of(photo(), "JPEG") + b"MotionPhoto_Data" * 99,
    "JPEG with stray bytes before its end": data_of(photo(), "JPEG")[:-2] + b"\0\0\0\xff\xd9",
    "multi-picture JPEG": data_of(photo(), "MPO", save_all=True, append_images=[photo()]),
    "PNG with bytes behind it": data_of(photo(), "PNG") + b"more" * 99,
    "PNG with a profile that is none": data_of(photo(), "PNG", icc_profile=b"none" * 40),
    "progressive JPEG": data_of(photo(), "JPEG", progressive=True),
}


@pytest.mark.parametrize("oddity", GOOD_BUT_ODD)
def test_good_pictures_with_an_oddity_are_not_refused(make, oddity):
    make(GOOD_BUT_ODD[oddity], "legacy")


def test_private_tiff_tags_are_no_fault(make):
    file = io.BytesIO()
    tags = [(65000, "s", 0, "ours", True), (50000, "H", 3, (1, 2, 3), True)]
    tifffile.imwrite(file, np.asarray(photo()), photometric="rgb", extratags=tags)
    make(file.getvalue(), "legacy")


def test_content_decides_the_kind_never_the_name(tmp_path):
    wrong = tmp_path / "picture.jpg"
    wrong.write_bytes(data_of(photo(8, 8), "PNG"))
    assert sniff(wrong) == "png"
