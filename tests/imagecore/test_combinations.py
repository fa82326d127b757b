"""Combinations, their names and their layers: as the legacy rules and files have them."""

import pytest
from hypothesis import given
from randomstyles import load, slow_combinations, slow_stack, style_data
from renderfiles import REAL, RENDERS, real_rows, style_with

from imagecore.combinations import (
    combination_rows,
    combinations,
    composite_name,
    count_combinations,
    dropped,
    stack_of,
)
from imagecore.renderstyle import Style, load_style


@pytest.mark.parametrize(("style", "file", "count"), REAL)
def test_the_rules_of_a_real_style_give_its_combination_file_line_by_line(style, file, count):
    style = load_style(RENDERS / style)
    (length,) = style.lengths

    rows = list(combination_rows(style, length))

    assert rows[0][0] == ()
    assert rows[1:] == real_rows(file)
    assert len(rows) == count + 1


@pytest.mark.parametrize(("style", "file", "count"), REAL)
def test_what_the_rules_of_a_real_style_drop_adds_up(style, file, count):
    style = load_style(RENDERS / style)
    (length,) = style.lengths

    assert sum(dropped(style, length).values()) == 2**15 - 1 - count
    assert count_combinations(style, length) == count + 1


@given(data=style_data())
def test_combinations_and_stacks_are_those_of_the_slow_obvious_way(tmp_path_factory, data):
    style = load(data, tmp_path_factory.getbasetemp())

    for length in style.lengths:
        slow = slow_combinations(data, length)
        assert list(combinations(style, length)) == slow
        assert count_combinations(style, length) == len(slow)
        for codes, front, back in combination_rows(style, length):
            assert front == slow_stack(data, length, codes, "front")
            assert back == slow_stack(data, length, codes, "back")


@given(data=style_data())
def test_what_rules_drop_is_counted_once_by_the_first_rule(tmp_path_factory, data):
    style = load(data, tmp_path_factory.getbasetemp())
    codes = [code for code in style.codes if code not in style.ignored]

    for length in style.lengths:
        expected = dict.fromkeys(dropped(style, length), 0)
        for number in range(1, 2 ** len(codes)):
            chosen = [code for bit, code in enumerate(codes) if number & 2**bit]
            rule = _first_rule(style, length, chosen)
            if rule:
                expected[rule] += 1
        assert dropped(style, length) == expected


def _first_rule(style: Style, length: str, chosen: list[str]) -> str | None:
    for code in chosen:
        if code in style.invalid_codes.get(length, ()):
            return f"{code} in {length}"
    for later in chosen:
        for earlier in chosen[: chosen.index(later)]:
            if frozenset((earlier, later)) in style.invalid_pairs:
                return f"{earlier} with {later}"
    return None


def test_forty_codes_of_which_one_can_be_had_are_not_walked_as_sets():
    codes = tuple(f"t{number}" for number in range(40))
    pairs = frozenset(frozenset((a, b)) for a in codes for b in codes if a != b)
    style = Style("s", "S", 1, {"knee": "Knee"}, codes, invalid_pairs=pairs)

    assert list(combinations(style, "knee")) == [(), *((code,) for code in codes)]
    assert sum(dropped(style, "knee").values()) == 2**40 - 1 - 40


def test_the_default_has_its_infront_which_the_legacy_lost(tmp_path):
    style = style_with(tmp_path)

    assert next(combination_rows(style, "knee"))[1] == (
        "base_knee_bottom_front",
        "base_neckline_front",
        "base_belt_infront_front",
    )


@pytest.mark.parametrize("layer", ["bottom", "belt", "neckline"])
def test_a_code_replaces(tmp_path, layer):
    style = style_with(
        tmp_path,
        f"t1_{layer}_front",
        f"t9_{layer}_front",
        defaults={layer: f"base_{layer}_{{side}}"},
    )

    assert stack_of(style, "knee", ["t1", "t9"], "front") == (f"t9_{layer}_front",)


@pytest.mark.parametrize("layer", ["behind", "behindbelt", "infront"])
def test_a_code_goes_before_what_is_there(tmp_path, layer):
    style = style_with(
        tmp_path,
        f"t1_{layer}_front",
        f"t9_{layer}_front",
        defaults={layer: f"base_{layer}_{{side}}"},
    )

    assert stack_of(style, "knee", ["t9", "t1"], "front") == (
        f"t9_{layer}_front",
        f"t1_{layer}_front",
        f"base_{layer}_front",
    )


@pytest.mark.parametrize(
    ("codes", "neckline"),
    [
        (["a5"], "a5_neckline_front"),
        (["t1", "a5"], "a5_for_t1_neckline_front"),
        (["t1", "t9", "a5"], "a5_for_t9_neckline_front"),
        (["t1", "t9", "b3", "a5"], "a5_for_b3_t1_neckline_front"),
    ],
)
def test_the_most_conditions_win_and_of_equals_the_last(tmp_path, codes, neckline):
    style = style_with(
        tmp_path,
        "a5_for_b3_t1_neckline_front",
        "a5_for_t1_neckline_front",
        "a5_for_t9_neckline_front",
        "a5_neckline_front",
        defaults={},
    )

    assert stack_of(style, "knee", codes, "front") == (neckline,)


def test_an_entry_is_taken_whole(tmp_path):
    """As in the real files: with t43, a5 has no `behind` any more."""
    style = style_with(
        tmp_path, "a5_behind_front", "a5_for_t1_neckline_front", "a5_infront_back", defaults={}
    )

    assert stack_of(style, "knee", ["t1", "a5"], "front") == ("a5_for_t1_neckline_front",)
    assert stack_of(style, "knee", ["t1", "a5"], "back") == ()


def test_a_layer_of_a_length_counts_there_alone_and_before_one_of_every_length(tmp_path):
    style = style_with(
        tmp_path, "t1_knee_neckline_front", "t1_neckline_front", "t9_knee_bottom_front", defaults={}
    )

    assert stack_of(style, "knee", ["t1", "t9"], "front") == (
        "t9_knee_bottom_front",
        "t1_knee_neckline_front",
    )
    assert stack_of(style, "mini", ["t1", "t9"], "front") == ("t1_neckline_front",)


def test_an_entry_without_a_layer_in_a_length_does_not_hide_another(tmp_path):
    style = style_with(tmp_path, "a5_neckline_front", "a5_for_t1_knee_bottom_front", defaults={})

    assert stack_of(style, "mini", ["t1", "a5"], "front") == ("a5_neckline_front",)


def test_ignored_codes_have_no_combinations(tmp_path):
    style = style_with(tmp_path, ignored=["t9", "b3"])

    assert list(combinations(style, "knee")) == [(), ("t1",), ("a5",), ("t1", "a5")]


@pytest.mark.parametrize(
    ("codes", "name"),
    [
        ((), "default-knee-front-0003"),
        (("t9", "t13", "a2"), "a2-t13-t9-knee-front-0003"),
    ],
)
def test_composite_names(codes, name):
    assert composite_name(codes, "knee", "front", 3) == name
