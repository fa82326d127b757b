"""The copies made of a store photo or menu: which, how large, where marked, and all verified."""

import hashlib
import io
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import pyvips
from pictures import PHOTOS, data_of, photo, quarters
from PIL import Image, ImageCms

from imagecore import ladder, ladder_check
from imagecore.errors import (
    DiskFull,
    InfrastructureError,
    ItemFailed,
    ItemRefused,
    UnreadableImage,
)
from imagecore.ladder import ladder_recipe, ladder_widths, make_ladder
from imagecore.layout import VerificationFailed

MARKS = Path(ladder.__file__).parents[1] / "watermarks"
DISPLAY_P3 = ImageCms.ImageCmsProfile(io.BytesIO(pyvips.Image.profile_load("p3"))).tobytes()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "out"
    made.mkdir()
    return made


@pytest.fixture
def make(tmp_path, folder):
    """Make the ladder of a picture or of a file's bytes; returns its info."""

    def run(picture, kind="photos", name="1.jpg", **options):
        source = tmp_path / "source"
        saved = picture if isinstance(picture, bytes) else data_of(picture, "PNG", **options)
        source.write_bytes(saved)
        return make_ladder(source, folder, kind, name)

    return run


def opened(info, width=None):
    image = next(each for each in info.images if each.width == width)
    return Image.open(image.file)


def pixels(info, width=None):
    return np.asarray(opened(info, width)).astype(int)


@pytest.mark.parametrize(
    ("wide", "widths"),
    [
        (1, ()),
        (299, ()),
        (300, ()),
        (301, (200,)),
        (500, (200,)),
        (501, (200, 400)),
        (700, (200, 400)),
        (701, (200, 400, 600)),
        (900, (200, 400, 600)),
        (901, (200, 400, 600, 800)),
        (1100, (200, 400, 600, 800)),
        (1101, (200, 400, 600, 800, 1000)),
        (1300, (200, 400, 600, 800, 1000)),
        (1301, (200, 400, 600, 800, 1000, 1200)),
        (1500, (200, 400, 600, 800, 1000, 1200)),
        (1501, (200, 400, 600, 800, 1000, 1200, 1400)),
        (9000, (200, 400, 600, 800, 1000, 1200, 1400)),
    ],
)
def test_the_widths_made_of_a_photo(wide, widths):
    assert ladder_widths("photos", wide) == widths


@pytest.mark.parametrize(
    ("wide", "widths"),
    [
        (299, ()),
        (300, ()),
        (301, (200,)),
        (501, (200,)),
        (701, (200,)),
        (900, (200,)),
        (901, (200, 800)),
        (1100, (200, 800)),
        (1101, (200, 800, 1000)),
        (1300, (200, 800, 1000)),
        (1301, (200, 800, 1000, 1200)),
        (1500, (200, 800, 1000, 1200)),
        (1501, (200, 800, 1000, 1200, 1400)),
        (9000, (200, 800, 1000, 1200, 1400)),
    ],
)
def test_the_widths_made_of_a_menu(wide, widths):
    assert ladder_widths("menus", wide) == widths


def test_there_are_ladders_of_photos_and_menus_only(folder):
    with pytest.raises(ValueError, match="no ladder 'logos': choose one of photos, menus"):
        ladder_widths("logos", 1000)
    with pytest.raises(ValueError, match="logos"):
        make_ladder(PHOTOS / "coffee.png", folder, "logos", "1.jpg")


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        ((1601, 901), {None: (1600, 900), 200: (200, 112), 1000: (1000, 562), 1400: (1400, 787)}),
        ((1600, 900), {None: (1600, 900), 200: (200, 112)}),
        ((1599, 1000), {None: (1599, 1000), 1400: (1400, 875)}),
        ((501, 1000), {None: (501, 1000), 200: (200, 399), 400: (400, 798)}),
        ((300, 200), {None: (300, 200)}),
        ((2000, 1), {None: (1600, 1), 200: (200, 1), 1400: (1400, 1)}),
        ((1, 1), {None: (1, 1)}),
    ],
)
def test_heights_are_in_proportion_rounded_down_and_at_least_one(make, size, sizes):
    info = make(photo(*size))
    assert (info.width, info.height) == size
    assert info.widths == ladder_widths("photos", size[0])
    assert [each.width for each in info.images] == [None, *info.widths]
    for image in info.images:
        assert Image.open(image.file).size == (image.pixels_wide, image.pixels_high)
    found = {each.width: (each.pixels_wide, each.pixels_high) for each in info.images}
    assert {width: found[width] for width in sizes} == sizes


