"""One layer: fitted into its box, its transparency kept, as a PNG that was read back."""

import hashlib
import io
import struct

import numpy as np
import pytest
import pyvips
from pictures import data_of, photo, quarters
from PIL import Image, ImageCms

from imagecore import layerpicture
from imagecore.errors import DiskFull, ItemFailed, UnreadableImage
from imagecore.layerpicture import LayerRecipe, make_layer
from imagecore.layout import VerificationFailed
from imagecore.sandbox import PictureWorker

OPAQUE = "no transparency: it hides whatever lies below it"
SRGB = bytes(pyvips.Image.profile_load("srgb"))


def drawn(width: int = 400, height: int = 500) -> Image.Image:
    """The cup, fading out from bottom to top."""
    picture = photo(width, height).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize((width, height)))
    return picture


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "out"
    made.mkdir()
    return made


@pytest.fixture
def make(tmp_path, folder):
    """Make a layer of a picture or of a file's bytes; returns its info."""

    def run(picture, recipe=LayerRecipe(), **options):  # noqa: B008
        source = tmp_path / "source"
        saved = picture if isinstance(picture, bytes) else data_of(picture, "PNG", **options)
        source.write_bytes(saved)
        return make_layer(source, folder / "layer.png", recipe)

    return run


@pytest.fixture
def layer(folder):
    """The layer as Pillow reads it."""
    return lambda: Image.open(folder / "layer.png")


# Size


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((1600, 1600), (800, 800)),
        ((1600, 2000), (640, 800)),
        ((2000, 1600), (800, 640)),
        ((801, 800), (800, 799)),
        ((800, 600), (800, 600)),
        ((400, 500), (640, 800)),
        ((142, 71), (800, 400)),
        ((333, 400), (666, 800)),
        ((999, 1000), (799, 800)),
        ((1, 1), (800, 800)),
        ((3000, 1), (800, 1)),
        ((1, 3000), (1, 800)),
        ((3, 7), (343, 800)),
    ],
)
def test_a_layer_fits_inside_the_box_in_proportion_and_small_ones_are_enlarged(
    make, layer, size, fitted
):
    info = make(Image.new("RGBA", size, (200, 30, 30, 120)))
    assert (info.width, info.height) == layer().size == fitted
    assert (np.asarray(layer()) == (200, 30, 30, 120)).all()


def test_the_box_is_the_recipes(make, layer):
    make(drawn(), LayerRecipe(100, 50))
    assert layer().size == (40, 50)


@pytest.mark.parametrize("ppi", [172, 72, 300])
def test_the_resolution_is_written(make, layer, folder, ppi):
    make(drawn(), LayerRecipe(ppi=ppi))
    assert layer().info["dpi"] == pytest.approx((ppi, ppi), abs=0.02)
    per_metre = round(ppi / 0.0254)
    stored = struct.pack(">4sIIB", b"pHYs", per_metre, per_metre, 1)
    assert stored in (folder / "layer.png").read_bytes()


# Pixels


def test_a_layer_that_fits_keeps_every_pixel(make, layer):
    make(drawn(800, 600))
    shown = np.asarray(drawn(800, 600))
    assert np.array_equal(np.asarray(layer()), shown)


@pytest.mark.parametrize(
    ("size", "by"),
    [((1600, 1200), Image.Resampling.LANCZOS), ((400, 300), Image.Resampling.BICUBIC)],
)
def test_a_layer_is_resized_in_place_weighted_by_its_transparency(make, layer, size, by):
    make(drawn(*size))
    pixels = np.asarray(drawn(*size)).astype(np.float32)
    pixels[..., :3] *= pixels[..., 3:] / 255
    planes = [Image.fromarray(plane).resize((800, 600), by) for plane in pixels.transpose(2, 0, 1)]
    right = np.stack([np.asarray(plane) for plane in planes], -1)
    found = np.asarray(layer()).astype(float)
    found[..., :3] *= found[..., 3:] / 255
    assert np.abs(found - right).mean() < 0.5
    assert abs((found - right).mean()) < 0.05  # rounded, nothing cut off


