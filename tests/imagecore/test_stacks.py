"""The plan of composites: each stack once, under every name it goes by."""

import json
import tracemalloc
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from randomstyles import load, slow_combinations, slow_stack, style_data
from renderfiles import REAL, RENDERS, real_rows

from imagecore.combinations import composite_name
from imagecore.errors import PlanRefused
from imagecore.manifest import write_manifest
from imagecore.renderstyle import LAYERS, Base, Style, StyleError, load_style
from imagecore.stacks import MissingLayer, StackPlan, layer_file, plan_stacks, shared_layers


class Everything(dict):
    """Layers of which every one is there, in every colour."""

    def get(self, base, default=()):
        return range(10_000)


def dress(**more) -> Style:
    """Two lengths that look the same at the front, and two codes, of which a1 is no layer there."""
    style = Style(
        "dress",
        "Dress",
        2,
        {"knee": "Knee", "mini": "Mini"},
        ("t1", "a1"),
        defaults={
            length: {
                "front": {"bottom": "base_bottom_front"},
                "back": {"bottom": f"base_{length}_bottom_back"},
            }
            for length in ("knee", "mini")
        },
        layers=(
            Base("t1_neckline_front", "t1", (), None, "neckline", "front"),
            Base("t1_neckline_back", "t1", (), None, "neckline", "back"),
            Base("a1_infront_back", "a1", (), None, "infront", "back"),
        ),
    )
    return replace(style, **more)


def test_equal_stacks_of_lengths_and_combinations_are_one_item_with_every_name():
    items = {item["key"]: item for item in plan_stacks(dress(), Everything()).items()}

    assert items["0001 front base_bottom_front t1_neckline_front"] == {
        "key": "0001 front base_bottom_front t1_neckline_front",
        "layers": ["base_bottom_front", "t1_neckline_front"],
        "colour": 1,
        "side": "front",
        "names": [
            "t1-knee-front-0001",
            "a1-t1-knee-front-0001",
            "t1-mini-front-0001",
            "a1-t1-mini-front-0001",
        ],
    }
    assert items["0000 back base_knee_bottom_back"]["names"] == ["default-knee-back-0000"]
    assert len(items) == (2 + 8) * 2


def test_what_is_counted():
    counts = plan_stacks(dress(invalid_codes={"mini": frozenset({"a1"})}), Everything()).counts

    assert counts.combinations == {"knee": 4, "mini": 2}
    assert counts.dropped == {"knee": {}, "mini": {"a1 in mini": 2}}
    assert counts.composites == (4 + 2) * 2 * 2
    assert counts.stacks == (2 + 4 + 2) * 2
    assert counts.aliases == 24 - 16
    assert (counts.failing, counts.empty, counts.missing) == (0, 0, [])
    # One colour. Front: 2 and 1 composites of two layers. Back: 1 + 1 + 2 (knee), 1 (mini).
    assert counts.overs == (2 + 1 + 4 + 1) * 2
    assert counts.overs_of_stacks == (1 + 4 + 1) * 2
    # The back of knee: bottom t1, bottom a1, bottom t1 a1: the last goes on from the first.
    assert counts.overs_shared == (1 + 3 + 1) * 2


@given(data=style_data(), seed=st.randoms(use_true_random=False))
def test_the_plan_is_that_of_the_slow_obvious_way(tmp_path_factory, data, seed):
    style = load(data, tmp_path_factory.getbasetemp())
    stacks, empty = slow_plan(data)
    files = sorted({(base, key[1]) for key in stacks for base in key[2]})
    gone = {file for file in files if seed.random() < 0.2}
    layers = {base: {c for b, c in files if b == base and (b, c) not in gone} for base, _ in files}

    plan = plan_stacks(style, layers)
    items = list(plan.items())

    assert {
        (item["side"], item["colour"], tuple(item["layers"])): item["names"] for item in items
    } == stacks
    assert len(items) == len(stacks) == plan.counts.stacks
    names = [name for item in items for name in item["names"]]
    assert len(names) == len(set(names)) == plan.counts.composites
    assert plan.counts.empty == empty
    assert plan.counts.overs == sum(len(key[2]) * len(stacks[key]) for key in stacks) - len(names)
    assert plan.counts.overs_of_stacks == sum(len(key[2]) - 1 for key in stacks)
    prefixes = {(*key[:2], key[2][:end]) for key in stacks for end in range(2, len(key[2]) + 1)}
    assert plan.counts.overs_shared == len(prefixes)
    check_missing(plan, items, gone)


