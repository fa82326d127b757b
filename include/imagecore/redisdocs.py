"""JSON documents in Redis: read in chunks of bounded bytes, and searched for named values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from imagecore.redisdb import Database, chunks, key_text, pages

PAGE_KEYS = 500
CHUNK_BYTES = 4 * 2**20
"""What is asked for at once, unless one document alone is larger."""

OBJECT = object()
"""Stands for a JSON object as a value: what is in it is found by itself."""


class Kind(str, Enum):
    """What can be wrong with a document, or with a reference in it."""

    NOT_JSON = "not_json"
    NOT_A_STRING = "not_a_string"
    VANISHED = "vanished"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    FOREIGN = "foreign"
    EMPTY = "empty"
    MALFORMED = "malformed"


class Finding(NamedTuple):
    """What is wrong, in which Redis key (as `key_text` has it), and why."""

    redis_key: str
    kind: Kind
    reason: str


class Document(NamedTuple):
    """A Redis key and its value."""

    key: bytes
    value: bytes


def read_documents(
    database: Database, keys: Iterable[bytes], *, max_bytes: int
) -> Iterator[Document | Finding]:
    """The strings of `keys`, in no order; for a key that has none of at most `max_bytes`, why."""
    for page in pages(keys, PAGE_KEYS):
        sized: list[tuple[bytes, int]] = []
        others: list[bytes] = []
        for key, size in zip(page, database.run([("STRLEN", key) for key in page]), strict=True):
            if isinstance(size, ResponseError):
                others.append(key)
            elif size > max_bytes:
                reason = f"its {size:,} bytes are more than the {max_bytes:,} allowed"
                yield Finding(key_text(key), Kind.TOO_LARGE, reason)
            else:
                sized.append((key, size))
        yield from _of_other_types(database, others)
        for chunk in chunks(sized, CHUNK_BYTES):
            for key, value in zip(chunk, database.values(chunk), strict=True):
                if value is None:
                    yield Finding(key_text(key), Kind.VANISHED, "it is gone since it was listed")
                else:
                    yield Document(key, value)


def _of_other_types(database: Database, keys: list[bytes]) -> Iterator[Finding]:
    for key, name in zip(keys, database.run([("TYPE", key) for key in keys]), strict=True):
        reason = f"its Redis type is {name.decode() if isinstance(name, bytes) else name}"
        yield Finding(key_text(key), Kind.NOT_A_STRING, reason)


class NamedValues:
    """Finds the values that have one of `names` in any object of a JSON document.

    All count, at any depth, and every one where an object has a name more than once. Objects are
    let go as soon as they are read, so a document takes about twice its size.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._found: list[tuple[str, Any]] = []
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_int=float,  # int() refuses what has more than 4,300 digits, and JSON does not
            parse_constant=_refuse_constant,
        )

    def find(self, document: Document) -> list[tuple[str, Any]] | Finding:
        """(name, value) in the document's order, inner objects first; OBJECT for an object. What
        is no JSON, or is nested more deeply than Python reads it, is a Finding."""
        self._found = []
        try:
            self._decoder.decode(document.value.decode())
        except RecursionError:
            reason, kind = "its values are nested too deeply", Kind.TOO_DEEP
        except UnicodeDecodeError as error:
            reason, kind = f"not UTF-8 at byte {error.start:,}", Kind.NOT_JSON
        except json.JSONDecodeError as error:
            reason, kind = f"{error.msg} at character {error.pos:,}", Kind.NOT_JSON
        except ValueError as error:
            reason, kind = str(error), Kind.NOT_JSON
        else:
            return self._found
        return Finding(key_text(document.key), kind, reason)

    def _object(self, pairs: list[tuple[str, Any]]) -> object:
        for pair in pairs:
            if pair[0] in self._names:
                self._found.append(pair)
        return OBJECT


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
