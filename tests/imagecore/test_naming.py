"""Which names are taken, and the reason for each that is not."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecore.naming import NamingRule

LEGACY = re.compile(r"stores/[^/]+/(photos|menus)/[0-9]+\.jpg")
EVERYTHING = re.compile(r"(stores|chains)/[^/]+/(photos|menus)/[0-9]+\.(jpg|png)")
STORES = NamingRule("stores")
ALL = NamingRule("stores", chains=True, png=True)

PARTS = st.sampled_from(
    ["stores", "chains", "Stores", "photos", "menus", "photo", "", "x", "1-a b", ".", "0.jpg"]
) | st.text(max_size=3)
FILES = st.builds(
    "".join,
    st.lists(st.sampled_from(["0", "12", "٣", "-", "a", ".", ".jpg", ".JPG", ".png", "\n"])),
)
KEYS = st.text() | st.builds(
    lambda parts, file: "/".join([*parts, file]), st.lists(PARTS, max_size=5), FILES
)


@given(KEYS)
def test_every_name_is_taken_without_a_rule(key: str) -> None:
    assert NamingRule().refusal(key) == ""


@given(KEYS | st.from_regex(LEGACY) | st.from_regex(EVERYTHING, fullmatch=True))
def test_the_rule_takes_exactly_what_the_legacy_pattern_takes(key: str) -> None:
    assert (STORES.refusal(key) == "") == bool(LEGACY.fullmatch(key))
    assert (ALL.refusal(key) == "") == bool(EVERYTHING.fullmatch(key))


@given(KEYS)
def test_a_reason_is_one_printable_line(key: str) -> None:
    for rule in (STORES, ALL):
        assert rule.refusal(key).isprintable()


@pytest.mark.parametrize(
    "key",
    [
        "stores/1-glam-n-glow/photos/0.jpg",
        "stores/1-glam-n-glow/menus/99.jpg",
        "stores/a b, c & d/photos/0001.jpg",
        "stores/caf\u00e9 \U0001f5bc/photos/1.jpg",
    ],
)
def test_normal_names_are_taken(key: str) -> None:
    assert STORES.refusal(key) == ""


SHAPE = "it is not stores/(store)/(photos|menus)/(number).jpg"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("stores/1003-x/photos/0.png.png", "its extension is not .jpg"),
        ("stores/1003-x/photos/0.jpg.jpg", "its extension is not .jpg"),
        ("stores/1003-x/menus/.picasaoriginals/1.JPG", SHAPE),
        ("stores/2596-jawed-habib/1.jpg", SHAPE),
        ("stores//photos/1.jpg", SHAPE),
        ("stores", SHAPE),
        ("stores/1-x/photos/IMG-20150724-WA0000.jpg", "its name is not a number"),
        ("stores/1-x/photos/.jpg", "its name is not a number"),
        ("stores/1-x/photos/\u0663.jpg", "its name is not a number"),
        ("stores/1-x/photos/1\n.jpg", "its name is not a number"),
        ("stores/1-x/photos/99.JPG", "its extension is not .jpg (lower case counts)"),
        ("stores/1-x/photos/99", "its extension is not .jpg"),
        ("stores/1-x/photos/99.jpg\n", "its extension is not .jpg"),
        ("stores/1-x/photos/99.png", "its extension is not .jpg"),
        ("stores/1-x/menus/men menu card.xlsx", "its extension is not .jpg"),
        ("stores/1-x/photos/1.tmp", "its extension is not .jpg"),
        ("stores/1-x/Photos/1.jpg", "its folder is neither photos nor menus"),
        ("chains/1-x/photos/1.jpg", "it is not below stores/"),
        ("Stores/1-x/photos/1.jpg", "it is not below stores/"),
        ("/stores/1-x/photos/1.jpg", "it is not below stores/"),
        ("", "it is not below stores/"),
    ],
)
def test_a_refused_name_has_its_reason(key: str, reason: str) -> None:
    assert STORES.refusal(key) == reason


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("chains/1-x/photos/1.png", ""),
        ("other/1-x/photos/1.jpg", "it is not below stores/ or chains/"),
        ("chains/1-x/1.jpg", "it is not chains/(store)/(photos|menus)/(number).jpg"),
        ("stores/1-x/photos/1.gif", "its extension is not .jpg or .png"),
        ("stores/1-x/photos/1.PNG", "its extension is not .jpg or .png (lower case counts)"),
    ],
)
def test_chains_and_png_are_taken_when_declared(key: str, reason: str) -> None:
    assert ALL.refusal(key) == reason


def test_chains_and_png_are_declared_one_by_one() -> None:
    chain, png = "chains/a/photos/1.jpg", "stores/a/photos/1.png"
    assert not NamingRule("stores", chains=True).refusal(chain)
    assert NamingRule("stores", chains=True).refusal(png)
    assert not NamingRule("stores", png=True).refusal(png)
    assert NamingRule("stores", png=True).refusal(chain)
