"""A style file begun from a folder: it can be read at once, and marks what is still to decide."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from renderfiles import REAL, RENDERS, real_rows

from imagecore.layerindex import index_layers
from imagecore.renderstyle import LAYERS, LEGACY_SIZES, SIDES, Format, Style, load_style, parse_base
from imagecore.sides import Entry, LocalSide, Reject, S3Side
from imagecore.styleskeleton import style_skeleton
from tests.objects import new_bucket_of, put


class Keys:
    """A side of these keys."""

    url = "file:///renders"
    ascending = False

    def __init__(self, *keys: str) -> None:
        self._keys = keys

    def key(self, key: str) -> str:
        return key

    def entries(self, below: str, reject: Reject) -> Iterator[Entry]:
        for key in self._keys:
            if key.startswith(below):
                yield Entry(key, key, 1, 1, "")


def files(*bases: str, folder: str = "", colours: int = 1) -> list[str]:
    return [f"{folder}{base}_{colour:04d}.png" for base in bases for colour in range(colours)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("styles")


Begin = Callable[..., tuple[Style, str]]


@pytest.fixture(scope="module")
def begin(folder: Path) -> Begin:
    """The style begun from keys, as it is read, and its text."""

    def run(*keys: str, title: str = "Dress") -> tuple[Style, str]:
        text = style_skeleton(Keys(*keys), title)
        path = folder / "dress.yaml"
        path.write_text(text, encoding="utf-8")
        return load_style(path), text

    return run


def decisions(text: str) -> list[str]:
    return [line.partition("DECIDE: ")[2] for line in text.splitlines() if "DECIDE: " in line]


# What names say


def test_a_folder_becomes_a_style_with_what_its_names_say(begin: Begin) -> None:
    drawn = ["t13_neckline_front", "t9_for_t13_b2_knee_belt_back", "b2_micro_mini_bottom_front"]
    plain = [f"base_{length}_bottom_{side}" for length in ("knee", "micro_mini") for side in SIDES]
    style, text = begin(*files(*drawn, *plain, "base_neckline_front", colours=18))
    assert style.colours == 18
    assert style.codes == ("b2", "t9", "t13")
    assert style.lengths == {"knee": "Knee", "micro_mini": "Micro-Mini"}
    assert style.search == (".",)
    assert style.defaults == {
        length: {
            "front": {"bottom": f"base_{length}_bottom_front", "neckline": "base_neckline_front"},
            "back": {"bottom": f"base_{length}_bottom_back"},
        }
        for length in ("knee", "micro_mini")
    }
    assert {base.name for base in style.layers} == set(drawn)
    assert style.sizes == LEGACY_SIZES
    assert style.formats == (Format("png"),)
    assert "  bottom: 'base_{length}_bottom_{side}'" in text.splitlines()


def test_what_a_person_must_decide_is_marked(begin: Begin) -> None:
    _, text = begin(*files("t13_knee_neckline_front", "base_knee_belt_front"))
    assert decisions(text) == [
        "the order, and the names shown to people.",
        "the order. Where two codes have the same layer, the later one's is shown.",
        "which codes do not go together? Write each pair as [one, other].",
        "which codes can a length not have? Write them as length: [one, other].",
    ]
    assert "as long as all go together: 1." in text


@pytest.mark.parametrize(
    ("bases", "question"),
    [
        (["t1_flared_belt_front"], "is this a length?"),
        (["t1_belt_front"], "no name has a length, and there must be one: what is it called?"),
        (["t1_belt_front"], "no name begins with base_ or default_; are there any?"),
        (["t1_for_t2_belt_front"], "are these codes? Others' layers are for them, they have none"),
        (["t1_neckline_bottom_front"], "is this what it is for?"),
        (["t1_x_for_y_belt_front"], "is this what it is for?"),
        (["t1_t2_belt_front", "t2_belt_front"], "is this what it is for?"),
        (["t1_for_t2_t3_belt_front", "t2_belt_front", "t3_belt_front", "t1_for_t3_t2_belt_front"],
         "in place of t1_for_t2_t3_belt_front?"),
        (["default_belt_front", "base_belt_front"], "others are the defaults in place of default_"),
        (["for_belt_front"], "1 names are not built as"),
        (["t1_belt_left"], "1 names are not built as"),
    ],
)  # fmt: skip
def test_what_names_do_not_say_is_asked(begin: Begin, bases: list[str], question: str) -> None:
    _, text = begin(*files(*bases))
    assert any(question in each for each in decisions(text))


def test_layers_that_lack_colours_are_counted(begin: Begin) -> None:
    keys = [*files("t1_belt_front", colours=3), *files("t2_belt_front", "t3_belt_front", colours=2)]
    style, text = begin(*keys)
    assert style.colours == 3
    assert "2 layers lack some of these colours" in decisions(text)


def test_a_layer_built_otherwise_is_written_out(begin: Begin) -> None:
    style, text = begin(*files("t1_b2_knee_belt_front", "b2_knee_belt_front"))
    [layer] = [base for base in style.layers if base.code == "t1"]
    assert (layer.name, layer.conditions, layer.length) == (
        "t1_b2_knee_belt_front",
        ("b2",),
        "knee",
    )
    assert "{name: t1_b2_knee_belt_front, code: t1, for: [b2], length: knee}" in text


def test_defaults_of_some_lengths_or_sides_only_are_written_singly(begin: Begin) -> None:
    plain = ["base_knee_bottom_front", "base_bottom_front", "default_mini_belt_back"]
    style, text = begin(*files(*plain))
    assert style.defaults == {
        "knee": {"front": {"bottom": "base_knee_bottom_front"}, "back": {}},
        "mini": {
            "front": {"bottom": "base_bottom_front"},
            "back": {"belt": "default_mini_belt_back"},
        },
    }
    assert "{length}" not in text


def test_a_layers_name_in_a_default_is_no_length(begin: Begin) -> None:
    style, _ = begin(
        *files("base_belt_infront_front", "base_belt_infront_back", "t1_knee_belt_back")
    )
    assert style.defaults["knee"]["front"] == {"infront": "base_belt_infront_front"}
    assert list(style.lengths) == ["knee"]


def test_the_length_that_is_made_up_is_nothing_else(begin: Begin) -> None:
    style, _ = begin(*files("length1_belt_front", "length2_for_t1_belt_front"))
    assert style.codes == ("length1", "length2", "t1")
    assert list(style.lengths) == ["length3"]


def test_names_are_read_in_lower_case(begin: Begin) -> None:
    style, _ = begin("A/T13_KNEE_Belt_front_0001.PNG")
    assert [base.name for base in style.layers] == ["t13_knee_belt_front"]


def test_other_files_and_hidden_folders_do_not_count(begin: Begin) -> None:
    keys = [
        "Thumbs.db",
        "t1_belt_front.png",
        "t2_belt_front_0000.psd",
        ".cache/t3_belt_front_0000.png",
    ]
    style, text = begin(*keys)
    assert (style.codes, style.layers, style.colours) == ((), (), 1)
    assert "0 layers, 0 pictures" in text


def test_of_many_odd_names_some_are_shown_and_the_others_counted(begin: Begin) -> None:
    _, text = begin(*(f"photo_{number:04d}.png" for number in range(1_060)))
    assert "1,060 names are not built as" in text
    assert text.count("#   photo_") == 50
    assert "#   and 1,010 more" in text


def test_the_names_of_a_real_style_give_what_was_written_by_hand(begin: Begin) -> None:
    written, combinations, _ = REAL[1]
    bases = {name for _, *stacks in real_rows(combinations) for stack in stacks for name in stack}
    begun, right = begin(*files(*bases, colours=18))[0], load_style(RENDERS / written)
    assert set(begun.codes) == set(right.codes)
    assert set(begun.layers) == set(right.layers)
    assert begun.lengths == right.lengths
    assert begun.defaults == right.defaults
    assert begun.colours == right.colours


# Where layers are


@pytest.mark.parametrize(
    ("keys", "search"),
    [
        (["t1_belt_front"], ["."]),
        (["a/t1_belt_front", "a/b/t2_belt_front"], ["a"]),
        (["a/b/x/t1_belt_front", "a/b/y/t2_belt_front"], ["a/b"]),
        (["x/t1_belt_front", "y/t2_belt_front"], ["."]),
        (["x/t1_belt_front", "y/t1_belt_front"], ["x", "y"]),
        (["a/x/t1_belt_front", "a/y/z/t1_belt_front"], ["a/x", "a/y"]),
        (["a/x/t1_belt_front", "a/t1_belt_front"], ["a/x", "a"]),
        (["t1_belt_front", "y/t1_belt_front"], ["y", "."]),
        (["a//t1_belt_front"], ["a"]),
        (["../t1_belt_front", "/t1_belt_front", "a/t1_belt_front"], ["a", "."]),
        (["12/t1_belt_front"], ["12"]),
        (["a: b/#c/t1_belt_front"], ["a: b/#c"]),
    ],
)
def test_folders_are_searched_apart_only_where_a_layer_is_in_several(
    begin: Begin, keys: list[str], search: list[str]
) -> None:
    style, text = begin(*(f"{key}_0000.png" for key in keys))
    assert list(style.search) == search
    assert ("in several places" in text) == (len(search) > 1)


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_folder_and_a_bucket_are_read_alike(kind: str, tmp_path: Path, s3_client: object) -> None:
    keys = files("t1_belt_front", "base_knee_belt_front", folder="new/")
    if kind == "folder":
        (tmp_path / "new").mkdir()
        for key in keys:
            (tmp_path / key).write_bytes(b"picture")
        side: LocalSide | S3Side = LocalSide(tmp_path)
    else:
        bucket = new_bucket_of(s3_client)
        for key in keys:
            put(bucket, f"renders/{key}")
        side = S3Side(bucket, "renders/")
    text = style_skeleton(side, "Dress")
    assert "search:\n  - new\n" in text
    assert "  - t1_belt_front\n" in text
    assert f"# Begun from {side.url}: 2 layers, 2 pictures." in text


# Whatever there is, it can be read


@pytest.mark.parametrize(
    "title", ["Dress", "12", "null", "a: b # c", "“Ärmel” \U0001f457", "x\ty\x85\x7f"]
)
def test_any_title_is_kept(begin: Begin, title: str) -> None:
    assert begin(title=title)[0].title == title


CODES = ("t1", "t13", "b2", "12", "no", "null", "0x1f", "1e3", "t9")
LENGTHS = ("knee", "mini", "micro_mini", "flared", "on", "3", "x_y")


@st.composite
def names(draw: st.DrawFn) -> set[str]:
    """Base names built by the rule, none saying what another one says."""
    codes = draw(st.lists(st.sampled_from(CODES), min_size=1, unique=True))
    found = {}
    for code in codes:
        for _ in range(draw(st.integers(0, 3))):
            others = [each for each in codes if each != code]
            picked = draw(st.lists(st.sampled_from(others), unique=True)) if others else []
            length = draw(st.sampled_from(("", *LENGTHS)))
            layer, side = draw(st.sampled_from(LAYERS)), draw(st.sampled_from(SIDES))
            middle = [code, *(["for", *picked] if picked else []), *([length] if length else [])]
            role = (code, frozenset(picked), length, layer, side)
            found.setdefault(role, "_".join([*middle, layer, side]))
    return {*found.values(), *(f"{code}_belt_front" for code in codes if code == codes[0]), *(
        f"{code}_neckline_back" for code in codes[1:]
    )}  # fmt: skip


@given(bases=names())
def test_the_style_has_exactly_the_layers_of_the_names(begin: Begin, bases: set[str]) -> None:
    style, _ = begin(*files(*sorted(bases)))
    assert {base.name for base in style.layers} == bases
    assert all(
        base == parse_base(base.name, style.codes, list(style.lengths)) for base in style.layers
    )
    found = index_layers(style, Keys(*files(*bases)))
    assert found.colours == {base: {0} for base in bases}
    assert (found.remarks, found.absent) == ((), {})


WORDS = ["t1", "b2", "for", "base", "default", "mini", "micro", "belt", "front", "12", "on", "x"]


@given(
    bases=st.sets(
        st.builds(
            lambda words, layer, side: "_".join([*words, layer, side]),
            st.lists(st.sampled_from(WORDS), min_size=1, max_size=6),
            st.sampled_from(LAYERS[:2]),
            st.sampled_from(SIDES),
        )
    )
)
def test_names_of_any_kind_give_a_style_that_is_read_and_none_is_lost(
    begin: Begin, bases: set[str]
) -> None:
    style, text = begin(*files(*bases))
    named = {base.name for base in style.layers}
    named |= {
        name
        for sides in style.defaults.values()
        for layers in sides.values()
        for name in layers.values()
    }
    assert named <= bases
    comments = "\n".join(line for line in text.splitlines() if "#" in line) + "\n"
    assert all(f" {base}" in comments for base in bases - named)


@given(keys=st.lists(st.text(max_size=20), unique=True))
def test_keys_of_any_kind_give_a_style_that_is_read(begin: Begin, keys: list[str]) -> None:
    legal = [key for key in keys if key.isascii() or key.encode("utf-8", "ignore").decode() == key]
    begin(*legal, *(f"{key}/t1_belt_front_0000.png" for key in legal), *(
        f"{key}_0000.png" for key in legal
    ))  # fmt: skip


def test_a_style_of_very_many_codes_is_read(begin: Begin) -> None:
    style, text = begin(*files(*(f"t{number}_belt_front" for number in range(3_000))))
    assert len(style.codes) == 3_000
    assert "as long as all go together: 2^3000 - 1." in text


def test_memory_is_in_proportion_to_the_layers_and_not_to_what_else_lies_there() -> None:
    def peak(others: int) -> int:
        class Many(Keys):
            def entries(self, below: str, reject: Reject) -> Iterator[Entry]:
                yield from super().entries(below, reject)
                for number in range(others):
                    yield Entry("", f"photos/{number:06d}/picture.png", 1, 1, "")

        tracemalloc.start()
        try:
            style_skeleton(Many(*files("t1_belt_front")), "Dress")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # what is imported and cached at first
    assert peak(40_000) < peak(10) + 100_000