def test_a_copy_is_the_picture_resized_by_lanczos(make):
    info = make(photo(701, 467), name="1.png")
    saved = pyvips.Image.new_from_buffer(data_of(photo(701, 467), "PNG"), "")
    right = saved.resize(200 / 701, vscale=133 / 467, kernel="lanczos3")
    assert np.array_equal(pixels(info, 200), right.numpy())


@pytest.mark.parametrize(
    ("size", "high"), [((10, 70_000), 70_000), ((2, 32_769), 32_769), ((300, 32_768), 32_768)]
)
def test_a_copy_that_would_be_too_high_is_refused_by_its_numbers(make, folder, size, high):
    tall = data_of(Image.new("1", size), "PNG")
    if high <= 32_768:
        assert make(tall).images[0].pixels_high == high
        return
    with pytest.raises(ItemRefused, match=f"the copy would be {high} pixels high: 32768"):
        make(tall)
    assert list(folder.iterdir()) == []


def test_the_report_of_a_ladder_describes_its_files(make, folder):
    info = make(data_of(photo(701, 467), "JPEG"))
    assert {Path(each.file) for each in info.images} == set(folder.iterdir())
    for image in info.images:
        data = Path(image.file).read_bytes()
        assert (image.bytes, image.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert image.content_type == "image/jpeg"
    assert info.notes == ()


def test_jpegs_are_progressive_and_of_quality_80(make):
    info = make(photo(701, 467))
    reference = Image.open(io.BytesIO(data_of(photo(), "JPEG", quality=80)))
    for width in (None, 200, 400, 600):
        image = opened(info, width)
        assert image.info["progressive"]
        assert image.quantization == reference.quantization
        assert b"\xff\xc2" in Path(image.filename).read_bytes()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("1.jpg", "JPEG"),
        ("1.JPG", "JPEG"),
        ("a.b.jpeg", "JPEG"),
        ("0.png", "PNG"),
        ("0.PnG", "PNG"),
    ],
)
@pytest.mark.parametrize("stored", ["JPEG", "PNG"])
def test_the_name_decides_the_format(make, name, kind, stored):
    info = make(data_of(photo(400, 300), stored), name=name)
    assert {opened(info, width).format for width in (None, 200)} == {kind}
    assert {each.content_type for each in info.images} == {f"image/{kind.lower()}"}
    other = f"a {stored.lower()} picture by content, image/{kind.lower()} by name"
    assert info.notes == (() if stored == kind else (other,))


@pytest.mark.parametrize("name", ["1.webp", "1", "jpg", ".jpg", "1.jpg.txt", ""])
def test_a_name_without_a_format_is_refused(make, name):
    with pytest.raises(ItemRefused, match=r"must end in \.jpg, \.jpeg, \.png"):
        make(photo(400, 300), name=name)


def test_the_same_picture_gives_the_same_bytes(make):
    for name in ("1.jpg", "1.png"):
        first = [each.sha256 for each in make(photo(901, 600), "menus", name).images]
        assert [each.sha256 for each in make(photo(901, 600), "menus", name).images] == first


def test_the_recipe_changes_with_a_watermark_and_the_table(tmp_path, monkeypatch):
    before = ladder_recipe()
    assert len(before) == 16
    assert ladder_recipe() == before
    marks = shutil.copytree(MARKS, tmp_path / "marks")
    monkeypatch.setattr(ladder, "_MARKS", marks)
    assert ladder_recipe() == before
    with (marks / "800.png").open("ab") as mark:
        mark.write(b"x")
    assert ladder_recipe() != before
    monkeypatch.setattr(ladder, "_MARKS", MARKS)
    table = shutil.copy(ladder._TABLE, tmp_path)
    monkeypatch.setattr(ladder, "_TABLE", Path(table))
    assert ladder_recipe() == before
    Path(table).write_text(Path(table).read_text().replace("80", "81"))
    assert ladder_recipe() != before
    monkeypatch.setattr(ladder, "_MARKS", tmp_path)
    with pytest.raises(InfrastructureError, match=r"400\.png cannot be used"):
        ladder_recipe()


