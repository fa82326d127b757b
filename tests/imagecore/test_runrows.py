"""Pages of a run's rows are what a plain filter over every line finds, whatever is asked."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from imagecore import runrows
from imagecore.manifest import encode
from imagecore.outcome import Outcome, State
from imagecore.runrows import FOLDING, Page, RecordsDamaged, Row, Wanted, looks, rows
from imagecore.workstore import WorkStore

PATH = "dag/run/outcomes.jsonl"
TEXTS = st.text(
    st.sampled_from('abkKsS "\\/\n\x7f.éÉßẞſKİﬁΣσςЖж😀𐐀𐐨\ud800\udc00u0') | st.characters(),
    max_size=8,
)
OUTCOMES = st.lists(
    st.builds(
        Outcome,
        TEXTS,
        st.sampled_from(State),
        st.sampled_from(["", "state", "no space"]) | TEXTS,
        st.just(0.5),
        st.just("2026-01-01T00:00:00.000+00:00"),
        st.dictionaries(st.sampled_from(["state", "key", "reason"]), TEXTS | st.integers()),
    ),
    max_size=25,
)


def stored(data: bytes) -> WorkStore:
    store = WorkStore("memory://", MemoryStore())
    store.put(PATH, data)
    return store


def parsed(lines: bytes) -> list[Row]:
    return [json.loads(line) for line in lines.splitlines()]


def plainly(row: Row, wanted: Wanted) -> bool:
    """The same question, asked of the parsed row alone."""
    return (
        (not wanted.states or row["state"] in wanted.states)
        and wanted.reason.casefold() in row["reason"].casefold()
        and wanted.key.casefold() in row["key"].casefold()
    )


def all_rows(store: WorkStore, wanted: Wanted) -> list[Row]:
    return [row for row in looks(store, PATH, wanted) if row is not None]


def paged(store: WorkStore, wanted: Wanted, limit: int, seconds: float = 60) -> list[Page]:
    pages = [rows(store, PATH, wanted, None, limit, seconds)]
    while pages[-1].next is not None:
        pages.append(rows(store, PATH, wanted, pages[-1].next, limit, seconds))
    return pages


CASES: list[Callable[[str], str]] = [str, str.upper, str.lower, str.casefold, str.swapcase]


@st.composite
def asked(draw: Any) -> tuple[list[Outcome], Wanted]:
    """Outcomes, and what is wanted of them: mostly parts of what is there."""
    outcomes = draw(OUTCOMES)

    def part(texts: list[str]) -> str:
        text = draw(st.sampled_from(texts) if texts else TEXTS)
        begin = draw(st.integers(0, len(text)))
        some: str = draw(st.sampled_from(CASES))(text[begin : draw(st.integers(begin, len(text)))])
        return draw(st.sampled_from([some, ""]) | TEXTS)

    states = draw(st.frozensets(st.sampled_from([state.value for state in State] + ["other"])))
    reason, key = part([o.reason for o in outcomes]), part([o.key for o in outcomes])
    return outcomes, Wanted(states, reason, key)


@settings(max_examples=400)
@given(asked(), st.integers(1, 30), st.sampled_from([64, 300, 1 << 20]))
def test_pages_are_what_a_plain_filter_finds(
    question: tuple[list[Outcome], Wanted], limit: int, piece: int
) -> None:
    outcomes, wanted = question
    data = b"".join(outcome.line() for outcome in outcomes)
    store, expected = stored(data), [row for row in parsed(data) if plainly(row, wanted)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runrows, "FIRST_PIECE", piece)
        pages = paged(store, wanted, limit)
        assert [row for page in pages for row in page.rows] == expected
        assert all(len(page.rows) == limit for page in pages[:-1])
        assert sum(page.looked_at for page in pages) == len(data)
        assert all_rows(store, wanted) == expected
        hurried = paged(store, wanted, limit, seconds=0)
        assert [row for page in hurried for row in page.rows] == expected
        assert all(page.looked_at for page in hurried[:-1]), "every page gets further"


@given(st.lists(TEXTS), TEXTS)
def test_rows_of_a_manifest_have_a_key_alone(keys: list[str], part: str) -> None:
    data = b"".join(encode({"key": key, "path": 'x","state":"done'}) for key in keys)
    store = stored(data)
    expected = [row for row in parsed(data) if part.casefold() in row["key"].casefold()]
    assert all_rows(store, Wanted(key=part)) == expected
    assert all_rows(store, Wanted(frozenset(["done"]))) == []
    assert all_rows(store, Wanted(reason="x")) == []


def test_every_character_is_found_by_each_letter_it_folds_to() -> None:
    folding = [c for c in map(chr, range(sys.maxunicode + 1)) if c.casefold() != c]
    assert max(folding) < chr(FOLDING)
    for character in folding:
        store = stored(Outcome(f"a{character}z", State.DONE).line())
        folded = character.casefold()
        for part in {character, *folded, folded, f"a{folded}Z"}:
            assert rows(store, PATH, Wanted(key=part), None, 1, 60).rows, (character, part)


def many(count: int = 2_000) -> bytes:
    return b"".join(
        Outcome(f"photo-{n:05d}.jpg", State.DONE if n % 500 else State.FAILED, "").line()
        for n in range(count)
    )


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(frozenset(["failed"])), 4),
        (Wanted(frozenset(["quarantined"])), 0),
        (Wanted(key="-01999."), 1),
        (Wanted(frozenset(["done"]), key="-01500."), 0),
        (Wanted(frozenset(["failed"]), key="PHOTO-01"), 2),
    ],
)
def test_only_lines_that_hold_what_is_wanted_are_parsed(
    wanted: Wanted, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[Row] = []
    parse = runrows._parsed
    monkeypatch.setattr(
        runrows, "_parsed", lambda *args: looked_at.append(row := parse(*args)) or row
    )
    assert len(rows(stored(many()), PATH, wanted, None, 100, 60).rows) == found
    assert len(looked_at) == found


def test_a_page_says_where_the_next_begins_and_the_last_that_it_is() -> None:
    store = stored(many(5))
    first = rows(store, PATH, Wanted(), None, 3, 60)
    assert [row["key"] for row in first.rows] == [f"photo-0000{n}.jpg" for n in range(3)]
    assert first.next == str(first.looked_at)
    last = rows(store, PATH, Wanted(), first.next, 2, 60)
    assert [row["key"] for row in last.rows] == ["photo-00003.jpg", "photo-00004.jpg"]
    assert last.next is None, "a full page that ends with the file is the last"
    end = str(first.looked_at + last.looked_at)
    assert rows(store, PATH, Wanted(), end, 2, 60) == Page([], None, 0)


def test_a_page_whose_time_is_over_ends_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runrows, "FIRST_PIECE", 1_000)
    store, lines = stored(many()), many().splitlines(keepends=True)
    page = rows(store, PATH, Wanted(), None, 100, 0)
    assert page == Page([json.loads(lines[0])], str(len(lines[0])), len(lines[0]))
    empty = rows(store, PATH, Wanted(key="nowhere"), None, 100, 0)
    assert (empty.rows, empty.next) == ([], str(empty.looked_at))
    assert 0 < empty.looked_at <= 1_000


def test_a_cursor_is_the_beginning_of_a_line_and_nothing_else() -> None:
    data = many(3)
    store, beginnings = stored(data), {0, *(n + 1 for n in range(len(data)) if data[n] == 10)}
    for offset in range(len(data) + 3):
        if offset in beginnings:
            page = rows(store, PATH, Wanted(), str(offset), 9, 60)
            assert page.rows == parsed(data[offset:])
        else:
            with pytest.raises(ValueError, match=f"No line .* begins at byte {offset}"):
                rows(store, PATH, Wanted(), str(offset), 9, 60)


@pytest.mark.parametrize(
    "cursor",
    ["", "-1", "+1", " 1", "1\n", "1.0", "0x1", "1e3", "٣", "1" * 19, "9" * 9999, "\0"],
)
def test_a_cursor_that_is_no_number_is_refused(cursor: str) -> None:
    with pytest.raises(ValueError, match=r"The cursor .* is no place in a file"):
        rows(stored(many(3)), PATH, Wanted(), cursor, 9, 60)


def test_a_number_far_beyond_the_file_is_refused() -> None:
    with pytest.raises(ValueError, match=r"begins at byte 9{18}"):
        rows(stored(many(3)), PATH, Wanted(), "9" * 18, 9, 60)


@pytest.mark.parametrize("wanted", [Wanted(), Wanted(key="nowhere")])
@pytest.mark.parametrize("before", [b"", b'{"key":"a"}\n' * 300])
def test_a_line_too_long_is_named_and_the_longest_one_is_read(
    wanted: Wanted, before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runrows, "FIRST_PIECE", 256)
    monkeypatch.setattr(runrows, "LINE_BYTES", 1024)
    longest = encode({"key": "x" * (1024 - len('{"key":""}\n'))})
    assert len(longest) == 1024
    store = stored(before + longest + b'{"key":"a"}\n')
    assert [row for page in paged(store, wanted, 7) for row in page.rows] == (
        [] if wanted.key else parsed(before + longest + b'{"key":"a"}\n')
    )
    store = stored(before + b" " + longest + b'{"key":"a"}\n')
    with pytest.raises(RecordsDamaged, match=f"{PATH} is damaged: at byte {len(before)} .*longer"):
        paged(store, wanted, 7)


@pytest.mark.parametrize("line", [b"{", b"[]", b"", b"\xff", b'"key"', b"[" * 100_000])
def test_a_line_that_is_no_object_is_named_by_its_place(line: bytes) -> None:
    store = stored(b'{"key":"a"}\n' + line + b"\n")
    with pytest.raises(RecordsDamaged, match=f"{PATH} is damaged: at byte 12 .*no object in JSON"):
        rows(store, PATH, Wanted(), None, 9, 60)


def test_a_file_without_rows_or_without_its_last_line_break_is_read() -> None:
    assert rows(stored(b""), PATH, Wanted(), None, 9, 60) == Page([], None, 0)
    store = stored(b'{"key":"a"}\n{"key":"b"}')
    assert rows(store, PATH, Wanted(key="B"), None, 9, 60).rows == [{"key": "b"}]


def test_a_missing_file_is_a_missing_file(work_store: WorkStore) -> None:
    for cursor in (None, "5"):
        with pytest.raises(FileNotFoundError):
            rows(work_store, PATH, Wanted(), cursor, 9, 60)