@pytest.mark.parametrize("width", [300, 3000])
def test_hidden_colours_of_transparent_pixels_do_not_bleed_into_edges(make, layer, width):
    picture = np.zeros((width, width, 4), np.uint8)
    picture[..., 0] = 255  # red, and hidden
    picture[:, width // 2 + 1 :] = 0, 0, 255, 255
    make(Image.fromarray(picture))
    found = np.asarray(layer())
    assert found[found[..., 3] > 0][:, 0].max() <= 2
    assert found[found[..., 3] > 0][:, 2].min() >= 253  # and no dark edge either


# Kinds of picture


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_a_layer_without_transparency_is_made_opaque_and_noted(make, layer, mode):
    info = make(photo(400, 300).convert(mode))
    assert layer().mode == "RGBA"
    assert np.asarray(layer())[..., 3].min() == 255
    assert info.notes == (OPAQUE,)


@pytest.mark.parametrize("mode", ["LA", "P"])
def test_transparency_of_any_kind_is_kept(make, layer, mode):
    picture = photo(400, 300).convert("RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, 200, 300))
    info = make(picture.quantize() if mode == "P" else picture.convert(mode))
    assert layer().mode == "RGBA"
    assert info.notes == ()
    assert np.asarray(layer())[300, 100, 3] == 0
    assert np.asarray(layer())[300, 700, 3] == 255


def test_one_transparent_colour_of_a_png_without_alpha_is_understood(make, layer):
    info = make(quarters(800, 600), transparency=(255, 0, 0))
    assert info.notes == ()
    assert [np.asarray(layer())[100, column, 3] for column in (100, 700)] == [0, 255]


def test_sixteen_bits_become_eight(make, layer):
    deep = np.asarray(drawn(800, 600)).astype(np.uint16) * 257
    png = pyvips.Image.new_from_array(deep, interpretation="rgb16").pngsave_buffer()
    info = make(bytes(png))
    assert info.notes == ("16 bits scaled to 8",)
    assert np.array_equal(np.asarray(layer()), np.asarray(drawn(800, 600)))


def test_a_jpeg_that_calls_itself_png_is_made_and_noted(make, layer):
    info = make(data_of(photo(400, 300), "JPEG", quality=95))
    assert info.notes == ("a jpeg picture by content, image/png by name", OPAQUE)
    right = np.asarray(photo(400, 300).resize((800, 600), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(np.asarray(layer())[..., :3] - right).mean() < 3


def test_cmyk_becomes_srgb(make, layer):
    inks = pyvips.Image.new_from_buffer(data_of(photo(400, 300), "PNG"), "")
    info = make(inks.icc_transform("cmyk", input_profile="srgb").jpegsave_buffer(Q=95))
    assert info.notes[0] == "converted to sRGB"
    assert layer().mode == "RGBA"
    right = np.asarray(photo(400, 300).resize((800, 600), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(np.asarray(layer())[..., :3] - right).mean() < 12


def test_profiles_are_treated_as_in_photos(make, layer):
    make(drawn(), icc_profile=SRGB)
    assert layer().info["icc_profile"] == SRGB
    p3 = ImageCms.ImageCmsProfile(io.BytesIO(pyvips.Image.profile_load("p3"))).tobytes()
    assert make(drawn(), icc_profile=p3).notes == ("converted to sRGB",)
    assert layer().info["icc_profile"] != p3
    broken = data_of(photo(), "JPEG", icc_profile=b"x" * 200)
    assert make(broken).notes[0] == "broken ICC profile dropped"
    assert "icc_profile" not in layer().info


def test_an_orientation_is_followed(make, layer):
    exif = Image.Exif()
    exif[0x0112] = 6
    info = make(quarters(600, 800), exif=exif)
    right = quarters(600, 800).transpose(Image.Transpose.ROTATE_270).convert("RGBA")
    assert np.array_equal(np.asarray(layer()), np.asarray(right))
    assert "rotated upright (orientation 6)" in info.notes


def _flipped(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


WHOLE = data_of(drawn(), "PNG")


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        (b"", "the file is empty"),
        (b"no picture", "not a picture of any known kind"),
        (WHOLE[: len(WHOLE) // 2], "damaged"),
        (WHOLE[:40], "damaged"),
        (_flipped(WHOLE), "damaged"),
        (data_of(photo(), "JPEG")[:20000], "damaged"),
        (data_of(drawn(), "TIFF"), "tiff pictures are not among the loaders"),
        (data_of(drawn(), "WEBP"), "webp pictures are not among the loaders"),
        (data_of(photo(), "GIF"), "gif pictures are not among the loaders"),
        (b"8BPS" + bytes(100), "save it as TIFF"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_is_no_whole_picture_is_refused_and_leaves_nothing(make, folder, stored, why):
    with pytest.raises(UnreadableImage, match=why):
        make(stored)
    assert list(folder.iterdir()) == []


# The result


def test_the_info_describes_the_file(make, folder):
    info = make(drawn())
    data = (folder / "layer.png").read_bytes()
    assert (info.bytes, info.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert [each.name for each in folder.iterdir()] == ["layer.png"]
    assert make(drawn()) == info


def test_metadata_are_not_passed_on(make, folder):
    exif = Image.Exif()
    exif[0x010F] = "SecretCamera"
    make(drawn(), exif=exif)
    assert b"Secret" not in (folder / "layer.png").read_bytes()


def saved_otherwise(monkeypatch, change=lambda image: image, **options):
    """Have libvips save another picture, or otherwise, than it is asked to."""
    honest = pyvips.Image.__getattr__

    def look_up(image, name):
        if name != "pngsave":
            return honest(image, name)
        return lambda target, **asked: honest(change(image), name)(target, **{**asked, **options})

    monkeypatch.setattr(pyvips.Image, "__getattr__", look_up)


@pytest.mark.parametrize(
    ("otherwise", "found"),
    [
        ({"change": lambda image: image.copy(xres=10)}, "does not say 6772 pixels per metre"),
        ({"change": lambda image: image[:3]}, "other pixels than were meant"),
        ({"change": lambda image: image.flip("vertical")}, "other pixels than were meant"),
        ({"keep": "all"}, "metadata"),
        ({"keep": "none"}, "ICC profile"),
    ],
)
def test_a_layer_saved_otherwise_than_asked_is_found(make, folder, monkeypatch, otherwise, found):
    exif = Image.Exif()
    exif[0x010F] = "camera"
    saved_otherwise(monkeypatch, **otherwise)
    with pytest.raises(VerificationFailed, match=found):
        make(drawn(), exif=exif, icc_profile=SRGB)
    assert list(folder.iterdir()) == []


def test_a_layer_that_cannot_be_written_is_no_fault_of_the_picture(make, folder, monkeypatch):
    def fail(*_):
        raise pyvips.Error("unable to call pngsave", "the disk is on fire")

    monkeypatch.setattr(layerpicture, "_write", fail)
    with pytest.raises(ItemFailed, match="could not be written: the disk is on fire"):
        make(drawn())
    assert list(folder.iterdir()) == []


def test_a_full_disk_stops_everything(make, monkeypatch):
    monkeypatch.setattr("imagecore.vipserror._NEARLY_FULL", 1 << 60)
    with pytest.raises(DiskFull):
        make(WHOLE[:500])


# The recipe


def test_the_recipe_changes_with_whatever_changes_the_bytes(monkeypatch):
    recipes = {
        each.fingerprint()
        for each in (
            LayerRecipe(),
            LayerRecipe(width=801),
            LayerRecipe(height=801),
            LayerRecipe(ppi=72),
        )
    }
    monkeypatch.setattr(layerpicture, "_VERSION", 0)
    recipes.add(LayerRecipe().fingerprint())
    monkeypatch.setattr(pyvips, "version", lambda part: 9)
    recipes.add(LayerRecipe().fingerprint())
    assert len(recipes) == 6
    assert LayerRecipe().fingerprint() in recipes


# In the child


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    temp = tmp_path_factory.mktemp("worker")
    with PictureWorker(temp_dir=temp, timeout_s=60, memory_mb=2048, file_mb=None) as each:
        yield each


def test_the_child_makes_the_same_layer(worker, make, tmp_path):
    recipe = LayerRecipe(300, 200, 96)
    info = make(data_of(photo(400, 300), "JPEG"), recipe)
    target = tmp_path / "child.png"
    assert worker.make_layer(tmp_path / "source", target, recipe) == info
    assert hashlib.sha256(target.read_bytes()).hexdigest() == info.sha256


def test_the_child_refuses_and_goes_on(worker, tmp_path):
    for name, data in (("bad", WHOLE[:500]), ("tiff", data_of(drawn(), "TIFF")), ("good", WHOLE)):
        (tmp_path / name).write_bytes(data)
    for name in ("bad", "tiff"):
        with pytest.raises(UnreadableImage):
            worker.make_layer(tmp_path / name, tmp_path / "layer.png", LayerRecipe())
    pid = worker.pid
    worker.make_layer(tmp_path / "good", tmp_path / "layer.png", LayerRecipe())
    assert worker.pid == pid
