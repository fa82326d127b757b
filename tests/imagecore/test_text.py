"""Text from outside never breaks what shows it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecore.text import printable


@given(st.text(st.characters()))
def test_whatever_is_shown_can_be_printed_and_stored(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown


@given(st.text(st.characters(exclude_categories=["C", "Z"])))
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    assert printable(f"a {text}.jpg") == f"a {text}.jpg"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nERROR forged", r"a\nERROR forged"),
        ("nul\0", r"nul\x00"),
        ("\x1b[2J", r"\x1b[2J"),
        ("gpj.\u202egnp", r"gpj.\u202egnp"),
        ("half \ud83d", r"half \ud83d"),
        (ValueError("bad\r"), r"bad\r"),
    ],
)
def test_what_cannot_be_shown_is_written_as_an_escape(text: object, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()), st.integers(1, 30))
def test_a_text_over_its_limit_is_cut_and_the_cut_is_marked(text: str, limit: int) -> None:
    whole, cut = printable(text), printable(text, limit)
    assert len(cut) <= limit
    assert cut == whole or (cut.endswith("…") and whole.startswith(cut[:-1]))
    assert cut == whole or len(cut) == limit