def slow_plan(data: dict) -> tuple[dict, int]:
    """The names of every stack by side, colour and layers; and how many have no layer."""
    stacks: dict[tuple, list[str]] = {}
    empty = 0
    colours = range(data["highest_colour"] + 1)
    for length in data["lengths"]:
        for codes, side in product(slow_combinations(data, length), ("front", "back")):
            stack = slow_stack(data, length, codes, side)
            for colour in colours:
                if stack:
                    name = composite_name(codes, length, side, colour)
                    stacks.setdefault((side, colour, stack), []).append(name)
                else:
                    empty += 1
    return stacks, empty


def check_missing(plan: StackPlan, items: list[dict], gone: set) -> None:
    needed: Counter[tuple[str, int]] = Counter()
    failing = 0
    for item in items:
        lost = [base for base in item["layers"] if (base, item["colour"]) in gone]
        assert item.get("missing", []) == [layer_file(base, item["colour"]) for base in lost]
        failing += len(item["names"]) if lost else 0
        for base in lost:
            needed[base, item["colour"]] += len(item["names"])
    found = {(each.base, each.colour): each.composites for each in plan.counts.missing}
    assert found == dict(needed)
    assert set(found) == gone
    assert plan.counts.failing == failing


@given(data=style_data())
def test_keys_ascend_and_keep_stacks_that_begin_alike_together(tmp_path_factory, data):
    style = load(data, tmp_path_factory.getbasetemp())

    items = list(plan_stacks(style, Everything()).items())

    assert [item["key"] for item in items] == sorted({item["key"] for item in items})
    assert_depth_first(items)


def assert_depth_first(items: list[dict]) -> None:
    """No prefix of layers is left and come back to."""
    left: set[tuple] = set()
    path: list[tuple] = []
    for item in items:
        start = (item["colour"], item["side"])
        now = [(*start, *item["layers"][:end]) for end in range(len(item["layers"]) + 1)]
        left.update(set(path) - set(now))
        assert not left & set(now)
        path = now


def test_how_much_two_keys_have_in_common():
    others = [
        "3 front a b",
        "3 front a b c",
        "3 front a bb",
        "3 front c b",
        "3 back a b",
        "4 back a",
    ]

    assert [shared_layers("3 front a b", other) for other in others] == [4, 4, 3, 2, 1, 0]


def test_the_manifest_keeps_them_together_too(work_store):
    style = load_style(RENDERS / REAL[1][0])
    plan = plan_stacks(replace(style, colours=1), Everything())

    manifest, _ = write_manifest(plan.items(), work_store, "plan.jsonl", lambda count: count)

    items = [json.loads(line) for line in work_store.get("plan.jsonl").splitlines()]
    assert len(items) == manifest.count == plan.counts.stacks
    assert_depth_first(items)


@pytest.mark.parametrize(("style", "file", "count"), REAL)
def test_a_real_style_has_the_names_and_stacks_of_its_combination_file(style, file, count):
    style = load_style(RENDERS / style)
    (length,) = style.lengths
    rows = real_rows(file)
    plan = plan_stacks(style, Everything())

    stacks = {stack for row in rows for stack in row[1:]}
    drawn_of = {name: item["layers"] for item in plan.items() for name in item["names"]}
    for codes, *sides in rows:
        for side, colour in product((0, 1), range(18)):
            name = composite_name(codes, length, ("front", "back")[side], colour)
            assert drawn_of.pop(name) == list(sides[side])
    defaults = {tuple(stack) for stack in drawn_of.values()}
    assert sorted(drawn_of) == sorted(
        composite_name((), length, side, colour)
        for side, colour in product(("front", "back"), range(18))
    )
    assert plan.counts.composites == (count + 1) * 2 * 18
    assert plan.counts.stacks == len(stacks | defaults) * 18