def boxes(kind, wide, high):
    """Where marks belong, as left, top, and the mark turned the way it is read there."""
    fitting = [width for width in (400, 600, 800, 1000, 1200, 1400, 1600) if width <= wide]
    if not fitting:
        return []
    mark = Image.open(MARKS / f"{max(fitting)}.png")
    assert mark.mode == "RGBA"
    places = [((wide - mark.width) // 2, (high - mark.height) // 2, mark)]
    if kind == "menus":
        margin = int(0.02 * min(wide, high))
        up = mark.transpose(Image.Transpose.ROTATE_90)  # 270° clockwise: read upwards
        down = mark.transpose(Image.Transpose.ROTATE_270)
        places.append((wide - margin - up.width, high - margin - up.height, up))
        places.append((margin, margin, down))
    return places


@pytest.mark.parametrize("kind", ["photos", "menus"])
@pytest.mark.parametrize("wide", [399, 400, 599, 600, 1501])
def test_marks_are_where_they_belong_and_nowhere_else(make, kind, wide):
    high = wide * 2 // 3
    plain = Image.new("RGB", (wide, high), (90, 120, 60))
    plain.paste(photo(wide // 2, high // 2))
    info = make(plain, kind, "1.png")
    saved = pyvips.Image.new_from_buffer(data_of(plain, "PNG"), "")
    for image in info.images:
        size = image.pixels_wide, image.pixels_high
        bare = saved.resize(size[0] / wide, vscale=size[1] / high, kernel="lanczos3").numpy()
        right, outside = Image.fromarray(bare).convert("RGBA"), np.ones(bare.shape[:2], bool)
        places = boxes(kind, *size)
        assert len(places) == (0 if size[0] < 400 else 1 if kind == "photos" else 3)
        for left, top, mark in places:
            right.alpha_composite(mark, (left, top))
            outside[top : top + mark.height, left : left + mark.width] = False
        found = pixels(info, image.width)
        assert np.array_equal(found[outside], bare[outside])
        assert np.abs(found - np.asarray(right.convert("RGB")).astype(int)).max() <= 2
        for left, top, mark in places:
            inside = np.s_[top : top + mark.height, left : left + mark.width]
            assert np.abs(found[inside] - bare[inside].astype(int)).mean() > 5


@pytest.mark.parametrize("level", [0, 255, 128])
@pytest.mark.parametrize("width", [400, 800, 1600])
def test_a_mark_is_seen_on_light_and_on_dark_and_takes_two_fifths_of_the_width(width, level):
    mark = Image.open(MARKS / f"{width}.png")
    assert mark.width == 0.4 * width
    ground = Image.new("RGBA", mark.size, (level, level, level, 255))
    shown = np.asarray(Image.alpha_composite(ground, mark))[..., 0].astype(int)
    assert (np.abs(shown - level) > 25).mean() > 0.1
    assert np.abs(shown - level).max() < 200  # the picture still shows through


def own_mark(mode="RGBA", kind="PNG", **options):
    """Half red, in a transparent border."""
    mark = Image.new("RGBA", (400, 120), (200, 30, 30, 0))
    mark.paste((200, 30, 30, 128), (20, 20, 380, 100))
    return data_of(mark.quantize() if mode == "P" else mark.convert(mode), kind, **options)


def deep_mark():
    eight = pyvips.Image.new_from_buffer(own_mark(), "")
    deep = (eight.cast("ushort") * 257).cast("ushort").copy(interpretation="rgb16")
    return bytes(deep.pngsave_buffer())


@pytest.fixture
def with_mark(tmp_path, monkeypatch):
    """Replace the watermarks by a file of one's own."""

    def install(data):
        marks = shutil.copytree(MARKS, tmp_path / "marks")
        (marks / "1000.png").unlink()
        if data is not None:
            (marks / "1000.png").write_bytes(data)
        monkeypatch.setattr(ladder, "_MARKS", marks)

    return install


@pytest.mark.parametrize(
    ("data", "inside", "border"),
    [
        (own_mark(), (145, 75, 45), (90, 120, 60)),
        (own_mark("P"), (145, 75, 45), (90, 120, 60)),
        (deep_mark(), (145, 75, 45), (90, 120, 60)),
        (own_mark("LA"), (85, 100, 70), (90, 120, 60)),
        (own_mark("L"), (81, 81, 81), (81, 81, 81)),
        (own_mark("RGB"), (200, 30, 30), (200, 30, 30)),
        (own_mark("RGB", "JPEG", quality=95), (200, 30, 30), (200, 30, 30)),
        (own_mark(icc_profile=DISPLAY_P3), (154, 59, 34), (90, 120, 60)),
    ],
)
def test_a_mark_of_any_kind_is_laid_on_and_nothing_else_changes(
    make, with_mark, data, inside, border
):
    with_mark(data)
    info = make(Image.new("RGB", (1000, 600), (90, 120, 60)), name="1.png")
    found = pixels(info)
    assert np.abs(found[300, 500] - inside).max() <= 2
    assert np.abs(found[245, 305] - border).max() <= 2
    assert tuple(found[10, 10]) == (90, 120, 60)
    assert "icc_profile" not in opened(info).info  # the mark's would change every colour


@pytest.mark.parametrize("data", [None, b"", b"no picture", own_mark()[:300]])
def test_a_mark_that_cannot_be_used_is_no_fault_of_the_picture(make, folder, with_mark, data):
    with_mark(data)
    with pytest.raises(InfrastructureError, match=r"The watermark .*1000\.png cannot be used"):
        make(photo(1000, 667))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("high", [1, 2, 20, 100])
@pytest.mark.parametrize("kind", ["photos", "menus"])
def test_a_mark_that_does_not_fit_is_made_smaller(make, kind, high):
    info = make(Image.new("RGB", (1000, high), (200, 30, 30)), kind, "1.png")
    found = pixels(info)
    assert found.shape == (high, 1000, 3)
    changed = (found != (200, 30, 30)).any(2)
    if high < 20:
        return
    assert changed.any()
    turned = Image.open(MARKS / "1000.png").height * (0.96 * high) / 400
    right = changed[:, 700:]
    assert right.any() == (kind == "menus")
    if kind == "menus":
        assert changed[:, : int(turned + 0.02 * high) + 1].any()
        assert not changed[:, int(turned + 0.02 * high) + 1 : 250].any()


def test_the_whole_mark_is_seen_on_a_flat_picture(make):
    """Three marks, each whole: the turned ones as high as the picture allows."""
    info = make(Image.new("RGB", (1000, 200), (200, 30, 30)), "menus", "1.png")
    changed = (pixels(info) != (200, 30, 30)).any(2)
    rows = np.flatnonzero(changed[:, :100].any(1))
    assert rows[0] < 12
    assert rows[-1] > 187
    assert not changed[:4].any()
    assert not changed[-4:].any()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_made_upright_before_its_width_counts(make, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 0.0)}
    info = make(data_of(quarters(320, 280), "JPEG", quality=95, exif=exif))
    swap = orientation >= 5
    assert (info.width, info.height) == ((280, 320) if swap else (320, 280))
    assert info.widths == (() if swap else (200,))
    noted = () if orientation == 1 else (f"rotated upright (orientation {orientation})",)
    assert info.notes == noted
    full = opened(info)
    assert not full.getexif()
    turned = Image.Transpose
    right = quarters(320, 280)
    for step in {
        2: (turned.FLIP_LEFT_RIGHT,),
        3: (turned.ROTATE_180,),
        4: (turned.FLIP_TOP_BOTTOM,),
        5: (turned.TRANSPOSE,),
        6: (turned.ROTATE_270,),
        7: (turned.TRANSVERSE,),
        8: (turned.ROTATE_90,),
    }.get(orientation, ()):
        right = right.transpose(step)
    assert np.abs(np.asarray(full).astype(int) - np.asarray(right)).mean() < 6


def test_the_orientation_of_a_png_counts_too(make):
    exif = Image.Exif()
    exif[0x0112] = 6
    info = make(data_of(quarters(320, 280), "PNG", exif=exif), name="1.png")
    right = quarters(320, 280).transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(pixels(info), np.asarray(right))
    assert info.notes == ("rotated upright (orientation 6)",)


@pytest.mark.parametrize("name", ["1.jpg", "1.png"])
def test_a_broken_profile_is_dropped(make, name):
    info = make(data_of(photo(400, 300), "JPEG", icc_profile=b"x" * 200), name=name)
    assert "broken ICC profile dropped" in info.notes
    assert "icc_profile" not in opened(info).info


def test_where_a_photo_was_taken_is_not_passed_on(make):
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 0.0)}
    exif[0x010F] = "SecretCamera"
    data = data_of(photo(400, 300), "JPEG", exif=exif, comment=b"secret", xmp=b"<x>secret</x>")
    assert b"secret" in data
    for name in ("1.jpg", "1.png"):
        for image in make(data, name=name).images:
            written = Path(image.file).read_bytes()
            assert b"ecret" not in written
            assert b"Exif" not in written
            assert b"eXIf" not in written


def fading(width=600, height=400):
    picture = photo(width, height).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize((width, height)))
    return picture


