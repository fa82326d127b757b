"""A pyramid read piece by piece: each tile alone is what it is in the whole file, and any bytes at
all end in tiles or in a reason."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pictures import photo
from PIL import ImageCms

from imagecore import pyramidfile, tiffdirectory
from imagecore.errors import UnreadableImage
from imagecore.pyramid import make_pyramid
from imagecore.pyramidfile import PyramidFile, PyramidLevel
from imagecore.recipe import PRESETS, Recipe

LOSSLESS = replace(PRESETS["lossless"], tile=128)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WIDTH, HEIGHT = 333, 217


class Reader:
    """Serves a file's bytes as a range request would, and remembers what was asked."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []

    def __call__(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= len(self.data)
        self.asked.append((offset, length))
        return self.data[offset : offset + length]


def opened(data: bytes) -> PyramidFile:
    return PyramidFile.open(Reader(data), len(data))


def pixels(bands: int, bits: int = 8) -> NDArray[np.unsignedinteger]:
    rgb = np.asarray(photo(WIDTH, HEIGHT))
    made = np.concatenate([rgb, rgb[::-1, :, :1]], axis=2)[
        ..., [2, 3] if bands == 2 else slice(bands)
    ]
    return made.astype(np.uint16) * 257 + 11 if bits == 16 else made


def stored(
    folder: Path, recipe: Recipe, bands: int = 3, bits: int = 8, space: str = "", icc: bool = False
) -> bytes:
    """A pyramid that the project makes of a picture with so many bands."""
    deep = bits == 16
    space = space or (("grey16" if deep else "b-w") if bands < 3 else "rgb16" if deep else "srgb")
    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels(bands, bits))).copy(
        interpretation=space
    )
    if icc:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", SRGB)
    image.tiffsave(str(folder / "s.tif"))
    make_pyramid(folder / "s.tif", folder / "t.tif", recipe)
    return (folder / "t.tif").read_bytes()


def saved(**options: object) -> bytes:
    image = pyvips.Image.new_from_array(pixels(3)).copy(interpretation="srgb")
    settings = {"tile": True, "pyramid": True, "tile_width": 128, "tile_height": 128, **options}
    data: bytes = image.tiffsave_buffer(**settings)
    return data


def written(byteorder: str, bits: int = 16, **options: object) -> bytes:
    """A pyramid with its levels in sub-directories, by another writer."""
    file, whole = io.BytesIO(), pixels(3, bits)
    common = {"tile": (64, 128), "photometric": "rgb", **options}
    with tifffile.TiffWriter(file, byteorder=byteorder, bigtiff=byteorder == ">") as tiff:
        tiff.write(whole, subifds=1, **common)
        common.pop("iccprofile", None)
        tiff.write(whole[::2, ::2], subfiletype=1, **common)
    return file.getvalue()


def levels_of(data: bytes) -> list[NDArray[np.unsignedinteger]]:
    """All levels by the independent reader."""
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        first = tiff.pages[0].aspage()
        return [page.asarray() for page in [*tiff.pages, *(first.pages or ())]]


MADE: dict[str, Callable[[Path], bytes]] = {
    "deflate": lambda at: stored(at, LOSSLESS),
    "deflate, grey": lambda at: stored(at, LOSSLESS, 1),
    "deflate, grey and alpha": lambda at: stored(at, LOSSLESS, 2),
    "deflate, alpha": lambda at: stored(at, LOSSLESS, 4),
    "deflate, 16 bits": lambda at: stored(at, LOSSLESS, 3, 16),
    "deflate, 16 bits, grey": lambda at: stored(at, LOSSLESS, 1, 16),
    "deflate, profile": lambda at: stored(at, LOSSLESS, icc=True),
    "deflate, CMYK": lambda at: stored(at, LOSSLESS, 4, space="cmyk"),
    "jpeg": lambda at: stored(at, replace(LOSSLESS, compression="jpeg"), icc=True),
    "jpeg as RGB": lambda at: stored(at, replace(LOSSLESS, compression="jpeg", quality=95)),
    "jpeg, grey": lambda at: stored(at, replace(LOSSLESS, compression="jpeg"), 1),
    "jpeg, CMYK": lambda at: stored(at, replace(LOSSLESS, compression="jpeg"), 4, space="cmyk"),
    "lzw": lambda at: stored(at, replace(LOSSLESS, compression="lzw")),
    "lzw, 16 bits, alpha": lambda at: stored(at, replace(LOSSLESS, compression="lzw"), 4, 16),
    "webp": lambda at: stored(at, replace(LOSSLESS, compression="webp")),
    "webp, alpha": lambda at: stored(at, replace(LOSSLESS, compression="webp"), 4),
    "none": lambda at: stored(at, replace(LOSSLESS, compression="none")),
    "none, 16 bits": lambda at: stored(at, replace(LOSSLESS, compression="none"), 3, 16),
    "small": lambda at: stored(at, replace(LOSSLESS, tile=512)),
    "BigTIFF": lambda _: saved(compression="deflate", bigtiff=True),
    "BigTIFF, jpeg": lambda _: saved(compression="jpeg", bigtiff=True),
    "sub-directories": lambda _: saved(compression="lzw", subifd=True),
    "sub-directories, BigTIFF": lambda _: saved(compression="jpeg", subifd=True, bigtiff=True),
    # By another writer, with two levels only.
    "big-endian, 16 bits": lambda _: written(">", compression="zlib", predictor=2),
    "big-endian, 16 bits, not compressed": lambda _: written(">"),
    "jpeg, colour not halved": lambda _: written(
        "<", 8, compression="jpeg", subsampling=(1, 1), tile=(128, 128)
    ),
    "little-endian, tiles that are not square": lambda _: written("<", compression="lzw"),
}


