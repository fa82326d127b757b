"""Which Redis keys are copied: those of patterns, and the partials that pages lead to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path

from imagecore.errors import PlanRefused
from imagecore.extsort import external_sort
from imagecore.redisdb import Database, key_text, pages
from imagecore.redisdocs import PAGE_KEYS, Document, Finding, Kind, NamedValues, read_documents

KEY_BYTES = 60
"""About what a key takes in memory, besides its own bytes."""

PARTIAL_FIELD = "url"
PARTIAL_MARK = "_partial"


def refuse_same(source: Database, destination: Database) -> None:
    """The two must be different, whatever their addresses say.

    Raises:
        PlanRefused: they are the same database, or one is a replica of the other.
    """
    if source.datasets() & destination.datasets():
        raise PlanRefused(
            f"The connections {source.name} and {destination.name} lead to the same Redis database "
            "or to replicas of one: correct one of them."
        )


def keys_to_copy(
    source: Database, patterns: Iterable[str], folder: Path, partials: Partials | None = None
) -> Iterator[bytes]:
    """The keys that match `patterns`, each once, in ascending order; with `partials`, also those
    that their documents lead to. `folder` is for temporary files.

    Raises:
        InfrastructureError: Redis cannot be reached, or did not stay the same until the end.
    """
    keys: Iterator[bytes] = (key for pattern in patterns for key in source.scan(pattern))
    if partials is not None:
        keys = partials.followed(source, keys)
    return (
        key for key, _ in groupby(external_sort(keys, folder, lambda key: KEY_BYTES + len(key)))
    )


class Partials:
    """Follows the partials of pages: in a JSON document, a text `url` with `_partial` in it is,
    behind `prefix`, the key of another document. About 200 bytes a partial are held.

    :param max_bytes: larger documents are not searched.
    :param remark: is told (key, why) of what could not be followed.
    """

    def __init__(self, prefix: str, max_bytes: int, remark: Callable[[str, str], None]) -> None:
        self._prefix = prefix
        self._max_bytes = max_bytes
        self._remark = remark
        self._values = NamedValues([PARTIAL_FIELD])

    def followed(self, source: Database, keys: Iterable[bytes]) -> Iterator[bytes]:
        """`keys`, and the partials that can be reached from them; each partial is read once, so
        that circles end."""
        seen: set[bytes] = set()
        for page in pages(keys, PAGE_KEYS):
            yield from page
            frontier = page
            while frontier:
                found = sorted(set(self._partials_of(source, frontier)) - seen)
                seen.update(found)
                there = source.run([("EXISTS", key) for key in found])
                frontier = [key for key, exists in zip(found, there, strict=True) if exists]
                yield from frontier
                for key in set(found) - set(frontier):
                    self._remark(key_text(key), "a document leads to it, and it is not there")

    def _partials_of(self, source: Database, keys: list[bytes]) -> Iterator[bytes]:
        for read in read_documents(source, keys, max_bytes=self._max_bytes):
            found = self._values.find(read) if isinstance(read, Document) else read
            if isinstance(found, Finding):
                if found.kind is not Kind.NOT_A_STRING:  # which is no document
                    self._remark(found.redis_key, f"its partials are not known: {found.reason}")
                continue
            for _, value in found:
                if isinstance(value, str) and PARTIAL_MARK in value:
                    yield (self._prefix + value).encode("utf-8", "surrogatepass")


def count_existing(destination: Database, keys: list[bytes]) -> int:
    """How many of the keys are there."""
    answers = destination.run([("EXISTS", key) for key in keys])
    return sum(1 for answer in answers if answer == 1)