def test_a_png_keeps_its_transparency(make):
    info = make(fading(), name="0.png")
    assert opened(info, 200).mode == "RGBA"
    right = np.asarray(Image.linear_gradient("L").resize((200, 133))).astype(int)
    assert np.abs(pixels(info, 200)[..., 3] - right).max() <= 4
    assert info.notes == ()
    assert pixels(info)[0, :, 3].max() == 0


def test_a_jpeg_shows_what_was_transparent_on_white(make):
    info = make(fading(), name="0.jpg")
    assert opened(info).mode == "RGB"
    white = Image.new("RGBA", (600, 400), "white")
    white.alpha_composite(fading())
    outside = np.s_[:100]
    right = np.asarray(white.convert("RGB")).astype(int)
    assert np.abs(pixels(info)[outside] - right[outside]).mean() < 4
    assert pixels(info)[0].min() > 245
    assert info.notes == (
        "transparency flattened on the background",
        "a png picture by content, image/jpeg by name",
    )


def test_hidden_colours_of_transparent_pixels_do_not_bleed_into_edges(make):
    picture = np.zeros((400, 600, 4), np.uint8)
    picture[..., 0] = 255  # red, and hidden
    picture[:, 303:] = 0, 0, 255, 255
    found = pixels(make(Image.fromarray(picture), name="0.png"), 200)
    assert found[found[..., 3] > 0][:, 0].max() <= 2


