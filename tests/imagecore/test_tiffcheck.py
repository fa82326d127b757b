"""The independent check: it passes every right pyramid and finds every kind of wrong one."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import PHOTOS

from imagecore.layout import Expected, VerificationFailed
from imagecore.pyramid import make_pyramid
from imagecore.recipe import recipe_from
from imagecore.tiffcheck import check_tiff, compare_with_source
from imagecore.tilemeans import area_means, exact_means

CELL = 128
COFFEE = Expected(
    width=600,
    height=400,
    tile=CELL,
    bands=3,
    bits=8,
    compression="deflate",
    photometric=2,
    bigtiff=False,
    dpi=300,
    profile=None,
)
JPEG = replace(COFFEE, compression="jpeg", photometric=6, quality=85)


@pytest.fixture(scope="module", params=["deflate", "jpeg"])
def right(request, tmp_path_factory) -> tuple[Path, Expected]:
    path = tmp_path_factory.mktemp("right") / "t.tif"
    recipe = recipe_from("legacy", {"tile": CELL, "compression": request.param})
    make_pyramid(PHOTOS / "coffee.png", path, recipe)
    return path, COFFEE if request.param == "deflate" else JPEG


@pytest.fixture
def wrong(right, tmp_path) -> tuple[Path, Expected]:
    path = tmp_path / "wrong.tif"
    shutil.copy(right[0], path)
    return path, right[1]


def _tables(path: Path, level: int) -> tuple[list[int], list[int], int, int]:
    """Tile offsets and lengths, and where in the file these two tables are."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[level].aspage()
        places = page.tags["TileOffsets"].valueoffset, page.tags["TileByteCounts"].valueoffset
        return list(page.dataoffsets), list(page.databytecounts), *places