@pytest.mark.parametrize("name", MADE)
def test_each_tile_alone_is_exactly_what_it_is_in_the_whole_file(name, tmp_path):
    data = MADE[name](tmp_path)
    file, whole = opened(data), levels_of(data)
    assert [(level.height, level.width) for level in file.levels] == [
        level.shape[:2] for level in whole
    ]
    for number, level in enumerate(file.levels):
        for row in range(level.rows):
            for column in range(level.columns):
                top, left = row * level.tile_height, column * level.tile_width
                wide, high = level.inside(column, row)
                region = whole[number][top : top + high, left : left + wide]
                tile = file.tile(number, column, row)
                assert np.array_equal(levels_of(tile)[0], region)
                assert np.array_equal(seen_by_vips(tile), region)


def seen_by_vips(tile: bytes) -> NDArray[np.unsignedinteger]:
    found: NDArray[np.unsignedinteger] = pyvips.Image.tiffload_buffer(
        tile, fail_on="warning"
    ).numpy()
    return found


NEEDED = (258, 259, 262, 277, 284, 317, 338, 339, 347, 530, 34675)


@pytest.mark.parametrize(
    "name",
    ["jpeg", "deflate, alpha", "BigTIFF, jpeg", "lzw, 16 bits, alpha", "jpeg, colour not halved"],
)
def test_a_tile_keeps_every_tag_that_a_decoder_needs(name, tmp_path):
    data = MADE[name](tmp_path)
    file = opened(data)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        for number, page in enumerate(tiff.pages):
            with tifffile.TiffFile(io.BytesIO(file.tile(number, 0, 0))) as tile:
                kept, there = tile.pages[0].aspage().tags, page.aspage().tags
                assert [kept.valueof(tag) for tag in NEEDED] == list(map(there.valueof, NEEDED))


def test_a_profile_of_the_first_page_alone_holds_for_every_level():
    file = opened(written("<", iccprofile=SRGB))
    for level in (0, 1):
        image = pyvips.Image.tiffload_buffer(file.tile(level, 0, 0))
        assert image.get("icc-profile-data") == SRGB


def test_opening_takes_one_read_and_at_most_one_a_level(tmp_path):
    for size, levels, most in (((100, 80), 1, 1), ((2000, 1500), 5, 6)):
        photo(*size).save(tmp_path / "s.png")
        recipe = replace(LOSSLESS, compression="none")
        make_pyramid(tmp_path / "s.png", tmp_path / "t.tif", recipe)
        read = Reader((tmp_path / "t.tif").read_bytes())
        file = PyramidFile.open(read, len(read.data))
        assert len(file.levels) == levels
        assert len(read.asked) <= most
    read.asked.clear()
    file.tile(0, 3, 2)
    assert [length for _, length in read.asked] == [128 * 128 * 3]


def test_the_table_of_a_large_picture_is_not_read_for_one_tile():
    data = pyvips.Image.black(9000, 9000).tiffsave_buffer(
        tile=True, tile_width=16, tile_height=16, compression="none", bigtiff=True
    )
    read = Reader(data)
    file = PyramidFile.open(read, len(data))
    read.asked.clear()
    file.tile(0, 500, 500)
    assert sorted(length for _, length in read.asked) == [2, 8, 256]