@pytest.mark.parametrize("name", ["1.jpg", "1.png"])
def test_cmyk_becomes_srgb(make, name):
    inks = pyvips.Image.new_from_buffer(data_of(photo(400, 300), "PNG"), "")
    cmyk = inks.icc_transform("cmyk", input_profile="srgb").jpegsave_buffer(Q=95)
    assert Image.open(io.BytesIO(cmyk)).mode == "CMYK"
    info = make(cmyk, name=name)
    assert opened(info, 200).mode == "RGB"
    assert "converted to sRGB" in info.notes
    right = np.asarray(photo(400, 300).resize((200, 150), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(pixels(info, 200) - right).mean() < 12


@pytest.mark.parametrize("name", ["1.jpg", "1.png"])
def test_sixteen_bits_become_eight(make, name):
    deep = (np.asarray(photo(400, 300)).astype(np.uint16) * 257).astype(np.uint16)
    png = pyvips.Image.new_from_array(deep, interpretation="rgb16").pngsave_buffer()
    info = make(bytes(png), name=name)
    assert "16 bits scaled to 8" in info.notes
    found = pixels(info)
    assert opened(info).mode == "RGB"
    away = np.abs(found - np.asarray(photo(400, 300)))[:60]
    assert away.max() == 0 if name == "1.png" else away.mean() < 4


@pytest.mark.parametrize("name", ["1.jpg", "1.png"])
def test_a_wide_gamut_is_converted_and_the_copies_say_srgb(make, name):
    red = Image.new("RGB", (400, 300), (200, 100, 100))
    info = make(data_of(red, "PNG", icc_profile=DISPLAY_P3), name=name)
    assert "converted to sRGB" in info.notes
    copy = opened(info, 200)
    described = ImageCms.ImageCmsProfile(io.BytesIO(copy.info["icc_profile"]))
    assert "sRGB" in ImageCms.getProfileDescription(described)
    right = ImageCms.profileToProfile(
        red, ImageCms.ImageCmsProfile(io.BytesIO(DISPLAY_P3)), ImageCms.createProfile("sRGB")
    )
    assert right is not None
    assert np.abs(pixels(info, 200) - np.asarray(right)[0, 0].astype(int)).max() <= 3


@pytest.mark.parametrize("name", ["1.jpg", "1.png"])
def test_a_profile_that_is_srgb_stays_byte_for_byte(make, name):
    profile = bytes(pyvips.Image.profile_load("srgb"))
    info = make(data_of(photo(400, 300), "PNG", icc_profile=profile), name=name)
    assert [opened(info, width).info["icc_profile"] for width in (None, 200)] == [profile] * 2
    plain = make(photo(400, 300), name=name)
    assert "icc_profile" not in opened(plain).info
    assert info.notes[:-1] == plain.notes[:-1]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I;16"])
@pytest.mark.parametrize("name", ["1.jpg", "1.png"])
def test_grey_and_palette_pictures_get_marks_too(make, mode, name):
    grey = photo(400, 300).convert("L")
    picture = grey.convert("I;16") if mode == "I;16" else photo(400, 300).convert(mode)
    info = make(picture, name=name)
    assert opened(info).mode == ("RGBA" if (mode, name) == ("LA", "1.png") else "RGB")


@pytest.mark.parametrize("name", ["1.jpg", "1.png"])
@pytest.mark.parametrize("stored", ["JPEG", "PNG"])
def test_a_truncated_picture_is_refused_and_leaves_nothing(make, folder, name, stored):
    whole = data_of(photo(), stored)
    with pytest.raises(UnreadableImage, match=r"damaged|end"):
        make(whole[: len(whole) * 2 // 3], name=name)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("stored", ["GIF", "WEBP", "TIFF", "BMP", "AVIF"])
def test_other_kinds_of_picture_are_refused(make, stored):
    with pytest.raises(UnreadableImage, match=r"loaders|not read"):
        make(data_of(photo(), stored))


def test_what_is_no_picture_is_refused(make):
    for data in (b"", b"Dear archive", b"\xff\xd8\xff\xe0 and no more"):
        with pytest.raises(UnreadableImage):
            make(data)


@pytest.fixture
def held(monkeypatch):
    """Size of what is held of a source, and the options it was read with."""
    seen, honest = {}, ladder.pipeline

    def note(planned, **options):
        image = honest(planned, **options)
        if planned.source.path.name == "source":
            seen[planned.source.kind] = (image.width, image.height, options)
        return image

    monkeypatch.setattr(ladder, "pipeline", note)
    return seen


@pytest.mark.parametrize(
    ("wide", "shrink"),
    [(3200, 1), (6399, 1), (6400, 2), (12_799, 2), (12_800, 4), (25_601, 8), (60_000, 8)],
)
def test_of_a_large_picture_only_twice_the_full_size_is_held(make, held, wide, shrink):
    for kind in ("JPEG", "PNG"):
        info = make(data_of(Image.new("RGB", (wide, wide // 1600), (200, 30, 30)), kind))
        assert (info.width, info.height) == (wide, wide // 1600)
    high = round(3200 / wide * (wide // 1600))
    assert held == {"jpeg": (3200, high, {"shrink": shrink}), "png": (3200, high, {})}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("stored", ["JPEG", "PNG"])
def test_a_large_picture_gives_what_resizing_all_of_it_gives(make, mode, stored):
    large = photo(6600, 4400).convert("L" if mode == "L" else "RGB").crop((0, 1500, 6600, 2160))
    info = make(data_of(large.convert("RGB" if stored == "JPEG" else mode), stored), name="1.png")
    assert opened(info).size == (1600, 160)
    right = large.resize((200, 20), Image.Resampling.LANCZOS).convert("RGB")
    assert np.abs(pixels(info, 200)[..., :3] - np.asarray(right)).mean() < 1.2


def test_a_large_picture_is_turned_upright(make):
    exif = Image.Exif()
    exif[0x0112] = 6
    info = make(data_of(quarters(200, 6400), "JPEG", quality=95, exif=exif))
    assert (info.width, info.height) == (6400, 200)
    right = quarters(200, 6400).transpose(Image.Transpose.ROTATE_270).resize((1600, 50))
    beside = np.s_[:, :400]
    assert np.abs(pixels(info)[beside] - np.asarray(right).astype(int)[beside]).mean() < 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_picture_cut_short_is_refused(make, kind):
    whole = data_of(photo(6600, 440), kind)
    with pytest.raises(UnreadableImage, match=r"damaged|end"):
        make(whole[:-2000])


def test_a_full_disk_stops_everything(make, monkeypatch):
    monkeypatch.setattr("imagecore.vipserror._NEARLY_FULL", 1 << 60)
    with pytest.raises(DiskFull):
        make(data_of(photo(), "JPEG")[:5000])


def test_a_folder_that_is_missing_is_no_fault_of_the_picture(make, folder):
    folder.rmdir()
    with pytest.raises((ItemFailed, OSError)) as caught:
        make(photo())
    assert not isinstance(caught.value, UnreadableImage)


def test_a_copy_that_cannot_be_written_is_no_fault_of_the_picture(make, folder, monkeypatch):
    def fail(*_):
        raise pyvips.Error("unable to call jpegsave", "the disk is on fire")

    monkeypatch.setattr(ladder, "_write", fail)
    with pytest.raises(ItemFailed, match="could not be written: the disk is on fire"):
        make(photo())
    assert list(folder.iterdir()) == []


def saved_otherwise(monkeypatch, **changes):
    """Have libvips save other than it is asked to."""
    honest = pyvips.Image.__getattr__

    def look_up(image, name):
        found = honest(image, name)
        if name not in {"jpegsave", "pngsave"}:
            return found
        return lambda target, **options: found(target, **{**options, **changes})

    monkeypatch.setattr(pyvips.Image, "__getattr__", look_up)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"interlace": False}, "not progressive"),
        ({"Q": 75}, "not of quality 80"),
        ({"Q": 81}, "not of quality 80"),
        ({"subsample_mode": "off"}, "not stored at half size"),
        ({"keep": "all"}, "metadata"),
        ({"keep": "none"}, "ICC profile differs"),
    ],
)
def test_a_jpeg_saved_otherwise_than_asked_is_found(make, folder, monkeypatch, changes, found):
    exif = Image.Exif()
    exif[0x010F] = "camera"
    profile = bytes(pyvips.Image.profile_load("srgb"))
    saved_otherwise(monkeypatch, **changes)
    with pytest.raises(VerificationFailed, match=found):
        make(data_of(photo(), "JPEG", exif=exif, icc_profile=profile))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "found"), [({"keep": "all"}, "metadata"), ({"keep": "none"}, "ICC profile")]
)
def test_a_png_saved_otherwise_than_asked_is_found(make, monkeypatch, changes, found):
    exif = Image.Exif()
    exif[0x010F] = "camera"
    profile = bytes(pyvips.Image.profile_load("srgb"))
    saved_otherwise(monkeypatch, **changes)
    with pytest.raises(VerificationFailed, match=found):
        make(data_of(photo(), "JPEG", exif=exif, icc_profile=profile), name="1.png")


def jpeg_of(pixels):
    return data_of(Image.fromarray(pixels), "JPEG", quality=80, progressive=True)


def turned_in_every_cell(cup):
    """Every cell upside down: its means stay."""
    cells = cup[:384, :576].reshape(6, 64, 9, 64, 3)[:, ::-1, :, ::-1].reshape(384, 576, 3)
    other = cup.copy()
    other[:384, :576] = cells
    return other


def with_another_tile(cup):
    other = cup.copy()
    other[:64, :64] = cup[100:164, 300:364]
    return other


WRONG = {
    "a hole": lambda cup: np.where(np.indices(cup.shape)[0] // 64 == 3, 128, cup),
    "red and blue swapped": lambda cup: cup[..., ::-1],
    "moved by eight pixels": lambda cup: np.roll(cup, 8, axis=1),
    "upside down": lambda cup: cup[::-1],
    "a little lighter": lambda cup: np.minimum(cup + 12.0, 255),
    "another tile": with_another_tile,
    "cells turned": turned_in_every_cell,
    "no colour": lambda cup: cup @ np.array([0.299, 0.587, 0.114])[:, None] + np.zeros(3),
}


@pytest.mark.parametrize("fault", WRONG)
def test_other_pixels_than_meant_are_found(fault):
    cup = np.asarray(photo())
    ladder_check.check_jpeg(jpeg_of(cup), cup, 80, None)
    wrong = np.ascontiguousarray(WRONG[fault](cup).astype(np.uint8))
    with pytest.raises(VerificationFailed, match=r"(brightness|light|colour) differs by"):
        ladder_check.check_jpeg(jpeg_of(wrong), cup, 80, None)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (65, 65), (317, 133), (512, 512)])
@pytest.mark.parametrize("grain", [1, 3, 8])
def test_no_picture_is_too_hard_for_the_check(share, size, grain):
    """Noise in black, white and pure colours is what JPEG changes most."""
    wide, high = size
    random = np.random.default_rng(3)
    coarse = random.random((high // grain + 1, wide // grain + 1, 3)) < share
    grains = np.kron(coarse, np.ones((grain, grain, 1)))[:high, :wide]
    for noise in (grains, grains[..., :1].repeat(3, 2), grains * [1, 0, 0]):
        hard = (255 * noise).astype(np.uint8)
        saved = pyvips.Image.new_from_array(hard, interpretation="srgb")
        data = saved.jpegsave_buffer(Q=80, interlace=True, subsample_mode="on", keep="icc")
        ladder_check.check_jpeg(bytes(data), hard, 80, None)


def test_colours_that_run_into_their_neighbours_are_not_held_against_a_picture():
    """Colour is stored at half size: in a narrow cell the neighbour's share is large."""
    rows, columns = np.indices((80, 80)) // 64
    hard = np.array([[0, 0, 255], [255, 255, 0]], np.uint8)[(rows + columns) % 2]
    ladder_check.check_jpeg(jpeg_of(hard), hard, 80, None)


@pytest.mark.parametrize("size", [(599, 400), (600, 401), (400, 600)])
def test_another_size_than_meant_is_found(size):
    with pytest.raises(VerificationFailed, match="was meant"):
        ladder_check.check_jpeg(jpeg_of(np.asarray(photo(*size))), np.asarray(photo()), 80, None)
    with pytest.raises(VerificationFailed, match="other pixels"):
        ladder_check.check_png(data_of(photo(*size), "PNG"), np.asarray(photo()), None)


def test_one_wrong_pixel_of_a_png_is_found():
    cup = np.asarray(photo())
    ladder_check.check_png(data_of(photo(), "PNG"), cup, None)
    other = cup.copy()
    other[200, 300, 1] ^= 1
    with pytest.raises(VerificationFailed, match="other pixels"):
        ladder_check.check_png(data_of(Image.fromarray(other), "PNG"), cup, None)


@pytest.mark.parametrize("keep", [0, 2, 20, 700, -2, -3000])
@pytest.mark.parametrize("stored", ["JPEG", "PNG"])
def test_a_file_cut_short_is_found(stored, keep):
    cup = np.asarray(photo())
    check = {
        "JPEG": lambda data: ladder_check.check_jpeg(data, cup, 80, None),
        "PNG": lambda data: ladder_check.check_png(data, cup, None),
    }[stored]
    data = jpeg_of(cup) if stored == "JPEG" else data_of(photo(), "PNG")
    with pytest.raises(VerificationFailed):
        check(data[:keep])


def test_a_jpeg_of_two_profiles_pieces_is_read_in_their_order():
    cup, profile = np.asarray(photo()), bytes(range(256)) * 400
    data = data_of(photo(), "JPEG", quality=80, progressive=True, icc_profile=profile)
    ladder_check.check_jpeg(data, cup, 80, profile)
    with pytest.raises(VerificationFailed, match="ICC"):
        ladder_check.check_jpeg(data, cup, 80, profile[:-1])


def test_a_ladder_replaces_another_whole_or_not_at_all(make, folder, monkeypatch):
    make(photo(701, 467))
    before = {each.name: each.read_bytes() for each in folder.iterdir()}
    honest, calls = ladder_check.check_jpeg, []

    def fail_at_the_last(*facts):
        calls.append(facts)
        if len(calls) == 4:
            raise VerificationFailed("the last one is wrong")
        honest(*facts)

    monkeypatch.setattr(ladder_check, "check_jpeg", fail_at_the_last)
    with pytest.raises(VerificationFailed, match="the last one"):
        make(photo(702, 467))
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == before


def test_progressive_is_read_off_the_frame_itself():
    cup = np.asarray(photo())
    data = bytearray(jpeg_of(cup))
    at = data.index(b"\xff\xc2")
    assert struct.unpack(">HH", data[at + 5 : at + 9]) == (400, 600)
    data[at + 1] = 0xC0
    with pytest.raises(VerificationFailed, match="not progressive"):
        ladder_check.check_jpeg(bytes(data), cup, 80, None)
