"""The cuts of a composite: the legacy's geometry to the pixel, held against ImageMagick."""

import numpy as np
import pytest
from drawnlayers import IMAGEMAGICK, LEGACY, legacy_cut, part, premultiplied, read, save
from hypothesis import given, settings
from hypothesis import strategies as st

from imagecore.cuts import cuts_of, trim_box
from imagecore.renderstyle import LEGACY_SIZES, Cut

CUTS = [each for each in LEGACY_SIZES if each.kind != "fit"]
RED = (200, 30, 40, 255)


def boxed(left, top, wide, high, canvas=(800, 800), colour=RED):
    """A box of one colour on a transparent canvas."""
    pixels = np.zeros((canvas[1], canvas[0], 4), np.uint8)
    pixels[top : top + high, left : left + wide] = colour
    return pixels


def cut(pixels, name):
    return cuts_of(pixels, [each for each in CUTS if each.name == name])[0]


def opaque_box(pixels):
    rows, columns = np.nonzero(pixels[..., 3] > 127)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def dress(width=800, height=800):
    pixels = part("behind", width, height)
    for name in ("bottom", "belt"):
        above = part(name, width, height)
        pixels[above[..., 3] > 127] = above[above[..., 3] > 127]
    return pixels


def test_the_legacy_cuts_are_142_pixels_wide_and_high():
    assert [each.name for each in CUTS] == ["142x142", "top-crop", "bottom-crop"]
    assert [each.shape for each in cuts_of(dress(), CUTS)] == [(142, 142, 4)] * 3


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((300, 300), (0, 0, 142, 142)),
        ((100, 50), (0, 36, 142, 107)),
        ((37, 51), (20, 0, 123, 142)),
        ((71, 72), (1, 0, 141, 142)),
        ((800, 1), (0, 71, 142, 72)),
        ((1, 800), (71, 0, 72, 142)),
        ((1, 1), (0, 0, 142, 142)),
    ],
)
def test_a_trimmed_picture_is_fitted_and_centred(size, box):
    assert opaque_box(cut(boxed(1, 1, *size, (802, 802)), "142x142")) == box


