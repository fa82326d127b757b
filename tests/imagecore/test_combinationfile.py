"""Legacy combination files: read as they are, in place of rules, and their faults by line."""

import pytest
from renderfiles import REAL, RENDERS, real_rows, style_with

from imagecore.combinations import combination_rows, read_combinations
from imagecore.renderstyle import LAYERS, StyleError, layer_and_side


@pytest.mark.parametrize(("_", "file", "count"), REAL)
def test_a_real_combination_file_is_read_as_it_is_and_is_in_draw_order(_, file, count):
    rows = list(read_combinations(RENDERS / file))

    assert rows == real_rows(file)
    assert len(rows) == count
    for _, *stacks in rows:
        for side, stack in zip(("front", "back"), stacks, strict=True):
            layers = [layer_and_side(name) for name in stack]
            assert layers == sorted(layers, key=lambda each: LAYERS.index(each[0]))
            assert {each[1] for each in layers} == {side}


def test_a_combination_file_stands_in_place_of_the_rules(tmp_path):
    (tmp_path / "knee.csv").write_text(
        "a5-t1,T1_neckline_front a5_infront_front,t1_neckline_back\n"
    )
    style = style_with(
        tmp_path, "t9_bottom_front", "t9_bottom_back", combination_files={"knee": "knee.csv"}
    )

    assert list(combination_rows(style, "knee")) == [
        (
            (),
            ("base_knee_bottom_front", "base_neckline_front", "base_belt_infront_front"),
            ("base_knee_bottom_back", "base_neckline_back", "base_belt_infront_back"),
        ),
        (("a5", "t1"), ("t1_neckline_front", "a5_infront_front"), ("t1_neckline_back",)),
    ]
    assert len(list(combination_rows(style, "mini"))) == 16


def test_without_defaults_a_combination_file_is_all_there_is(tmp_path):
    (tmp_path / "knee.csv").write_text("t1,t1_neckline_front,t1_neckline_back\n")
    style = style_with(tmp_path, defaults={}, combination_files={"knee": "knee.csv"})

    assert [codes for codes, _, _ in combination_rows(style, "knee")] == [("t1",)]


GOOD = b"t1,t1_belt_front,t1_belt_back\n"


def test_line_ends_byte_order_mark_and_blank_lines_do_not_matter(tmp_path):
    file = tmp_path / "knee.csv"
    file.write_bytes(
        b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n\r\n") + b"t9,a_belt_front,a_belt_back"
    )

    assert [codes for codes, _, _ in read_combinations(file)] == [("t1",), ("t9",)]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"t1-t9,t1_belt_front", "2 fields, and three are needed"),
        (b"t1-zz,t1_belt_front,t1_belt_back", "'zz' is no code of the style"),
        (b"t1-,t1_belt_front,t1_belt_back", "'' is no code of the style"),
        (b"t9-t1-t9,t1_belt_front,t1_belt_back", "the code 't9' is there twice"),
        (b"t1,t9_belt_front,t9_belt_back", "the combination of line 1 again"),
        (b"t9,t1_sleeve_front,t1_belt_back", "'t1_sleeve_front' does not end in"),
        (b"t9,t1_belt_front_,t1_belt_back", "'t1_belt_front_' is no base name"),
        (b"t9,t1_belt_back,t1_belt_back", "'t1_belt_back' is among the names of the side front"),
        (b"t9,t1_belt_front t1_bottom_front,t1_belt_back", "is drawn before"),
        (b"t9,,t1_belt_back", "no names for the side front"),
        (b"t9,\xff_belt_front,t1_belt_back", "not UTF-8"),
        (b't9,"t1_belt_front"x,t1_belt_back', "not CSV"),
    ],
)
def test_a_wrong_line_of_a_combination_file_is_named_with_its_number(tmp_path, line, text):
    (tmp_path / "knee.csv").write_bytes(GOOD + line + b"\n" + b"b3,t1_belt_front,t1_belt_back\n")
    style = style_with(tmp_path, combination_files={"knee": "knee.csv"})
    rows = combination_rows(style, "knee")

    assert [next(rows)[0] for _ in range(3)] == [(), ("t1",), ("b3",)]
    with pytest.raises(StyleError) as raised:
        next(rows)

    (problem,) = raised.value.problems
    assert problem.startswith(f"{tmp_path}/knee.csv:2: ")
    assert text in problem


def test_a_combination_file_of_another_kind_gives_a_list_that_can_be_read(tmp_path):
    (tmp_path / "knee.csv").write_bytes(b"x\n" * 1000)

    with pytest.raises(StyleError) as raised:
        list(read_combinations(tmp_path / "knee.csv"))

    assert len(raised.value.problems) == 100


def test_a_combination_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(StyleError, match=r"gone\.csv:1: cannot be read"):
        list(read_combinations(tmp_path / "gone.csv"))
