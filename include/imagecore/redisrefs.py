"""The image references in the documents of a Redis, and what is wrong with some of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from imagecore.adler import parse_reference
from imagecore.extsort import external_sort
from imagecore.manifest import Item
from imagecore.redisdb import Database, key_text
from imagecore.redisdocs import OBJECT, Finding, Kind, NamedValues, read_documents
from imagecore.refrules import RefRules
from imagecore.text import printable

KEPT_KEYS = 20
"""How many Redis keys an item names; all are counted."""

SHOWN_CHARACTERS = 200
ROW_BYTES = 250
"""About what a row takes in memory, besides its texts."""

_FINDING, _REFERENCE = 0, 1
_Row = tuple[int, str, str, str]


class ReferenceScan:
    """One look through a Redis. Its memory is bounded, whatever is in there.

    :param folder: for temporary files, and `findings.jsonl`.
    """

    def __init__(self, database: Database, rules: RefRules, folder: Path) -> None:
        self._database = database
        self._rules = rules
        self._folder = folder
        self._values = NamedValues(rules.key_names)
        self.documents = 0
        """Documents that were read; one that Redis listed twice is counted twice."""
        self.findings: Counter[str] = Counter()
        """Their number by kind."""
        self.findings_file = folder / "findings.jsonl"

    def items(self) -> Iterator[Item]:
        """Every reference once, in ascending order of `key`, its text without the prefix.

        `redis_keys` are the keys of the first KEPT_KEYS documents that have it, `documents` is
        the number of all. The findings are in their file when the first item comes.

        Raises:
            InfrastructureError: Redis cannot be reached, or did not stay the same until the end;
                no item came yet.
        """
        rows = external_sort(self._rows(), self._folder, _size)
        unique = (row for row, _ in groupby(rows))
        with self.findings_file.open("w", encoding="ascii") as file:
            for tag, group in groupby(unique, key=lambda row: row[0]):
                if tag == _FINDING:
                    for row in group:
                        self._write(file, row)
                    continue
                file.close()
                yield from self._items(group)

    def _items(self, rows: Iterator[_Row]) -> Iterator[Item]:
        for key, group in groupby(rows, key=lambda row: row[1]):
            kept: list[str] = []
            documents = 0
            for row in group:
                documents += 1
                if documents <= KEPT_KEYS:
                    kept.append(row[2])
            yield {"key": key, "redis_keys": kept, "documents": documents}

    def _write(self, file: Any, row: _Row) -> None:
        self.findings[row[2]] += 1
        finding = {"redis_key": row[1], "kind": row[2], "reason": row[3]}
        file.write(json.dumps(finding, separators=(",", ":")) + "\n")

    def _rows(self) -> Iterator[_Row]:
        keys = (key for pattern in self._rules.patterns for key in self._database.scan(pattern))
        for read in read_documents(self._database, keys, max_bytes=self._rules.max_document_bytes):
            if isinstance(read, Finding):
                yield _row(read)
                continue
            self.documents += 1
            found = self._values.find(read)
            if isinstance(found, Finding):
                yield _row(found)
                continue
            redis_key = key_text(read.key)
            for name, value in found:
                if value is not OBJECT:
                    yield self._judged(redis_key, name, value)

    def _judged(self, redis_key: str, name: str, value: Any) -> _Row:
        prefix = self._rules.prefix
        if value is None or value in ("", prefix):
            return _row(Finding(redis_key, Kind.EMPTY, f"{name} is {json.dumps(value)}"))
        if not isinstance(value, str):
            kind = {list: "a list", bool: "true or false", float: "a number"}[type(value)]
            return _row(Finding(redis_key, Kind.NOT_A_STRING, f"{name} is {kind}"))
        if not value.startswith(prefix):
            reason = f"{name} is {printable(value, SHOWN_CHARACTERS)}"
            return _row(Finding(redis_key, Kind.FOREIGN, reason))
        try:
            return _REFERENCE, parse_reference(value[len(prefix) :]).key, redis_key, ""
        except ValueError as error:
            reason = f"{name} is {printable(value, SHOWN_CHARACTERS)}: {error}"
            return _row(Finding(redis_key, Kind.MALFORMED, reason))


def _row(finding: Finding) -> _Row:
    return _FINDING, finding.redis_key, finding.kind.value, finding.reason


def _size(row: _Row) -> int:
    return ROW_BYTES + len(row[1]) + len(row[2]) + len(row[3])
