"""Legacy combination files: CSV that lists every combination of a length with its layers."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from imagecore.renderstyle import LAYERS, SIDES, Style, StyleError, layer_and_side
from imagecore.text import printable

Codes = tuple[str, ...]
Stack = tuple[str, ...]
"""Base names in draw order, bottom first."""
Row = tuple[Codes, Stack, Stack]
"""A combination and its two stacks, front and back."""

MAX_PROBLEMS = 100
_CODE = re.compile(r"[a-z0-9]+")


def read_combinations(path: Path, style: Style | None = None) -> Iterator[Row]:
    """The rows of a legacy combination file: `codes joined by -,front,back`, names by blanks.

    Upper case is read as lower case. With a style, codes must be the style's, and its draw order
    holds.

    Raises:
        StyleError: after the last row, with every fault as `file:line: …` (at most 100 of them).
    """
    reader = _CombinationFile(path, style)
    yield from reader.rows()
    if reader.problems:
        raise StyleError(reader.problems[:MAX_PROBLEMS])


class _CombinationFile:
    """Reads a combination file, and notes what is wrong in it."""

    def __init__(self, path: Path, style: Style | None) -> None:
        self.problems: list[str] = []
        self._path = path
        self._codes = frozenset(style.codes if style else ())
        self._order = {layer: i for i, layer in enumerate(style.draw_order if style else LAYERS)}
        self._line = 0

    def rows(self) -> Iterator[Row]:
        seen: dict[frozenset[str], int] = {}
        try:
            file = self._path.open("rb")
        except OSError as error:
            self._problem(f"cannot be read ({error.strerror}): correct its name")
            return
        with file:
            reader = csv.reader(self._decoded(file), strict=True)
            for fields in self._parsed(reader):
                row = self._row(fields)
                if row is None:
                    continue
                first = seen.setdefault(frozenset(row[0]), self._line)
                if first != self._line:
                    self._problem(f"the combination of line {first} again: keep one of them")
                else:
                    yield row

    def _problem(self, text: str) -> None:
        self.problems.append(f"{printable(self._path)}:{max(self._line, 1)}: {printable(text)}")

    def _decoded(self, file: Iterator[bytes]) -> Iterator[str]:
        for self._line, line in enumerate(file, 1):
            text = line.removeprefix(b"\xef\xbb\xbf") if self._line == 1 else line
            try:
                yield text.decode().lower()
            except UnicodeDecodeError:
                self._problem("this line is not UTF-8: save the file as UTF-8")

    def _parsed(self, reader: Iterator[list[str]]) -> Iterator[list[str]]:
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as error:
                self._problem(f"not CSV ({error}): write codes,front,back")
                continue
            if fields is None:
                return
            if fields:
                yield fields

    def _row(self, fields: list[str]) -> Row | None:
        before = len(self.problems)
        if len(fields) != 3:
            self._problem(f"{len(fields)} fields, and three are needed: codes,front,back")
            return None
        codes = tuple(fields[0].split("-"))
        self._check_codes(codes)
        front, back = (
            self._stack(text, side) for text, side in zip(fields[1:], SIDES, strict=True)
        )
        return (codes, front, back) if len(self.problems) == before else None

    def _check_codes(self, codes: Codes) -> None:
        for number, code in enumerate(codes):
            if not _CODE.fullmatch(code) or (self._codes and code not in self._codes):
                self._problem(f"{code!r} is no code of the style: correct it, or add it there")
            if code in codes[:number]:
                self._problem(f"the code {code!r} is there twice: remove one")

    def _stack(self, text: str, side: str) -> Stack:
        names = tuple(text.split())
        highest = 0
        for name in names:
            try:
                layer, its_side = layer_and_side(name)
            except ValueError as error:
                self._problem(f"{error}: correct it")
                continue
            if its_side != side:
                self._problem(f"{name!r} is among the names of the side {side}: move or correct it")
            if self._order[layer] < highest:
                self._problem(
                    f"{name!r} is drawn before what stands left of it: follow the draw order "
                    f"{', '.join(self._order)}"
                )
            highest = max(highest, self._order[layer])
        if not names:
            self._problem(f"no names for the side {side}: add them")
        return names
