"""Base names, and what a style file says."""

import pytest
from hypothesis import given
from randomstyles import CODES, LENGTHS, load, style_data
from renderfiles import DRESS, write

from imagecore.renderstyle import (
    Base,
    Cut,
    Format,
    load_style,
    parse_base,
)


@pytest.mark.parametrize(
    ("name", "conditions", "length", "layer", "side"),
    [
        ("b16_neckline_front", (), None, "neckline", "front"),
        ("b16_knee_behindbelt_back", (), "knee", "behindbelt", "back"),
        ("b16_micro_mini_bottom_back", (), "micro_mini", "bottom", "back"),
        ("b16_for_b3_infront_front", ("b3",), None, "infront", "front"),
        ("b16_for_b3_t1_mini_belt_front", ("b3", "t1"), "mini", "belt", "front"),
    ],
)
def test_a_base_name_is_taken_apart(name, conditions, length, layer, side):
    base = parse_base(name, ["b16", "b3", "t1"], ["knee", "mini", "micro_mini"])

    assert base == Base(name, "b16", conditions, length, layer, side)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("b16", "does not end in _<layer>_<side>"),
        ("neckline_front", "does not end in"),
        ("b16_neckline_left", "does not end in"),
        ("b16_sleeve_front", "does not end in"),
        ("b16__neckline_front", "is no base name"),
        ("B16_neckline_front", "is no base name"),
        ("b16-x_neckline_front", "is no base name"),
        ("z9_neckline_front", "begins with 'z9'"),
        ("b16_maxi_neckline_front", "has 'maxi' after its code"),
        ("b16_for_neckline_front", "has 'for' after its code"),
        ("b16_for_knee_neckline_front", "has 'for' after its code"),
        ("b16_for_z9_neckline_front", "is for 'z9'"),
        ("b16_for_b16_neckline_front", "names a code twice"),
        ("b16_for_b3_b3_neckline_front", "names a code twice"),
    ],
)
def test_what_is_no_base_name_says_why(name, text):
    with pytest.raises(ValueError, match=text):
        parse_base(name, ["b16", "b3"], ["knee"])


def test_what_a_short_style_leaves_out_is_as_in_the_legacy(tmp_path):
    style = load_style(write(tmp_path, DRESS))

    assert (style.name, style.title, style.colours) == ("dress", "A dress", 18)
    assert style.lengths == {"knee": "Knee", "micro_mini": "Micro-Mini"}
    assert style.codes == ("t1", "t13", "b3", "b16")
    assert style.search == (".",)
    assert style.draw_order == (
        "behind",
        "bottom",
        "behindbelt",
        "belt",
        "neckline",
        "infront",
    )
    assert style.sizes == (
        Cut("800x800", "fit", 800, 800),
        Cut("142x142", "trim", 142, 142),
        Cut("top-crop", "top", 142, 142, 33),
        Cut("bottom-crop", "bottom", 142, 142, 33),
    )
    assert style.formats == (Format("png"),)
    assert style.ppi == 172
    assert style.layers[1] == Base(
        "b16_for_b3_knee_bottom_back", "b16", ("b3",), "knee", "bottom", "back"
    )
    assert style.defaults["micro_mini"]["front"] == {"bottom": "base_micro_mini_bottom_front"}


def test_a_style_with_everything(tmp_path):
    (tmp_path / "mini.csv").write_text("")
    style = load_style(
        write(
            tmp_path,
            DRESS.replace(
                "defaults:", "defaults:\n  knee: {front: {bottom: null, belt: a_belt_front}}"
            )
            + """\
  - {name: t16_neckline_bottom_back, code: t1, for: [b3], length: knee}
ignored: [x5]
search: [new, old/2018]
invalid_pairs: [[t1, t13, b3], [b3, x5]]
invalid_codes: {knee: [t1]}
draw_order: [infront, behind, bottom, behindbelt, belt, neckline]
sizes:
  - {name: 400x400, kind: fit, width: 400, height: 300}
  - {name: top, kind: top, width: 142, height: 141, drop: 40}
formats:
  - {name: webp}
  - {name: avif, quality: 60}
  - {name: jpeg, background: [1, 2, 3]}
combination_files: {micro_mini: mini.csv}
ppi: 300
""",
        )
    )

    assert style.ignored == ("x5",)
    assert style.search == ("new", "old/2018")
    assert style.layers[2] == Base(
        "t16_neckline_bottom_back", "t1", ("b3",), "knee", "bottom", "back"
    )
    assert style.invalid_pairs == {
        frozenset(pair) for pair in [("t1", "t13"), ("t1", "b3"), ("t13", "b3"), ("b3", "x5")]
    }
    assert style.invalid_codes == {"knee": {"t1"}}
    assert style.draw_order[0] == "infront"
    assert style.defaults["knee"]["front"] == {"belt": "a_belt_front"}
    assert style.defaults["knee"]["back"] == {"bottom": "base_knee_bottom_back"}
    assert style.sizes == (Cut("400x400", "fit", 400, 300), Cut("top", "top", 142, 141, 40))
    assert style.formats == (
        Format("webp"),
        Format("avif", 60),
        Format("jpeg", 85, (1, 2, 3)),
    )
    assert [each.extension for each in style.formats] == ["webp", "avif", "jpg"]
    assert style.combination_files == {"micro_mini": tmp_path / "mini.csv"}
    assert style.ppi == 300


@given(data=style_data())
def test_any_style_built_by_the_rules_is_read(tmp_path_factory, data):
    style = load(data, tmp_path_factory.getbasetemp())

    assert style.colours == data["highest_colour"] + 1
    assert [base.name for base in style.layers] == data["layers"]
    assert set(style.codes) <= set(CODES)
    assert set(style.lengths) <= set(LENGTHS)
