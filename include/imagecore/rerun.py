"""Pictures chosen by name and date, whose notes are written again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from posixpath import basename
from typing import Any

from imagecore.errors import ItemFailed, PlanRefused
from imagecore.extsort import external_sort
from imagecore.notes import EXTENSIONS, NOTES, note_key, write_note
from imagecore.outcome import Result, State
from imagecore.s3 import Bucket, S3Object
from imagecore.text import printable

Keys = Iterator[str]

ROW_BYTES = 150
"""About what a row of the sort takes in memory, besides its texts."""


@dataclass(frozen=True)
class Selection:
    """Which pictures are meant: those that every part takes which is given.

    `glob` is held against the whole key as fnmatch does it: `*` also matches slashes. `extensions`
    are lower case without a dot. Changed is from `start` on, and before `end`.
    """

    prefix: str = ""
    glob: str | None = None
    extensions: frozenset[str] | None = None
    start: datetime | None = None
    end: datetime | None = None

    @property
    def by_date(self) -> bool:
        return self.start is not None or self.end is not None

    def name_refusal(self, key: str) -> str:
        """Why a picture is not meant by its key; empty when it is."""
        name = basename(key)
        if not key.startswith(self.prefix):
            return "not below the prefix"
        extension = name.rpartition(".")[2] if "." in name else ""
        if self.extensions is not None and extension.lower() not in self.extensions:
            return "another extension"
        if self.glob is not None and not fnmatchcase(key, self.glob):
            return "not of the glob"
        return ""

    def date_refusal(self, modified: datetime) -> str:
        """Why a picture is not meant by its date; empty when it is."""
        late = self.end is not None and modified >= self.end
        early = self.start is not None and modified < self.start
        return "not changed in the window" if early or late else ""


def extensions_of(names: Iterable[str] | None) -> frozenset[str]:
    """Extensions as people give them: with or without the dot, in any case; None: all pictures.

    Raises:
        PlanRefused: one is no extension.
    """
    if names is None:
        return EXTENSIONS
    found = frozenset(name.strip().lower().removeprefix(".") for name in names)
    for name in found:
        if not name or "." in name or "/" in name:
            raise PlanRefused(
                f"extensions has {printable(name)!r}, which is none: give them as in jpg, tif."
            )
    return found


@dataclass
class Counts:
    """What was listed, what of it is meant, why the rest is not, and how many notes wait anyway."""

    listed: int = 0
    matched: int = 0
    waiting: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, why: str) -> None:
        """Count one more that is not meant."""
        self.skipped[why] = self.skipped.get(why, 0) + 1


def listed(source: Bucket, prefixes: Iterable[str], wanted: Selection, counts: Counts) -> Keys:
    """The keys of a bucket below the prefixes that are meant. Hidden names never are."""
    for prefix in prefixes:
        for found in source.walk(prefix):
            counts.listed += 1
            name = basename(found.key)
            if not name:
                refusal = "a folder marker"
            elif name.startswith("."):
                refusal = "hidden: its name begins with a dot"
            else:
                refusal = wanted.name_refusal(found.key) or wanted.date_refusal(found.modified)
            if refusal:
                counts.skip(refusal)
            else:
                yield found.key


def of_manifest(
    looks: Iterable[tuple[str, S3Object | None]], wanted: Selection, counts: Counts
) -> Keys:
    """The keys of a manifest that are meant, each with what HEAD showed where dates matter."""
    for key, found in looks:
        counts.listed += 1
        refusal = wanted.name_refusal(key)
        if not refusal and wanted.by_date:
            refusal = wanted.date_refusal(found.modified) if found else "not in the source bucket"
        if refusal:
            counts.skip(refusal)
        else:
            yield key


def matched(keys: Iterable[str], notes: Iterable[str], counts: Counts, folder: Path) -> Keys:
    """Each key once, in order; memory does not grow with their number.

    Parameters:
        keys: what is meant, in any order and as often as may be.
        notes: the keys of the notes that wait.
        counts: is told how many keys there are, and how many of them have a note.
        folder: for what is sorted.
    """

    def rows() -> Iterator[tuple[Any, ...]]:
        for note in notes:
            yield note, 0, ""
        for key in keys:
            yield note_key(key), 1, key

    def once() -> Iterator[tuple[str]]:
        by_note = external_sort(rows(), folder, _bytes_of)
        for _, same in groupby(by_note, key=itemgetter(0)):
            waits = False
            last = None
            for _, wanted, key in same:
                if not wanted:
                    waits = True
                elif key != last:
                    counts.matched += 1
                    counts.waiting += waits
                    last = key
                    yield (key,)

    for (key,) in external_sort(once(), folder, _bytes_of):
        yield key


def waiting(process: Bucket) -> Iterator[str]:
    """The keys of the notes that wait."""
    return (found.key for found in process.walk(NOTES))


def write_again(process: Bucket, key: str, *, force: bool) -> Result:
    """Write the note of a picture, and read back that it lies there.

    Raises:
        ItemFailed: what lies there is not what was written.
    """
    write_note(process, key, force=force)
    where = note_key(key)
    try:
        note = json.loads(process.read(where))
    except ValueError:
        note = None
    if not isinstance(note, dict) or note.get("key") != key or (force and not note.get("force")):
        raise ItemFailed(
            f"{process.url(where)} is not the note that was written: run this picture again"
        )
    return Result(State.DONE, "", {"target": where})


def _bytes_of(row: tuple[Any, ...]) -> int:
    return ROW_BYTES + 2 * sum(len(text) for text in row if isinstance(text, str))
