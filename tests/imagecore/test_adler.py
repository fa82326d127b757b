"""The keys of eZ's images: the hash of a path, a dash, and a name."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecore.adler import HASH_PREFIX, KEY_BYTES, adler32, parse_reference

NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/"), min_size=1)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"Wikipedia", "11e60398"),
        (b"var/ezflow_site/storage/images/media/foo/bar.jpg", "ccb51262"),
        (b"", "00000001"),
        (b"a", "00620062"),
    ],
)
def test_the_hash_of_a_path_is_eight_lower_case_digits(path, expected):
    assert adler32(path) == expected


def test_a_path_below_the_assets_is_hashed_behind_ez_s_folder():
    assert adler32(f"{HASH_PREFIX}/media/foo/bar.jpg".encode()) == "ccb51262"


@given(st.binary())
def test_the_hash_is_adler_32(path):
    assert int(adler32(path), 16) == zlib.adler32(path)
    assert len(adler32(path)) == 8


@given(st.integers(0, 2**32 - 1), NAMES)
def test_a_key_is_split_at_its_first_dash_with_or_without_leading_zeros(number, name):
    for spelling in (f"{number:08x}", f"{number:x}"):
        reference = parse_reference(f"{spelling}-{name}")
        assert (reference.adler, reference.name) == (number, name.encode())
        assert reference.key == f"{spelling}-{name}"


@pytest.mark.parametrize(
    "name",
    ["[a]*?.jpg", "a+b%20c d.jpg", "Gru\u0308n.jpg", "Gr\u00fcn.jpg", "a-b--c.jpg", "-", "x" * 300],
)
def test_any_letters_may_be_in_a_name(name):
    assert parse_reference(f"11e60398-{name}").name == name.encode()


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "it has no dash"),
        ("11e60398", "it has no dash"),
        ("11e60398-", "it has no file name"),
        ("-bar.jpg", "its hash is not 1 to 8"),
        ("11E60398-bar.jpg", "its hash is not 1 to 8"),
        ("011e60398-bar.jpg", "its hash is not 1 to 8"),
        ("0x11-bar.jpg", "its hash is not 1 to 8"),
        ("\u0661-bar.jpg", "its hash is not 1 to 8"),
        ("1 -bar.jpg", "its hash is not 1 to 8"),
        ("11e60398-media/bar.jpg", "a slash or a control character"),
        ("11e60398-bar\0.jpg", "a slash or a control character"),
        ("11e60398-bar.jpg\n", "a slash or a control character"),
        ("11e60398-\ud800.jpg", "it cannot be written as UTF-8"),
        ("11e60398-" + "x" * KEY_BYTES, "its 1,033 bytes are more than 1,024"),
    ],
)
def test_what_is_no_key_is_told_why(key, reason):
    with pytest.raises(ValueError, match=reason):
        parse_reference(key)