def _write(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_a_right_pyramid_passes_and_its_means_are_the_sources(right):
    path, expected = right
    source = pyvips.Image.new_from_file(str(PHOTOS / "coffee.png"))
    compare_with_source(check_tiff(path, expected), exact_means(source, CELL), expected)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_zeroed_tile_is_found(wrong, level):
    path, expected = wrong
    offsets, counts, *_ = _tables(path, level)
    _write(path, offsets[1 if len(offsets) > 1 else 0], bytes(counts[-1] // 2))
    with pytest.raises(VerificationFailed):
        check_tiff(path, expected)


@pytest.mark.parametrize("level", [0, 1])
def test_a_black_tile_that_decodes_is_found(wrong, level, tmp_path):
    path, expected = wrong
    black = tmp_path / "black.tif"
    pyvips.Image.black(600, 400, bands=3).copy(interpretation="srgb").tiffsave(
        str(black), tile=True, pyramid=True, tile_width=CELL, tile_height=CELL,
        compression=expected.compression, Q=85, predictor="horizontal",
    )  # fmt: skip
    offsets, counts, _, places = _tables(path, level)
    black_offsets, black_counts, *_ = _tables(black, level)
    tile = black.read_bytes()[black_offsets[1] :][: black_counts[1]]
    assert len(tile) <= counts[1]
    _write(path, offsets[1], tile)
    with tifffile.TiffFile(path) as tiff:
        size = 2 if tiff.pages[level].aspage().tags["TileByteCounts"].dtype == 3 else 4
    _write(path, places + size, len(tile).to_bytes(size, "little"))
    with pytest.raises(VerificationFailed, match=r"level 0 and level 1|level 1 and level 2"):
        check_tiff(path, expected)


def test_swapped_tiles_are_found(wrong):
    path, expected = wrong
    offsets, counts, offsets_at, counts_at = _tables(path, 0)
    with tifffile.TiffFile(path) as tiff:
        size = 2 if tiff.pages[0].aspage().tags["TileByteCounts"].dtype == 3 else 4
    swap = [(offsets_at, offsets, 4), (counts_at, counts, size)]
    for at, values, width in swap:
        _write(path, at, b"".join(v.to_bytes(width, "little") for v in (values[7], values[1])))
    with pytest.raises(VerificationFailed):
        check_tiff(path, expected)


def test_swapped_bands_are_found(right):
    path, expected = right
    source = pyvips.Image.new_from_file(str(PHOTOS / "coffee.png"))
    swapped = exact_means(source, CELL)[..., ::-1]
    with pytest.raises(VerificationFailed, match="level 0 and the source differ"):
        compare_with_source(check_tiff(path, expected), swapped, expected)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_found(wrong, share):
    path, expected = wrong
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(VerificationFailed):
        check_tiff(path, expected)


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("offset", [0, 4, 2**31], ids=["nothing", "header", "outside"])
def test_a_tile_outside_the_data_is_found(wrong, level, offset):
    path, expected = wrong
    _, _, offsets_at, _ = _tables(path, level)
    _write(path, offsets_at, offset.to_bytes(4, "little"))
    with pytest.raises(VerificationFailed, match="out of place"):
        check_tiff(path, expected)


@given(entry=st.integers(0, 19), byte=st.integers(0, 3), bit=st.integers(0, 7))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_flipped_bit_in_the_tile_table_is_found(right, tmp_path, entry, byte, bit):
    path = tmp_path / "flipped.tif"
    shutil.copy(right[0], path)
    at = _tables(path, 0)[2] + 4 * entry + byte
    old = path.read_bytes()[at]
    _write(path, at, bytes([old ^ (1 << bit)]))
    with pytest.raises(VerificationFailed):
        check_tiff(path, right[1])


CHANGES = {
    "width": {"width": 601},
    "height": {"height": 399},
    "tile": {"tile": 256},
    "bands": {"bands": 1},
    "bits": {"bits": 16},
    "compression": {"compression": "lzw"},
    "photometric": {"photometric": 5},
    "bigtiff": {"bigtiff": True},
    "dpi": {"dpi": 72},
    "profile": {"profile": b"another"},
}


@pytest.mark.parametrize("fact", CHANGES)
def test_every_expected_fact_is_compared(right, fact):
    words = {
        "width": "levels",
        "tile": "levels",
        "height": "levels",
        "bigtiff": "BigTIFF",
        "dpi": "resolution",
    }
    with pytest.raises(VerificationFailed, match=words.get(fact, fact)):
        check_tiff(right[0], replace(right[1], **CHANGES[fact]))


@pytest.mark.parametrize("preset", ["deflate", "jpeg"])
def test_a_replaced_level_is_found(tmp_path, preset):
    levels = [np.asarray(_coffee(width, height)) for width, height in ((256, 256), (128, 128))]
    levels[1] = np.rot90(levels[1], 2)
    path = tmp_path / "t.tif"
    with tifffile.TiffWriter(path) as writer:
        for pixels in levels:
            writer.write(
                np.ascontiguousarray(pixels), tile=(CELL, CELL), photometric="rgb",
                compression="adobe_deflate" if preset == "deflate" else None,
                resolution=(300, 300), resolutionunit=2, metadata=None,
            )  # fmt: skip
    expected = replace(COFFEE, width=256, height=256, compression="deflate")
    if preset == "jpeg":
        expected = replace(expected, compression="none")
    with pytest.raises(VerificationFailed, match="level 0 and level 1 differ"):
        check_tiff(path, expected)


def _coffee(width: int, height: int) -> np.ndarray:
    from pictures import photo

    return np.asarray(photo(width, height))


Painter = Callable[[int, int], np.ndarray]
PAINTERS: dict[str, Painter] = {
    "checkerboard": lambda x, y: (x + y) % 2,
    "wide checkerboard": lambda x, y: (x // 2 + y // 2) % 2,
    "columns": lambda x, y: x % 2 + 0 * y,
    "rows": lambda x, y: y % 2 + 0 * x,
    "every fourth column": lambda x, y: (x % 4 == 0) + 0 * y,
    "one bright pixel": lambda x, y: (x == x.max() // 2) & (y == y.max() // 3),
    "last pixel": lambda x, y: (x == x.max()) & (y == y.max()),
    "gradient": lambda x, y: (x + y) / max(1, int(x.max() + y.max())),
    "flat": lambda x, y: 0 * x + 0 * y,
    "noise": lambda x, y: np.random.default_rng(0).integers(0, 2, np.broadcast(x, y).shape),
}
SIDES = st.one_of(st.sampled_from([1, 2, 3, 7, 8, 9, 127, 128, 129, 257]), st.integers(1, 300))


@given(
    width=SIDES,
    height=SIDES,
    painter=st.sampled_from(list(PAINTERS)),
    colours=st.lists(st.integers(0, 255), min_size=8, max_size=8),
    bands=st.integers(1, 4),
    deep=st.booleans(),
    compression=st.sampled_from(["jpeg", "deflate"]),
    quality=st.sampled_from([50, 75, 85, 90, 100]),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_right_pyramid_is_ever_refused(
    tmp_path, width, height, painter, colours, bands, deep, compression, quality
):
    x, y = np.arange(width)[None, :], np.arange(height)[:, None]
    mix = np.asarray(PAINTERS[painter](x, y), float)[..., None]
    one, other = np.array(colours[:bands]), np.array(colours[4 : 4 + bands])
    pixels = np.rint(one * (1 - mix) + other * mix)
    pixels = (pixels * 257).astype(np.uint16) if deep else pixels.astype(np.uint8)
    space = {1: "b-w", 2: "b-w", 3: "srgb", 4: "srgb"}[bands]
    deep_space = {"b-w": "grey16", "srgb": "rgb16"}[space]
    image = pyvips.Image.new_from_array(pixels).copy(interpretation=deep_space if deep else space)
    image.pngsave(str(tmp_path / "s.png"), compression=1)
    recipe = recipe_from("lossless", {"tile": CELL, "compression": compression, "quality": quality})
    make_pyramid(tmp_path / "s.png", tmp_path / "t.tif", recipe)


@given(width=st.integers(8, 200), height=st.integers(8, 200), cell=st.sampled_from([16, 50]))
@settings(max_examples=30, deadline=None)
def test_means_of_a_copy_of_the_same_size_are_exact(width, height, cell):
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.uint8)
    image = pyvips.Image.new_from_array(pixels)
    found = area_means(pixels, (width, height), cell)
    assert np.allclose(found, exact_means(image, cell))
