"""One picture, three spellings: its key in the source, its name, its keys in the destination."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecore.keymap import KEY_MAPS, Identity, Placed, WidthFolders

FOLDERS = WidthFolders()
PART = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1)
SEGMENT = PART | st.sampled_from(
    ["stores", "chains", "photos", "__w__", "__w-200__", "w200", "..", "\n", "1.jpg", "__w-__"]
)
PATHS = st.lists(SEGMENT | st.just(""), max_size=6).map("/".join)
SOURCES = st.builds(
    "/".join,
    st.tuples(st.sampled_from(["stores", "chains"]), SEGMENT, SEGMENT, SEGMENT)
    | st.tuples(st.just("stores"), SEGMENT, SEGMENT, SEGMENT, SEGMENT),
)
WIDTHS = st.lists(st.integers(0, 9_999), max_size=7).map(tuple)


@pytest.mark.parametrize(
    ("source", "name", "widths", "key"),
    [
        (
            "stores/slug/photos/1.jpg",
            "slug/photos/1.jpg",
            (200, 400),
            "slug/photos/__w-200-400__/1.jpg",
        ),
        ("stores/slug/menus/1.png", "slug/menus/1.png", (), "slug/menus/__w__/1.png"),
        (
            "chains/slug/photos/1.jpg",
            "chains/slug/photos/1.jpg",
            (1400,),
            "chains/slug/photos/__w-1400__/1.jpg",
        ),
        (
            "stores/caf\u00e9 & co/photos/a\nb%.jpg",
            "caf\u00e9 & co/photos/a\nb%.jpg",
            (200,),
            "caf\u00e9 & co/photos/__w-200__/a\nb%.jpg",
        ),
        (
            "stores/chains/photos/1.jpg",
            "chains/photos/1.jpg",
            (200,),
            "chains/photos/__w-200__/1.jpg",
        ),
    ],
)
def test_a_picture_is_the_same_on_both_sides(
    source: str, name: str, widths: tuple[int, ...], key: str
) -> None:
    assert FOLDERS.name(source) == name
    assert FOLDERS.source_key(name) == source
    assert FOLDERS.key(name, widths) == key
    assert FOLDERS.placed(key) == Placed(name, widths)


@given(SOURCES, WIDTHS)
def test_every_key_of_the_source_comes_back(source: str, widths: tuple[int, ...]) -> None:
    name = FOLDERS.name(source)
    if name is None:
        return
    assert FOLDERS.source_key(name) == source
    assert FOLDERS.placed(FOLDERS.key(name, widths)) == Placed(name, widths)
    for width in widths:
        copy = FOLDERS.copy_key(name, width)
        assert FOLDERS.is_copy(copy)
        assert FOLDERS.placed(copy) is None


@given(PATHS | SOURCES, PATHS | SOURCES)
def test_no_two_keys_of_the_source_are_one_picture(one: str, other: str) -> None:
    name = FOLDERS.name(one)
    assert one == other or name is None or name != FOLDERS.name(other)


@given(PATHS)
def test_what_is_in_the_destination_is_found_where_it_would_be_put(key: str) -> None:
    placed = FOLDERS.placed(key)
    if placed is not None:
        assert not FOLDERS.is_copy(key)
        assert FOLDERS.placed(FOLDERS.key(*placed)) == placed


def test_chains_do_not_collide_with_stores() -> None:
    chain, store = "chains/slug/photos/1.jpg", "stores/slug/photos/1.jpg"
    assert FOLDERS.name(chain) != FOLDERS.name(store)
    assert FOLDERS.key(FOLDERS.name(chain) or "") != FOLDERS.key(FOLDERS.name(store) or "")


def test_a_store_named_chains_is_not_the_chain() -> None:
    assert FOLDERS.name("stores/chains/slug/photos/1.jpg") is None
    assert FOLDERS.name("chains/slug/photos/1.jpg") == "chains/slug/photos/1.jpg"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "stores",
        "1.jpg",
        "photos/1.jpg",
        "slug/photos/1.jpg",
        "stores/slug/1.jpg",
        "stores/slug/photos/1.jpg/more",
        "stores/slug/photos/",
        "stores//photos/1.jpg",
        "/stores/slug/photos/1.jpg",
        "Stores/slug/photos/1.jpg",
        "chains/slug/1.jpg",
        "chains/slug/photos/deep/1.jpg",
    ],
)
def test_a_key_without_a_place_has_no_name(key: str) -> None:
    assert FOLDERS.name(key) is None


@pytest.mark.parametrize(
    ("key", "copy"),
    [
        ("slug/photos/w200/1.jpg", True),
        ("chains/slug/photos/w1400/1.jpg", True),
        ("slug/photos/1.jpg", False),
        ("slug/photos/w/1.jpg", False),
        ("slug/photos/w200x/1.jpg", False),
        ("slug/photos/W200/1.jpg", False),
        ("slug/w200/1.jpg", False),
        ("slug/photos/w200/deep/1.jpg", False),
        ("slug/photos/__w-__/1.jpg", False),
        ("slug/photos/__w-200-__/1.jpg", False),
        ("slug/photos/__w-200/1.jpg", False),
        ("slug/photos/__w200__/1.jpg", False),
        ("slug/photos/__w-200__/", False),
        ("slug/photos/__w-200__/deep/1.jpg", False),
        ("index.html", False),
    ],
)
def test_what_is_no_picture_in_the_destination_is_not_taken_for_one(key: str, copy: bool) -> None:
    assert FOLDERS.placed(key) is None
    assert FOLDERS.is_copy(key) == copy


@given(st.text())
def test_identity_changes_nothing(key: str) -> None:
    same = Identity()
    assert same.name(key) == same.source_key(key) == same.key(key) == key
    assert same.placed(key) == Placed(key)
    assert not same.is_copy(key)


def test_identity_has_no_place_for_copies() -> None:
    with pytest.raises(ValueError, match="identity has no place"):
        Identity().copy_key("a.jpg", 200)


def test_the_mappings_are_known_by_name() -> None:
    assert set(KEY_MAPS) == {"identity", "width_folders"}
