"""Rows of a JSON Lines file in the work store, page by page and without an index.

A page begins at a byte of the file, its cursor, and ends when it is full or its time is over, so
that a rare row in many gigabytes costs several short requests and no long one. Lines are found
by what their bytes must hold; only those are parsed, and then asked whether they are wanted.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from time import monotonic
from typing import Any

from imagecore.errors import ImageflowsError
from imagecore.text import printable
from imagecore.workstore import WorkStore

Row = dict[str, Any]
Patterns = list[re.Pattern[bytes]]

FIRST_PIECE = 1 << 20
"""How many bytes of a file are read at first; every further piece is twice the last."""
LINE_BYTES = 1 << 22
"""The longest line there may be, and the most that is read at once."""

FOLDING = 0x20000
"""No character from here on has another case."""


class RecordsDamaged(ImageflowsError):
    """A file of a run is not what this project writes."""


@dataclass(frozen=True)
class Wanted:
    """Which rows are asked for; what is empty asks for nothing.

    `reason` and `key` are parts of the row's texts, whatever the case of their letters.
    """

    states: frozenset[str] = frozenset()
    reason: str = ""
    key: str = ""

    def takes(self, row: Row) -> bool:
        """Whether this row is wanted."""
        return (
            (not self.states or row.get("state") in self.states)
            and _holds(row.get("reason"), self.reason)
            and _holds(row.get("key"), self.key)
        )


@dataclass(frozen=True)
class Page:
    """Some rows; the cursor of the next page, None where there is no more; and how much was
    looked at for this one: bytes of a file, or outcomes of a run at work."""

    rows: list[Row]
    next: str | None
    looked_at: int


Looks = Iterator[tuple[str | None, int, Row | None]]
"""Where the next page goes on, how much was looked at until there, and the row if it is wanted."""


def rows(
    store: WorkStore, path: str, wanted: Wanted, cursor: str | None, limit: int, seconds: float
) -> Page:
    """A page of the wanted rows of the file `path`, in its order.

    Parameters:
        cursor: `next` of the page before; None for the first page.
        limit: how many rows at most.
        seconds: after how long the page ends, also with no row found. It always looks further
            than the page before.

    Raises:
        ValueError: `cursor` is not the beginning of a line of this file.
        RecordsDamaged: a line is no JSON object, or longer than LINE_BYTES.
        FileNotFoundError: there is no such file.
    """
    return page_of(_looks(store, path, wanted, _offset(cursor)), limit, seconds)


def looks(store: WorkStore, path: str, wanted: Wanted) -> Iterator[Row | None]:
    """All the wanted rows of a file, one by one; what is held of it is one piece. None comes
    wherever some MB were read in vain, so that nobody waits long."""
    return (row for _, _, row in _looks(store, path, wanted, 0))


def page_of(looks: Looks, limit: int, seconds: float) -> Page:
    """What a page shows of `looks`; see `rows`."""
    deadline = monotonic() + seconds
    found: list[Row] = []
    looked_at = 0
    for after, looked_at, row in looks:
        if row is not None:
            found.append(row)
        if after is None or len(found) >= limit or monotonic() >= deadline:
            return Page(found, after, looked_at)
    return Page(found, None, looked_at)


def _holds(value: object, text: str) -> bool:
    return not text or (isinstance(value, str) and text.casefold() in value.casefold())


def _offset(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not re.fullmatch(r"[0-9]{1,18}", cursor):
        raise ValueError(f"The cursor {printable(cursor, 40)!r} is no place in a file.")
    return int(cursor)


def _looks(store: WorkStore, path: str, wanted: Wanted, start: int) -> Looks:
    conditions = _conditions(wanted)
    for offset, lines, last in _pieces(store, path, start):
        for begin, end in _candidates(lines, conditions):
            row = _parsed(lines[begin:end], store.uri(path), offset + begin)
            done = last and end == len(lines)
            until = offset + end
            yield None if done else str(until), until - start, row if wanted.takes(row) else None
        until = offset + len(lines)
        yield None if last else str(until), until - start, None


def _pieces(store: WorkStore, path: str, offset: int) -> Iterator[tuple[int, bytes, bool]]:
    """Whole lines from `offset` on: where they begin, and whether they are the last."""
    size = FIRST_PIECE
    before = min(offset, 1)
    last = False
    while not last:
        data = store.get(path, offset - before, size + before)
        last = len(data) < size + before
        if before and data[:1] != b"\n":
            raise ValueError(f"No line of {store.uri(path)} begins at byte {offset}.")
        data, before = data[before:], 0
        if last and data and not data.endswith(b"\n"):
            data += b"\n"
        lines = data[: data.rfind(b"\n") + 1]
        if not lines and not last and size >= LINE_BYTES:
            raise _damaged(store.uri(path), offset, f"a line longer than {LINE_BYTES:,} bytes")
        if lines or last:
            yield offset, lines, last
        offset += len(lines)
        size = min(2 * size, LINE_BYTES)


def _parsed(line: bytes, uri: str, offset: int) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise _damaged(uri, offset, "no object in JSON")
    return row


def _damaged(uri: str, offset: int, what: str) -> RecordsDamaged:
    return RecordsDamaged(
        f"{uri} is damaged: at byte {offset} there is {what}. Clear the task that wrote it, "
        "to write it again."
    )


def _candidates(lines: bytes, conditions: list[Patterns]) -> Iterator[tuple[int, int]]:
    """Begin and end of the lines that meet every condition; the rarest one sets the pace."""
    lowered = lines.lower() if conditions else lines
    searches = [_Search(lowered, patterns) for patterns in conditions]
    at = 0
    while at < len(lines):
        begin = max((search.line(at) for search in searches), default=at)
        if begin == at:
            end = lines.index(b"\n", at) + 1
            yield at, end
            at = end
        else:
            at = begin


class _Search:
    """The next line where one of some patterns is found; asked for ever later lines."""

    def __init__(self, lines: bytes, patterns: Patterns) -> None:
        self._lines = lines
        self._next = dict.fromkeys(patterns, -1)

    def line(self, at: int) -> int:
        """Where the first such line begins, from the line at `at` on; else the end."""
        for pattern, found in self._next.items():
            if found < at:
                match = pattern.search(self._lines, at)
                self._next[pattern] = match.start() if match else len(self._lines)
        first = min(self._next.values())
        return self._lines.rfind(b"\n", at, first) + 1 or at


def _conditions(wanted: Wanted) -> list[Patterns]:
    """What a wanted row's line, in lower case, must hold: of each list one pattern.

    Lines are plain ASCII, as json.dumps writes them; every other character is an escape.
    """
    texts = [_text_patterns(text) for text in (wanted.key, wanted.reason) if text]
    if not wanted.states:
        return texts
    states = b"|".join(re.escape(_escaped(state).lower()) for state in sorted(wanted.states))
    return [*texts, [re.compile(rb'"state":"(?:%b)"' % states)]]


def _text_patterns(text: str) -> Patterns:
    """The text itself; or any character that stands for one of its letters in another case."""
    folded = text.casefold()
    others = sorted({_escaped(other) for letter in folded for other in _others().get(letter, ())})
    patterns = [re.compile(re.escape(b"".join(map(_escaped, folded))))]
    if others:  # all begin alike, and a pattern is searched for fastest by how it begins
        patterns.append(re.compile(rb"\\u(?:%b)" % b"|".join(re.escape(e[2:]) for e in others)))
    return patterns


def _escaped(text: str) -> bytes:
    return json.dumps(text)[1:-1].encode()


@cache
def _others() -> dict[str, set[str]]:
    """The characters beyond ASCII in whose folding a letter occurs, such as É for é, ß for s."""
    others: defaultdict[str, set[str]] = defaultdict(set)
    for other in map(chr, range(0x80, FOLDING)):
        if other.casefold() != other:
            for letter in other.casefold():
                others[letter].add(other)
    return dict(others)