def test_levels_and_tiles_that_are_not_there_are_named():
    file = opened(saved(compression="deflate"))
    assert file.levels[1] == PyramidLevel(166, 108, 128, 128)
    assert (file.levels[0].columns, file.levels[0].rows) == (3, 2)
    with pytest.raises(LookupError, match="no level 3: they are 0 to 2"):
        file.tile(3, 0, 0)
    for column, row in ((3, 0), (0, 2), (-1, 0), (0, -1)):
        with pytest.raises(LookupError, match=f"column {column}, row {row} of level 0"):
            file.tile(0, column, row)
    with pytest.raises(LookupError, match="no level -1"):
        file.tile(-1, 0, 0)


def test_the_facts_are_what_the_file_says(tmp_path):
    facts = opened(MADE["jpeg"](tmp_path)).facts()
    assert json.loads(json.dumps(facts)) == facts
    size = (tmp_path / "t.tif").stat().st_size
    expected = {
        "bytes": size,
        "bigtiff": False,
        "byte_order": "little-endian",
        "width": WIDTH,
        "height": HEIGHT,
        "levels": 3,
        "tile_width": 128,
        "tile_height": 128,
        "compression": "jpeg",
        "photometric": "YCbCr",
        "bands": 3,
        "bits": 8,
        "sample_format": "unsigned",
        "alpha": False,
        "orientation": 1,
        "dpi": [300.0, 300.0],
        "profile": "sRGB built-in",
        "software": None,
        "datetime": None,
        "description": None,
    }
    assert facts == expected


def test_the_facts_of_another_writer_with_text_made_safe():
    data = written(
        ">",
        software="A <b>tool</b>",
        description="one\ntwo " + "x" * 3000,
        resolution=(100, 50),
        resolutionunit=1,
    )
    facts = opened(data).facts()
    assert (facts["bigtiff"], facts["byte_order"], facts["bits"]) == (True, "big-endian", 16)
    assert facts["software"] == "A <b>tool</b>"
    assert facts["description"].startswith("one\\ntwo xxx")
    assert len(facts["description"]) == 500
    assert facts["dpi"] is None  # no unit: a shape, no resolution


def with_alpha() -> bytes:
    image = pyvips.Image.new_from_array(pixels(4)).copy(interpretation="srgb")
    data: bytes = image.tiffsave_buffer(tile=True)
    return data


def test_alpha_and_centimetres_and_a_profile_by_its_size():
    data = written("<", iccprofile=b"no profile at all", resolution=(40, 20), resolutionunit=3)
    facts = opened(data).facts()
    assert facts["dpi"] == [101.6, 50.8]
    assert (facts["alpha"], opened(with_alpha()).facts()["alpha"]) == (False, True)
    assert facts["profile"] == "17 bytes without a name"


@pytest.mark.parametrize("name", [*MADE][:-4])
def test_a_right_pyramid_has_no_faults(name, tmp_path):
    assert opened(MADE[name](tmp_path)).faults() == []


def place(data: bytes, tag: int, page: int = 0) -> int:
    """Where the first value of a tag lies."""
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        return tiff.pages[page].aspage().tags[tag].valueoffset


def changed(
    data: bytes, tag: int, value: int, page: int = 0, code: str = "I", index: int = 0
) -> bytes:
    made = bytearray(data)
    at = place(data, tag, page) + index * struct.calcsize("<" + code)
    struct.pack_into("<" + code, made, at, value)
    return bytes(made)


RIGHT = saved(compression="deflate")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (changed(RIGHT, 324, 0), "level 0: 1 of 6 tiles are missing"),
        (changed(RIGHT, 325, 0, code="H", index=2), "level 0: 1 of 6 tiles are missing"),
        (changed(RIGHT, 324, 1 << 30, 1), "level 1: 1 of 2 tiles end behind the file"),
        (changed(RIGHT, 324, 9, 1), "2 tiles share bytes with another"),
        (changed(RIGHT, 256, 165, 1, "H"), "level 1 is 165 x 108, should be 166 x 108"),
        (changed(RIGHT, 259, 5, 2, "H"), "level 2: compression is lzw, in level 0 it is deflate"),
        (changed(RIGHT, 254, 0, 2), "the number of levels is 2, should be 3"),
        (
            changed(RIGHT, 257, 400, 0, "H"),
            "level 0 has 12 tiles, its tables name 6 places and 6 sizes",
        ),
        (saved(pyramid=False), "the number of levels is 1, should be 3"),
        (written("<"), "tiles are 128 x 64, should be square"),
    ],
)
def test_each_fault_is_said(data, fault):
    assert fault in opened(data).faults()


