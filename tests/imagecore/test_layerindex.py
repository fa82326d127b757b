"""Which file a layer is: the first search directory wins, and nothing is taken silently."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecore.errors import PlanRefused
from imagecore.layerindex import LayerIndex, index_layers, output_key
from imagecore.renderstyle import Style, parse_base
from imagecore.sides import Entry, LocalSide, Reject, S3Side
from tests.objects import new_bucket_of, put

CODES, LENGTHS = ("t13", "t23", "b2"), {"knee": "Knee", "micro_mini": "Micro-Mini"}
LAYERS = ("t13_neckline_front", "t13_for_b2_neckline_front", "b2_knee_bottom_front")
DEFAULTS = {"knee": {"front": {"bottom": "base_knee_bottom_front"}}}


def style(
    *search: str, layers: tuple[str, ...] = LAYERS, codes: tuple[str, ...] = CODES, colours: int = 2
) -> Style:
    return Style(
        name="dress",
        title="Dress",
        colours=colours,
        lengths=LENGTHS,
        codes=codes,
        search=search or (".",),
        defaults=DEFAULTS,
        layers=tuple(parse_base(each, codes, list(LENGTHS)) for each in layers),
    )


class Keys:
    """A side of these keys, to which nothing else is true."""

    url = "file:///layers"
    ascending = False

    def __init__(self, *keys: str) -> None:
        self._keys = keys

    def key(self, key: str) -> str:
        return key

    def entries(self, below: str, reject: Reject) -> Iterator[Entry]:
        for key in self._keys:
            if key.startswith(below):
                yield Entry(key, key, 7, 1, "")


def index(of: Style, *keys: str, also: tuple[str, ...] = ()) -> LayerIndex:
    return index_layers(of, Keys(*keys), also)


def taken(found: LayerIndex) -> dict[str, str]:
    """The key of the file behind each output."""
    return {
        output_key(base, colour): layer.entry.key
        for base, colours in found.files.items()
        for colour, layer in colours.items()
    }


def remarks(found: LayerIndex) -> dict[str, str]:
    return {each.name: each.text for each in found.remarks}


# The search


def test_each_layer_has_its_file_by_base_name_and_colour() -> None:
    found = index(style(), "a/t13_neckline_front_0001.png", "b2_knee_bottom_front_0000.png")
    layer = found.files["t13_neckline_front"][1]
    key = "a/t13_neckline_front_0001.png"
    assert layer == ("t13_neckline_front", 1, ".", Entry(key, key, 7, 1, ""))
    assert found.colours == {"t13_neckline_front": {1}, "b2_knee_bottom_front": {0}}


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_folder_and_a_bucket_are_searched_alike(
    kind: str, tmp_path: Path, s3_client: object
) -> None:
    keys = ["new/deep/er/t13_neckline_front_0000.png", "newer/b2_knee_bottom_front_0000.png"]
    if kind == "folder":
        for key in keys:
            (tmp_path / key).parent.mkdir(parents=True)
            (tmp_path / key).write_bytes(b"picture")
        side: LocalSide | S3Side = LocalSide(tmp_path)
    else:
        bucket = new_bucket_of(s3_client)
        for key in keys:
            put(bucket, f"renders/{key}")
        side = S3Side(bucket, "renders/")
    found = index_layers(style("new", "newer/"), side)
    assert taken(found) == {
        "t13/t13_neckline_front_0000.png": keys[0],
        "b2/b2_knee_bottom_front_0000.png": keys[1],
    }
    assert found.files["t13_neckline_front"][0].entry.size == 7


def test_the_first_directory_with_a_hit_wins_for_each_code_alone() -> None:
    found = index(
        style("new", "old"),
        "old/t13_neckline_front_0000.png",
        "old/t13_for_b2_neckline_front_0000.png",
        "old/b2_knee_bottom_front_0000.png",
        "new/x/t13_neckline_front_0001.png",
    )
    assert taken(found) == {
        "t13/t13_neckline_front_0001.png": "new/x/t13_neckline_front_0001.png",
        "b2/b2_knee_bottom_front_0000.png": "old/b2_knee_bottom_front_0000.png",
    }
    assert found.folders == {"t13": "new", "b2": "old"}


def test_a_directory_that_is_not_used_for_a_code_is_remarked_with_how_much_it_has() -> None:
    old = [f"old/t13_neckline_front_000{colour}.png" for colour in (0, 1)]
    found = index(style("new", "old"), *old, "new/t13_neckline_front_0000.png")
    assert remarks(found) == {
        "old": "is not used for t13, of which it has 2 files: new, searched before it, has some"
    }


@pytest.mark.parametrize("name", ["t13_notes.png", "T13_old_0001.PNG", "t13_neckline_front_9.png"])
def test_any_png_of_a_code_is_a_hit_as_the_legacy_pattern_had_it(name: str) -> None:
    found = index(style("new", "old"), f"new/{name}", "old/t13_neckline_front_0000.png")
    assert taken(found) == {}
    assert {f"new/{name}", "old"} == remarks(found).keys()


def test_a_file_of_another_kind_is_no_hit() -> None:
    old = "old/t13_neckline_front_0000.png"
    found = index(style("new", "old"), "new/t13_neckline_front_0000.psd", "new/t13_x.txt", old)
    assert list(taken(found).values()) == [old]
    assert remarks(found) == {
        "new": "has no layer file of this style",
        "new/t13_neckline_front_0000.psd": "is left out: layer files end in .png",
    }


def test_a_code_is_not_found_in_a_longer_one() -> None:
    found = index(style("new", "old"), "new/t1_neckline_front_0000.png", "new/t133_x_0000.png")
    assert found.without_files == CODES
    assert found.files == {}


def test_a_directory_inside_another_one_shadows_nothing_of_itself() -> None:
    found = index(style(".", "old"), "old/t13_neckline_front_0000.png")
    assert list(taken(found).values()) == ["old/t13_neckline_front_0000.png"]
    assert remarks(found) == {"old": "has no layer file of this style"}


def test_hidden_folders_are_not_searched() -> None:
    found = index(style("a"), "a/.cache/t13_neckline_front_0000.png")
    assert found.files == {}
    hidden = index(style(".a"), ".a/t13_neckline_front_0000.png")
    assert len(hidden.files) == 1


def test_codes_without_any_file_are_told() -> None:
    assert index(style(), "t23_x.png").without_files == ("t13", "b2")


def test_ignored_codes_have_no_layers_and_lack_none() -> None:
    of = Style("d", "D", 1, LENGTHS, CODES, ignored=("b2",))
    found = index(of, "b2_belt_front_0000.png", "t13_for_b2_belt_front_0000.png")
    assert found.colours == {"t13_for_b2_belt_front": {0}}
    assert found.without_files == ("t23",)


# Defaults, and what combination files name


def test_each_default_layer_comes_from_the_first_directory_that_has_it() -> None:
    other = {"knee": {"front": {"bottom": "base_knee_bottom_front", "belt": "base_belt_front"}}}
    of = Style("d", "D", 1, LENGTHS, CODES, search=("new", "old"), defaults=other)
    found = index(
        of,
        "old/base_knee_bottom_front_0000.png",
        "old/base_belt_front_0000.png",
        "new/base_belt_front_0000.png",
        "new/base_something_else_front_0000.png",
    )
    assert taken(found) == {
        "base/base_belt_front_0000.png": "new/base_belt_front_0000.png",
        "base/base_knee_bottom_front_0000.png": "old/base_knee_bottom_front_0000.png",
    }


def test_a_default_that_is_a_layer_of_a_code_is_found_with_that_code() -> None:
    of = Style("d", "D", 1, LENGTHS, CODES, search=("new", "old"), defaults={
        "knee": {"front": {"bottom": "b2_knee_bottom_front"}}
    })  # fmt: skip
    found = index(of, "new/b2_belt_front_0000.png", "old/b2_knee_bottom_front_0000.png")
    assert list(taken(found)) == ["b2/b2_belt_front_0000.png"]
    assert found.absent["b2_knee_bottom_front"] == (0,)


def test_names_of_combination_files_may_be_built_in_any_way() -> None:
    also = ("t13_neckline_bottom_front", "default_two_piece_neckline_front")
    keys = [f"{base}_0000.png" for base in also]
    assert index(style(), *keys).files == {}
    assert set(index(style(), *keys, also=also).files) == set(also)


def test_of_two_names_that_begin_alike_each_is_searched_by_itself() -> None:
    also = ("default_belt_front", "default_belt_front_belt_front")
    keys = [f"{folder}/{base}_0000.png" for folder, base in zip(("old", "new"), also, strict=True)]
    assert sorted(taken(index(style("new", "old"), *keys, also=also)).values()) == sorted(keys)


# Names


def test_names_are_lower_case_afterwards() -> None:
    found = index(style(), "A/T13_Neckline_FRONT_0001.PNG", "BASE_knee_bottom_front_0000.png")
    assert taken(found) == {
        "t13/t13_neckline_front_0001.png": "A/T13_Neckline_FRONT_0001.PNG",
        "base/base_knee_bottom_front_0000.png": "BASE_knee_bottom_front_0000.png",
    }


@pytest.mark.parametrize(
    "twins",
    [
        ("T13_neckline_front_0000.png", "t13_neckline_front_0000.png"),
        ("a/t13_neckline_front_0000.png", "b/t13_neckline_front_0000.png"),
        tuple(f"{each}_neckline_front_0000.png" for each in ("a/t13", "b/t13", "T13")),
    ],
)
def test_files_that_would_write_one_output_are_refused_by_all_their_names(
    twins: tuple[str, ...],
) -> None:
    found = index(style(), *twins, "t13_neckline_front_0001.png")
    assert list(taken(found)) == ["t13/t13_neckline_front_0001.png"]
    [(layer, reason)] = found.refused.items()
    assert layer == ("t13_neckline_front", 0)
    assert all(name in reason for name in twins)
    assert remarks(found) == {"t13/t13_neckline_front_0000.png": f"is refused: {reason}"}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("t13_neckline_front.png", "does not end in _<4-digit colour>"),
        ("t13_neckline_front_001.png", "does not end in _<4-digit colour>"),
        ("t13_neckline_front_00011.png", "does not end in _<4-digit colour>"),
        ("t13_neckline_front_٠٠٠١.png", "does not end in _<4-digit colour>"),
        ("t13_neckline_front_0002.png", "highest colour is 0001"),
        ("t13_neckline_left_0000.png", "a side one of front, back"),
        ("t13_for_x9_neckline_front_0000.png", "'x9', which is no code"),
        ("t13_neckline_front_0000 (1).png", "does not end in _<4-digit colour>"),
        ("base_knee_bottom_front_old.png", "does not end in _<4-digit colour>"),
    ],
)
def test_a_name_that_is_no_layers_is_left_out_and_says_why(name: str, why: str) -> None:
    found = index(style(), name)
    assert found.files == {}
    assert why in remarks(found)[name]


def test_a_layer_that_no_combination_shows_is_taken_and_remarked() -> None:
    found = index(style(), "t23_belt_front_0000.png", "t23_belt_front_0001.png")
    assert found.colours == {"t23_belt_front": {0, 1}}
    assert list(remarks(found)) == ["t23_belt_front"]


def test_what_cannot_be_read_is_remarked_and_no_older_file_stands_in_for_it(
    tmp_path: Path,
) -> None:
    for folder in ("new", "old"):
        (tmp_path / folder).mkdir()
    (tmp_path / "old/t13_neckline_front_0000.png").write_bytes(b"old")
    (tmp_path / "new/t13_neckline_front_0000.png").symlink_to(tmp_path / "elsewhere.png")
    (tmp_path / "new/nothing.png").symlink_to(tmp_path / "elsewhere.png")
    found = index_layers(style("new", "old"), LocalSide(tmp_path))
    assert found.files == {}
    assert remarks(found)["new/t13_neckline_front_0000.png"] == (
        "is not read: it is a symbolic link, which is not followed"
    )
    assert remarks(found).keys() == {"new/t13_neckline_front_0000.png", "old"}


def test_a_folder_that_is_not_there_stops_the_search(tmp_path: Path) -> None:
    with pytest.raises(PlanRefused, match="is the drive mounted"):
        index_layers(style(), LocalSide(tmp_path / "away"))


# Colours


def test_absent_colours_are_told_for_each_base_name() -> None:
    found = index(
        style(colours=4),
        *(f"t13_neckline_front_{colour:04d}.png" for colour in (0, 2)),
        *(f"t13_for_b2_neckline_front_{colour:04d}.png" for colour in range(4)),
        "t23_belt_front_0003.png",
    )
    assert found.absent == {
        "b2_knee_bottom_front": (0, 1, 2, 3),
        "base_knee_bottom_front": (0, 1, 2, 3),
        "t13_neckline_front": (1, 3),
        "t23_belt_front": (0, 1, 2),
    }


def test_a_refused_colour_is_not_absent() -> None:
    found = index(style(colours=1), "a/t23_belt_front_0000.png", "b/t23_belt_front_0000.png")
    assert "t23_belt_front" not in found.absent
    assert found.refused.keys() == {("t23_belt_front", 0)}


def test_a_file_that_only_begins_like_a_default_layer_hides_none(tmp_path):
    for key in ("new/base_knee_bottom_front_old_0000.png", "old/base_knee_bottom_front_0000.png"):
        file = tmp_path / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    found = index_layers(style("new", "old"), LocalSide(tmp_path))
    assert found.files["base_knee_bottom_front"][0].folder == "old"


# Against a slow and obvious search, and its cost

FOLDERS = ["new", "new/part", "old", "other"]
NAMES = [
    f"{base}_000{colour}.{ending}"
    for base in (*LAYERS, "T13_neckline_front", "base_knee_bottom_front", "t23_notes")
    for colour in (0, 1)
    for ending in ("png", "PNG", "txt")
]


def expected(of: Style, keys: list[str]) -> dict[str, str]:
    """Output and key, as glob patterns would find them, twins left out."""
    made: dict[str, list[str]] = {}
    for subject in (*CODES, "base_knee_bottom_front"):
        for folder in of.search:
            hits = [
                key
                for key in keys
                if key.startswith(f"{folder}/")
                and key.lower().rpartition("/")[2].startswith(f"{subject}_")
                and key.lower().endswith(".png")
            ]
            if hits:
                break
        for key in hits:
            name = key.lower().rpartition("/")[2]
            if "notes" not in name:
                made.setdefault(f"{name.partition('_')[0]}/{name}", []).append(key)
    return {output: keys[0] for output, keys in made.items() if len(keys) == 1}


@given(
    keys=st.lists(
        st.builds("{}/{}".format, st.sampled_from(FOLDERS), st.sampled_from(NAMES)), unique=True
    ),
    search=st.lists(st.sampled_from(FOLDERS), min_size=1, unique=True),
)
def test_the_index_is_what_the_patterns_find(keys: list[str], search: list[str]) -> None:
    of = style(*search)
    assert taken(index(of, *keys)) == expected(of, keys)


def test_memory_is_in_proportion_to_the_layers_and_not_to_what_else_lies_there() -> None:
    def peak(others: int) -> int:
        class Many(Keys):
            def entries(self, below: str, reject: Reject) -> Iterator[Entry]:
                yield from super().entries(below, reject)
                for number in range(others):
                    yield Entry("", f"photos/{number:06d}/picture.png", 1, 1, "")

        tracemalloc.start()
        try:
            index_layers(style(), Many("t13_neckline_front_0000.png"))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(40_000) < peak(10) + 100_000


def test_ten_thousand_layers_in_any_order_give_one_index() -> None:
    codes = tuple(f"t{number}" for number in range(280))
    keys = [
        f"{folder}/{code}_{layer}_front_{colour:04d}.png"
        for number, code in enumerate(codes)
        for folder in (("new", "old") if number % 2 else ("old",))
        for layer in ("belt", "neckline")
        for colour in range(18)
    ]
    of = style("new", "old", codes=(*codes, *CODES[2:]), layers=(), colours=18)
    first = index(of, *keys)
    shuffled = random.Random(1).sample(keys, len(keys))
    assert index(of, *shuffled) == first
    assert sum(map(len, first.files.values())) == 280 * 2 * 18
    assert {each.partition("/")[0] for each in taken(first).values()} == {"new", "old"}


def test_text_of_a_name_is_safe_to_show() -> None:
    found = index(style(), "t13_x\n\x1b_0000.png")
    assert all(each.name.isprintable() and each.text.isprintable() for each in found.remarks)