@pytest.mark.parametrize(("style", "file", "_"), REAL)
def test_a_combination_file_plans_what_the_rules_plan(style, file, _):
    by_rules = load_style(RENDERS / style)
    (length,) = by_rules.lengths
    by_file = replace(
        by_rules, layers=(), invalid_pairs=frozenset(), combination_files={length: RENDERS / file}
    )

    assert list(plan_stacks(by_file, Everything()).items()) == list(
        plan_stacks(by_rules, Everything()).items()
    )
    assert plan_stacks(by_file, Everything()).counts.dropped == {}


def test_a_wrong_combination_file_ends_the_plan(tmp_path):
    (tmp_path / "knee.csv").write_text("t1,t1_neckline_front\n")

    with pytest.raises(StyleError, match=r"knee\.csv:1: 2 fields"):
        plan_stacks(dress(combination_files={"knee": tmp_path / "knee.csv"}), {})


def some(**gone: Collection[int]) -> Mapping[str, set[int]]:
    bases = {base for item in plan_stacks(dress(), {}).items() for base in item["layers"]}
    return {base: {0, 1} - set(gone.get(base, ())) for base in bases}


def test_all_missing_layers_are_listed_at_once_with_who_needs_them():
    layers = {**some(t1_neckline_back=[1], base_mini_bottom_back=[0, 1]), "z9_belt_front": {0}}

    counts = plan_stacks(dress(), layers).counts

    assert counts.missing == [
        MissingLayer("base_mini_bottom_back", 0, ("mini",), 4),
        MissingLayer("base_mini_bottom_back", 1, ("mini",), 4),
        MissingLayer("t1_neckline_back", 1, ("knee", "mini"), 4),
    ]
    assert counts.missing[0].file == "base_mini_bottom_back_0000.png"
    assert counts.failing == 4 + 4 + 2


def test_a_missing_layer_is_named_by_the_stacks_that_need_it_alone():
    plan = plan_stacks(dress(), some(t1_neckline_back=[1]))

    missing = {item["key"]: item["missing"] for item in plan.items() if "missing" in item}

    assert missing == {
        f"0001 back base_{length}_bottom_back t1_neckline_back{more}": ["t1_neckline_back_0001.png"]
        for length in ("knee", "mini")
        for more in ("", " a1_infront_back")
    }


def test_a_composite_without_any_layer_is_counted_and_not_planned():
    plan = plan_stacks(dress(defaults={}), Everything())

    assert all(item["layers"] for item in plan.items())
    # Front: the default and a1; back: the default; each in two lengths and two colours.
    assert plan.counts.empty == 3 * 2 * 2
    assert plan.counts.composites == (2 + 3) * 2 * 2


def test_rules_that_allow_too_much_are_refused_before_anything_is_walked():
    style = dress(codes=tuple(f"t{number}" for number in range(60)))

    with pytest.raises(PlanRefused, match=r"at most 5,000,000 .* knee 1,152,921,504,606,846,976"):
        plan_stacks(style, {})


def large(colours: int) -> Style:
    """A style of 10 codes, every combination of which is another stack: 2,048 a colour."""
    codes = tuple(f"t{number}" for number in range(10))
    layers = tuple(
        Base(f"{code}_{LAYERS[-1]}_{side}", code, (), None, LAYERS[-1], side)
        for code in codes
        for side in ("front", "back")
    )
    defaults = {"knee": {side: {"bottom": f"base_bottom_{side}"} for side in ("front", "back")}}
    return Style("s", "S", colours, {"knee": "Knee"}, codes, defaults=defaults, layers=layers)


def test_what_is_held_of_a_plan_does_not_grow_with_colours_nor_while_it_is_read():
    peaks = []
    for colours in (1, 10):
        tracemalloc.start()
        plan = plan_stacks(large(colours), Everything())
        count = sum(1 for _ in plan.items())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count == plan.counts.stacks == 2 * 2**10 * colours
    assert peaks[1] < peaks[0] * 1.1