def test_a_table_too_long_is_not_looked_at(monkeypatch):
    monkeypatch.setattr(pyramidfile, "MAX_TABLE", 5)
    assert "more than 5 tiles" in opened(RIGHT).faults()[0]


def pages(*reduced: bool, strips: int | None = None) -> bytes:
    """Pages of falling size; the one numbered `strips` is not tiled."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        for number, each in enumerate(reduced):
            side = max(256 >> number, 1)
            shape = {"rowsperstrip": 16} if number == strips else {"tile": (64, 64)}
            tiff.write(np.full((side, side), number, "u1"), subfiletype=int(each), **shape)
    return file.getvalue()


def test_pages_that_are_no_smaller_levels_are_other_pictures():
    assert [level.width for level in opened(pages(False, False, True)).levels] == [256]
    assert [level.width for level in opened(pages(False, True, True, False, True)).levels] == [
        256,
        128,
        64,
    ]


def test_a_reduced_page_in_strips_is_left_out_and_said():
    file = opened(pages(False, True, True, strips=1))
    assert [level.width for level in file.levels] == [256, 64]
    assert "a reduced page is not tiled" in file.faults()


def test_a_reduced_page_that_is_not_smaller_is_left_out_and_said():
    data = changed(pages(False, True), 256, 64, code="H")
    data = changed(data, 257, 64, code="H")
    file = opened(data)
    assert [level.width for level in file.levels] == [64]
    assert "a reduced page is not smaller than the picture" in file.faults()


def _circle() -> bytes:
    """The second page names the first as the next."""
    data = bytearray(pages(False, True))
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        first, second = (page.aspage() for page in tiff.pages)
        struct.pack_into("<I", data, second.offset + 2 + 12 * len(second.tags), first.offset)
    return bytes(data)


def _endless() -> bytes:
    """More reduced pages than any picture has."""
    return pages(False, *[True] * 45)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a TIFF"),
        (b"II*", "not a TIFF"),
        (b"II*\0\0\0\0\0", "it is damaged"),
        (b"II*\0\xff\xff\xff\xff", "points at byte"),
        (b"a text file, much longer than any header", "not a TIFF"),
        (RIGHT[: len(RIGHT) // 2], "points at byte .* it was cut short"),
        (pages(False, strips=0), "not tiled.*make a pyramid of it"),
        (_circle(), "runs in a circle"),
        (_endless(), "more than 40 reduced pages"),
        (changed(RIGHT, 256, 0, code="H"), "a side of 0 pixels"),
        (changed(RIGHT, 277, 33, code="H"), "33 bands"),
        (
            changed(changed(RIGHT, 322, 60000, code="H"), 323, 60000, code="H"),
            "a tile of 60000 x 60000 pixels",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_reason(data, reason):
    with pytest.raises(UnreadableImage, match=reason):
        opened(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (changed(RIGHT, 324, 0), "column 0, row 0 of level 0 is missing"),
        (changed(RIGHT, 325, 0, code="H"), "column 0, row 0 of level 0 is missing"),
        (changed(RIGHT, 324, 1 << 30), "points at byte"),
        (changed(RIGHT, 259, 34712, code="H"), "compression 34712 are not served"),
        (changed(RIGHT, 284, 2, code="H"), "each band of this TIFF"),
    ],
)
def test_a_tile_that_cannot_be_served_is_refused_with_a_reason(data, reason):
    with pytest.raises(UnreadableImage, match=reason):
        opened(data).tile(0, 0, 0)


def test_a_tile_behind_the_end_of_its_table_is_refused():
    data = changed(RIGHT, 257, 400, code="H")
    with pytest.raises(UnreadableImage, match="tag 324 of the TIFF has 6 values where 10 belong"):
        opened(data).tile(0, 0, 3)


def entry(data: bytes, tag: int) -> int:
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        return tiff.pages[0].aspage().tags[tag].offset


def test_a_page_without_tables_has_no_tiles():
    for tag in (324, 325):
        at = entry(RIGHT, tag)
        data = RIGHT[:at] + struct.pack("<H", 65000) + RIGHT[at + 2 :]
        with pytest.raises(UnreadableImage, match="column 1, row 1 of level 0 is missing"):
            opened(data).tile(0, 1, 1)
        assert any("level 0 has 6 tiles, its tables name" in each for each in opened(data).faults())


def retyped(tag: int, kind: int) -> bytes:
    at = entry(RIGHT, tag) + 2
    return RIGHT[:at] + struct.pack("<H", kind) + RIGHT[at + 2 :]


def test_values_of_another_type_are_refused_or_left_out():
    with pytest.raises(UnreadableImage, match="tag 256 of the TIFF is not a number"):
        opened(retyped(256, 2))
    with pytest.raises(UnreadableImage, match="tag 317 of level 0 is of no type"):
        opened(retyped(317, 13)).tile(0, 0, 0)
    assert opened(RIGHT).facts()["dpi"] == [25.4, 25.4]
    assert opened(retyped(282, 3)).facts()["dpi"] is None
    assert opened(retyped(282, 99)).facts()["dpi"] is None


def test_of_long_values_only_the_beginning_is_read():
    data = bytearray(written("<", description="x" * 300_000))
    for bits in (3, 60_000):
        struct.pack_into("<I", data, entry(data, 258) + 4, bits)
        read = Reader(bytes(data))
        with suppress(UnreadableImage):  # what follows the three is no number of bits
            facts = PyramidFile.open(read, len(data)).facts()
            assert (facts["bits"], len(facts["description"])) == (16, 500)
        assert max(length for _, length in read.asked) <= tiffdirectory.PIECE_BYTES


def test_values_in_a_tile_begin_at_even_places():
    tile = opened(written("<", iccprofile=b"of odd length")).tile(0, 0, 0)
    with tifffile.TiffFile(io.BytesIO(tile)) as tiff:
        page = tiff.pages[0].aspage()
        places = [*page.dataoffsets, *(tag.valueoffset for tag in page.tags)]
        assert all(place % 2 == 0 for place in places)


def test_values_and_places_are_bounded(monkeypatch, tmp_path):
    file = opened(MADE["jpeg"](tmp_path))
    monkeypatch.setattr(tiffdirectory, "MAX_VALUE_BYTES", 400)
    with pytest.raises(UnreadableImage, match="bytes, more than the 400 that are read"):
        file.tile(0, 0, 0)
    monkeypatch.setattr(tiffdirectory, "MAX_KEPT", 1)
    with pytest.raises(UnreadableImage, match="lie in more than 1 places"):
        opened(saved(compression="none"))


def test_a_tile_that_is_too_large_is_not_read(monkeypatch):
    read = Reader(RIGHT)
    file = PyramidFile.open(read, len(RIGHT))
    monkeypatch.setattr(pyramidfile, "MAX_TILE_BYTES", 100)
    read.asked.clear()
    with pytest.raises(UnreadableImage, match="at most 100 are read"):
        file.tile(0, 0, 0)
    assert read.asked == []


def test_a_file_that_shrinks_while_it_is_read_is_refused():
    with pytest.raises(UnreadableImage, match="cut short or has changed"):
        PyramidFile.open(lambda offset, length: RIGHT[offset : offset + length][:5000], len(RIGHT))


SEEDS = [
    saved(compression="jpeg"),
    saved(compression="deflate", bigtiff=True),
    saved(compression="lzw", subifd=True),
    written(">"),
    pages(False, True, True, False),
]
EDITS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), max_size=12
)


def tables(data: bytes) -> list[int]:
    """Places of the directories, where a change matters most."""
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        return [0, *(page.aspage().offset for page in tiff.pages)]


TABLES = [tables(data) for data in SEEDS]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    number = draw(st.integers(0, len(SEEDS) - 1))
    data = bytearray(SEEDS[number])
    for share, piece in draw(EDITS):
        at = int(share * len(data))
        data[at : at + len(piece)] = piece
    for table, within, piece in draw(
        st.lists(
            st.tuples(
                st.sampled_from(TABLES[number]),
                st.integers(0, 400),
                st.binary(min_size=1, max_size=8),
            ),
            max_size=6,
        )
    ):
        data[table + within : table + within + len(piece)] = piece
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data)


@settings(deadline=None, max_examples=300, suppress_health_check=[*HealthCheck])
@given(st.one_of(damaged(), st.binary(max_size=300), st.binary(max_size=300).map(b"II*\0".__add__)))
def test_any_bytes_give_tiles_or_a_reason_and_never_many_reads(data):
    read = Reader(data)
    try:
        file = PyramidFile.open(read, len(data))
    except UnreadableImage:
        return
    finally:
        assert len(read.asked) <= tiffdirectory.MAX_KEPT
    assert 1 <= len(file.levels) <= pyramidfile.MAX_DIRECTORIES
    assert all(isinstance(fault, str) for fault in file.faults())
    with suppress(UnreadableImage):
        file.facts()
    for level in range(len(file.levels)):
        with suppress(UnreadableImage):
            file.tile(level, 0, 0)
