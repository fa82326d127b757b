"""A pyramid: sizes, levels, bytes, and nothing visible before it is right."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pyvips
import tifffile
from pictures import PHOTOS, data_of, page_of, photo, pixels_of
from PIL import Image

from imagecore import pyramid
from imagecore.errors import DiskFull, ItemFailed
from imagecore.layout import VerificationFailed, expected_levels, needs_bigtiff
from imagecore.picture import open_stored, target_size
from imagecore.pyramid import make_pyramid
from imagecore.recipe import PRESETS, recipe_from

INCLUDE = Path(__file__).parents[2] / "include"


@pytest.mark.parametrize(
    ("size", "limits", "result"),
    [
        ((8001, 6001), (4000, 4000), (4000, 3000)),
        ((4500, 1000), (4000, 4000), (4000, 889)),
        ((3000, 6001), (4000, 4000), (2000, 4000)),
        ((843, 561), (843, 560), (841, 560)),
        ((100, 50), (4000, 4000), (100, 50)),
        ((4000, 4000), (4000, 4000), (4000, 4000)),
        ((30000, 7), (4000, 4000), (4000, 1)),
        ((100000, 1), (4000, None), (4000, 1)),
        ((5000, 5000), (None, None), (5000, 5000)),
        ((5000, 5000), (None, 100), (100, 100)),
    ],
)
def test_a_picture_fits_both_limits_and_is_never_enlarged(size, limits, result):
    assert target_size(*size, limits) == result


@pytest.mark.parametrize(
    ("size", "levels"),
    [
        ((4000, 3000), [(4000, 3000), (2000, 1500), (1000, 750), (500, 375)]),
        ((1203, 1203), [(1203, 1203), (601, 601), (300, 300)]),
        ((30000, 7), [(30000, 7), (15000, 3), (7500, 1)]),
        ((512, 512), [(512, 512)]),
        ((513, 1), [(513, 1)]),
        ((1, 1), [(1, 1)]),
    ],
)
def test_levels_halve_until_a_tile_holds_them_or_a_side_is_one_pixel(size, levels, tmp_path):
    assert expected_levels(*size, 512) == levels
    source = tmp_path / "s.png"
    pyvips.Image.black(*size, bands=3).copy(interpretation="srgb").pngsave(str(source))
    info = make_pyramid(source, tmp_path / "t.tif", PRESETS["lossless"])
    with tifffile.TiffFile(tmp_path / "t.tif") as tiff:
        pages = [page.aspage() for page in tiff.pages]
        assert [(page.imagewidth, page.imagelength) for page in pages] == levels
    assert info.pages == len(levels)


def test_the_report_of_a_pyramid_describes_the_file(tmp_path):
    target = tmp_path / "t.tif"
    info = make_pyramid(PHOTOS / "retina.jpg", target, PRESETS["legacy"])
    assert (info.width, info.height, info.pages, info.tile) == (1411, 1411, 3, 512)
    assert (info.source_width, info.source_height, info.source_kind) == (1411, 1411, "jpeg")
    assert info.bytes == target.stat().st_size
    assert info.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    assert info.notes == ()


def test_legacy_keeps_every_pixel_of_a_small_picture(tmp_path):
    make_pyramid(PHOTOS / "coffee.png", tmp_path / "t.tif", PRESETS["legacy"])
    assert np.array_equal(pixels_of(tmp_path / "t.tif"), np.asarray(photo()))


def test_both_copyright_limits_hold(tmp_path):
    source = tmp_path / "s.jpg"
    source.write_bytes(data_of(photo(843, 561), "JPEG"))
    info = make_pyramid(source, tmp_path / "t.tif", PRESETS["legacy"], copyright=True)
    assert (info.width, info.height) == (841, 560)


def test_limits_apply_to_the_upright_picture(tmp_path):
    source = tmp_path / "s.jpg"
    source.write_bytes(_turned(300, 200))
    recipe = recipe_from("legacy", {"max_width": 100, "max_height": 4000})
    info = make_pyramid(source, tmp_path / "t.tif", recipe)
    assert (info.width, info.height) == (100, 150)


def _turned(width: int, height: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return data_of(photo(width, height), "JPEG", exif=exif)


def test_a_large_turned_picture_goes_through_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("imagecore.pyramid._IN_MEMORY_BYTES", 1000)
    source = tmp_path / "s.jpg"
    source.write_bytes(_turned(300, 200))
    make_pyramid(source, tmp_path / "t.tif", PRESETS["lossless"])
    right = np.rot90(np.asarray(photo(300, 200)), -1).astype(int)
    assert np.abs(pixels_of(tmp_path / "t.tif") - right).mean() < 5


@pytest.mark.parametrize("compression", ["deflate", "lzw", "webp", "none", "jpeg"])
@pytest.mark.parametrize("quality", [50, 85, 95])
def test_every_compression_is_written_and_verified(compression, quality, tmp_path):
    recipe = recipe_from("iiif", {"compression": compression, "quality": quality})
    make_pyramid(PHOTOS / "rocket.jpg", tmp_path / "t.tif", recipe)


def test_resolution_and_tile_size_are_as_asked(tmp_path):
    recipe = recipe_from("legacy", {"dpi": 72, "tile": 128})
    info = make_pyramid(PHOTOS / "coffee.png", tmp_path / "t.tif", recipe)
    page = page_of(tmp_path / "t.tif")
    assert (page.tilewidth, page.tilelength, info.pages) == (128, 128, 4)
    assert page.tags["XResolution"].value == (72, 1)


def test_bigtiff_is_used_when_four_gigabytes_could_be_passed(tmp_path, monkeypatch):
    assert not needs_bigtiff(20000, 30000, 3, 1)
    assert needs_bigtiff(32000, 32000, 3, 1)
    assert needs_bigtiff(20000, 30000, 3, 2)
    monkeypatch.setattr("imagecore.pyramid.needs_bigtiff", lambda *facts: True)
    make_pyramid(PHOTOS / "coffee.png", tmp_path / "t.tif", PRESETS["legacy"])
    with tifffile.TiffFile(tmp_path / "t.tif") as tiff:
        assert tiff.is_bigtiff


def test_bytes_do_not_depend_on_threads(tmp_path):
    code = (
        "import sys, pathlib; from imagecore.pyramid import make_pyramid\n"
        "from imagecore.recipe import recipe_from\n"
        "for preset in ('legacy', 'iiif'):\n"
        "    recipe = recipe_from(preset, {'max_width': 1000, 'tile': 128})\n"
        "    print(make_pyramid(*map(pathlib.Path, sys.argv[1:]), recipe).sha256)\n"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code, str(PHOTOS / "retina.jpg"), str(tmp_path / f"{n}.tif")],
            env={**os.environ, "VIPS_CONCURRENCY": str(n), "PYTHONPATH": str(INCLUDE)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for n in (1, 4)
    }
    assert len(seen) == 1


def test_a_changed_source_at_the_same_path_is_read_again(tmp_path):
    source = tmp_path / "s.png"
    still_open = []
    for colour in (10, 200):
        source.write_bytes(data_of(photo(40, 30).point(lambda _, c=colour: c), "PNG"))
        still_open.append(open_stored(source, "png", PRESETS["legacy"]))
        still_open[-1].avg()
        make_pyramid(source, tmp_path / "t.tif", PRESETS["legacy"])
        assert pixels_of(tmp_path / "t.tif").max() == colour


def test_nothing_is_left_when_verification_fails(tmp_path, monkeypatch):
    def fail(*_):
        raise VerificationFailed("a tile is wrong")

    monkeypatch.setattr("imagecore.tiffcheck.check_tiff", fail)
    (tmp_path / "t.tif").write_text("the last good result")
    with pytest.raises(VerificationFailed):
        make_pyramid(PHOTOS / "coffee.png", tmp_path / "t.tif", PRESETS["legacy"])
    assert [each.name for each in tmp_path.iterdir()] == ["t.tif"]
    assert (tmp_path / "t.tif").read_text() == "the last good result"


@pytest.mark.parametrize("photo_name", ["retina.jpg", "coffee.png"])
def test_a_pipeline_that_saves_other_pixels_is_found(tmp_path, monkeypatch, photo_name):
    honest = pyramid._save
    monkeypatch.setattr("imagecore.pyramid._QUICK_PIXELS", 1000)
    monkeypatch.setattr(pyramid, "_save", lambda image, *rest: honest(_swap(image), *rest))
    with pytest.raises(VerificationFailed, match="the source"):
        make_pyramid(PHOTOS / photo_name, tmp_path / "t.tif", PRESETS["iiif"])


def _swap(image: pyvips.Image) -> pyvips.Image:
    return image[2].bandjoin([image[1], image[0]]).copy(interpretation="srgb")


def test_a_full_disk_stops_everything(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "imagecore.vipserror.shutil.disk_usage", lambda folder: SimpleNamespace(free=0)
    )
    broken = tmp_path / "s.jpg"
    broken.write_bytes(data_of(photo(), "JPEG")[:5000])
    with pytest.raises(DiskFull):
        make_pyramid(broken, tmp_path / "t.tif", PRESETS["legacy"])


def test_a_target_folder_that_is_missing_is_no_fault_of_the_picture(tmp_path):
    with pytest.raises((ItemFailed, OSError)):
        make_pyramid(PHOTOS / "coffee.png", tmp_path / "no" / "t.tif", PRESETS["legacy"])