@pytest.mark.parametrize(
    ("high", "kept"), [(1, 1), (2, 1), (3, 2), (5, 3), (50, 33), (51, 34), (150, 100), (500, 335)]
)
def test_a_third_is_dropped_rounded_half_up(high, kept):
    """A blue part is exactly what should be dropped: nothing of it may be left, nor of the red."""
    for name, first in (("bottom-crop", high - kept), ("top-crop", 0)):
        pixels = boxed(100, 100, 142, high, colour=(0, 0, 255, 255))
        pixels[100 + first : 100 + first + kept, 100:242] = RED
        made = cut(pixels, name)
        assert not (made[..., 2] > 127).any()
        left, top, right, bottom = opaque_box(made)
        assert (left, right) == (0, 142)
        assert bottom - top == min(kept, 142)
        assert top == max(0, 71 - kept // 2)


def test_a_tall_picture_is_cut_in_the_middle():
    pixels = boxed(100, 100, 142, 600)
    pixels[295:305, 100:242] = (0, 0, 255, 255)  # half way down what top-crop keeps: 402 rows
    made = cut(pixels, "top-crop")
    assert (made[..., 3] == 255).all()
    rows = np.flatnonzero(made[:, 71, 2] > 127)
    assert (rows[0], rows[-1]) == (195 - (201 - 71), 204 - (201 - 71))


@pytest.mark.parametrize("colour", [(0, 0, 0, 0), (9, 9, 9, 0), (200, 30, 40, 255)])
def test_of_a_composite_of_one_colour_nothing_is_left(colour):
    pixels = np.full((800, 533, 4), colour, np.uint8)
    assert trim_box(pixels) == (0, 0, 0, 0)
    for each in cuts_of(pixels, CUTS):
        assert each.shape == (142, 142, 4)
        assert not each.any()


def test_one_pixel_is_trimmed_to_itself_and_enlarged():
    pixels = boxed(799, 0, 1, 1)
    assert trim_box(pixels) == (799, 0, 800, 1)
    for each in cuts_of(pixels, CUTS):
        assert (each == RED).all()


def test_faint_pixels_are_kept_and_traces_of_resizing_and_hidden_colours_trimmed():
    pixels = boxed(100, 200, 50, 60)
    pixels[10, 700] = (1, 2, 3, 4)
    pixels[5, 720] = (200, 30, 40, 3)
    pixels[790, 5] = (255, 255, 255, 0)
    assert trim_box(pixels) == (100, 10, 701, 260)


def test_an_opaque_border_is_trimmed_by_the_corners_colours():
    pixels = boxed(0, 0, 300, 300, (300, 300), (255, 255, 255, 255))
    pixels[50:100, 60:120] = RED
    assert trim_box(pixels) == (60, 50, 120, 100)
    pixels[:, 290:] = (0, 0, 0, 255)  # the right side has a border of its own
    assert trim_box(pixels) == (60, 0, 290, 300)


def test_soft_white_edges_stay_white():
    pixels = part("bottom", 800, 800)
    pixels[pixels[..., 3] > 0, :3] = 255
    for each in cuts_of(pixels, CUTS):
        assert (each[each[..., 3] > 0][:, :3] == 255).all()
        assert ((each[..., 3] > 0) & (each[..., 3] < 255)).any()


def test_hidden_colours_do_not_show():
    pixels = boxed(100, 100, 400, 500)
    pixels[pixels[..., 3] == 0] = (0, 255, 0, 0)
    pixels[95:605:2, 90:510] = np.where(pixels[95:605:2, 90:510, 3:] > 0, RED, (0, 255, 0, 2))
    for each in cuts_of(pixels, CUTS):
        assert each[each[..., 3] > 100][:, 1].max() < 40


def test_other_sizes_and_parts_can_be_asked_for():
    wide = Cut("strip", "top", 200, 50, 80)
    assert cuts_of(dress(), [wide])[0].shape == (50, 200, 4)
    with pytest.raises(ValueError, match="no cut of the kind 'middle': choose trim, top or bottom"):
        cuts_of(dress(), [Cut("m", "middle", 10, 10)])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_cut_has_its_size_whatever_is_cut(data):
    wide, high = data.draw(st.tuples(st.integers(1, 90), st.integers(1, 90)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    pixels = rng.integers(0, 256, (high, wide, 4)).astype(np.uint8)
    pixels[..., 3] *= rng.random((high, wide)) < data.draw(st.sampled_from([0.0, 0.01, 0.5, 1.0]))
    kind = data.draw(st.sampled_from(["trim", "top", "bottom"]))
    size = data.draw(st.tuples(st.integers(1, 50), st.integers(1, 50)))
    each = Cut("c", kind, *size, data.draw(st.integers(0, 99)))
    (made,) = cuts_of(pixels, [each])
    assert made.shape == (size[1], size[0], 4)
    left, top, right, bottom = trim_box(pixels)
    if not (pixels[[0, 0, -1], [0, -1, 0], 3] > 3).any():
        rows, columns = np.nonzero(pixels[..., 3] > 3)
        seen = rows.size > 0
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if seen else (0,) * 4
        assert (left, top, right, bottom) == box


# Measured on these pictures: at most 0.7 of 255 for the mean, where libvips' and ImageMagick's
# filters and edges differ.
ALIKE = 1.0


@IMAGEMAGICK
@pytest.mark.parametrize("name", LEGACY)
@pytest.mark.parametrize(
    "pixels",
    [
        dress(),
        dress(533, 800),
        boxed(100, 50, 301, 299),
        boxed(0, 0, 141, 57),
        boxed(13, 17, 37, 51),
        boxed(5, 5, 700, 31),
        boxed(5, 5, 31, 700),
        boxed(400, 400, 2, 2),
    ],
    ids=["dress", "tall dress", "box", "141x57", "37x51", "flat", "thin", "tiny"],
)
def test_a_cut_is_the_one_imagemagick_makes(tmp_path, name, pixels):
    source = save(pixels, tmp_path / "source.png")
    legacy_cut(source, name, tmp_path / "cut.png")
    right, found = read(tmp_path / "cut.png"), cut(pixels, name)
    assert found.shape == right.shape
    apart = np.subtract(opaque_box(found), opaque_box(right))
    assert abs(apart).max() <= 1
    assert np.abs(premultiplied(found) - premultiplied(right)).mean() <= ALIKE
