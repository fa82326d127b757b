"""Copying Redis keys of any type from one database to another, with their time to live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Any

from redis.exceptions import ResponseError

from imagecore.outcome import Result, State
from imagecore.redisdb import Database, chunks, pages
from imagecore.text import printable

CHUNK_BYTES = 32 * 2**20
"""What is on its way at once, unless one key alone is larger."""

PAGE_KEYS = 500

TRIES = 3
"""How often a key is copied when the source changes it meanwhile."""

TTL_TOLERANCE_MS = 1_000
"""Two times to live no further apart are the same: reading them takes time."""

FOOTER_BYTES = 10
"""The end of a DUMP, its version and checksum: no part of the value."""

NO_EXPIRY, NO_KEY = -1, -2
"""What PTTL says of a key that stays, and of one that is not there."""

_READ: dict[bytes, Callable[[Any, bytes], Any]] = {
    b"string": lambda client, key: client.get(key),
    b"list": lambda client, key: client.lrange(key, 0, -1),
    b"set": lambda client, key: set(client.smembers(key)),
    b"hash": lambda client, key: client.hgetall(key),
    b"zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
    b"stream": lambda client, key: (client.xrange(key), client.xinfo_groups(key)),
}
"""Values by type, equal when Redis's users would call them so. Their DUMPs may differ all the
same: by version, by encoding, and by the order in which a server happens to hold a set."""


@dataclass(frozen=True)
class Kept:
    """A key as a server has it: its DUMP, and PTTL in milliseconds."""

    dump: bytes
    ttl: int


class RedisCopy:
    """Copies keys, many in one round trip, and looks at what then is there.

    :param replace: a key that is there already with another value is replaced; otherwise it is
        left and the key skipped.
    :param force: also when it is there with the same value.
    """

    def __init__(
        self, source: Database, destination: Database, *, replace: bool, force: bool = False
    ) -> None:
        self._source = source
        self._destination = destination
        self._replace = replace
        self._force = force

    def copy(self, keys: list[bytes]) -> list[Result]:
        """What became of each key, in their order. One key's failure is its own.

        Raises:
            InfrastructureError: one of the two cannot be reached, is full or is read-only.
        """
        results: dict[bytes, Result] = {}
        for chunk in chunks(self._sized(keys), CHUNK_BYTES):
            results |= self._copy(chunk, self._replace, self._force)
            for _ in range(TRIES - 1):  # what is there now, the last try wrote
                changed = [key for key in chunk if results[key] is _DIFFERS]
                results |= self._copy(changed, replace=True, force=True)
        return [results[key] for key in keys]

    def _sized(self, keys: list[bytes]) -> Iterator[tuple[bytes, int]]:
        """Each key with its bytes in memory: none where it is gone, many where that is unknown."""
        sizes = self._source.run([("MEMORY", "USAGE", key) for key in keys])
        for key, answer in zip(keys, sizes, strict=True):
            yield key, answer if isinstance(answer, int) else 0 if answer is None else CHUNK_BYTES

    def _copy(self, keys: list[bytes], replace: bool, force: bool) -> dict[bytes, Result]:
        read_at = monotonic()
        wanted, results = _kept(self._source, keys)
        there, _ = _kept(self._destination, list(wanted))
        restores: dict[bytes, tuple[Any, ...]] = {}
        for key, kept in wanted.items():
            left = _left(kept, read_at)
            if key in there and not (replace and force) and self._same(key, kept, there[key]):
                results[key] = Result(State.SKIPPED, "there already, the same")
            elif key in there and not replace:
                results[key] = _OTHER
            elif left is None:
                results[key] = _EXPIRED
            else:
                options = ("REPLACE",) if replace else ()
                restores[key] = ("RESTORE", key, left, kept.dump, *options)
        answers = self._destination.run(list(restores.values()))
        written: dict[bytes, bool] = {}
        for key, answer in zip(restores, answers, strict=True):
            busy = str(answer).startswith("BUSYKEY")
            if isinstance(answer, ResponseError) and not busy:
                results[key] = Result(State.FAILED, f"not restored: {printable(answer)}")
            else:
                written[key] = not busy
        return results | self._verified(wanted, written, read_at)

    def _verified(
        self, wanted: dict[bytes, Kept], written: dict[bytes, bool], read_at: float
    ) -> dict[bytes, Result]:
        """What is there now of the keys of `written`: by this try, or (False) by somebody since
        the last look; by this try after all where a broken connection made it send twice."""
        there, results = _kept(self._destination, list(written))
        for key, ours in written.items():
            kept = wanted[key]
            if key in there:
                if self._same(key, kept, there[key], _passed(read_at)):
                    results[key] = Result(detail={"bytes": len(kept.dump)})
                else:
                    results[key] = _DIFFERS if ours else _OTHER
            elif results[key] is _EXPIRED and _left(kept, read_at) is not None:
                results[key] = _LOST
        return results

    def _same(self, key: bytes, one: Kept, other: Kept, passed: float = 0) -> bool:
        if (one.ttl == NO_EXPIRY) != (other.ttl == NO_EXPIRY):
            return False
        if abs(one.ttl - other.ttl) > TTL_TOLERANCE_MS + passed:
            return False
        if one.dump[:-FOOTER_BYTES] == other.dump[:-FOOTER_BYTES]:
            return True
        return self._same_value(key)

    def _same_value(self, key: bytes) -> bool:
        values = []
        for database in (self._source, self._destination):
            client: Any = database.client
            with database.reaching():
                read = _READ.get(client.type(key))
                if read is None:
                    return False
                try:
                    values.append(read(client, key))
                except ResponseError:  # another type by now
                    return False
        return bool(values[0] == values[1])


class CopyInPages:
    """Copies the keys of a batch page by page, when the first of a page is asked for: what one
    round trip costs, it costs for PAGE_KEYS keys. For many threads."""

    def __init__(self, copy: RedisCopy, keys: list[bytes]) -> None:
        self._copy = copy
        self._page_of = {key: page for page in pages(keys, PAGE_KEYS) for key in page}
        self._results: dict[bytes, Result] = {}
        self._lock = Lock()

    def result(self, key: bytes) -> Result:
        """What became of a key, once.

        Raises:
            InfrastructureError: as `RedisCopy.copy`; the page can be asked for again.
        """
        with self._lock:
            if key not in self._results:
                page = self._page_of[key]
                self._results.update(zip(page, self._copy.copy(page), strict=True))
            return self._results.pop(key)


def _kept(database: Database, keys: list[bytes]) -> tuple[dict[bytes, Kept], dict[bytes, Result]]:
    """Keys as they are there, in the order of `keys`; and what became of the others."""
    answers = database.run([each for key in keys for each in (("PTTL", key), ("DUMP", key))])
    kept: dict[bytes, Kept] = {}
    results: dict[bytes, Result] = {}
    for key, ttl, dump in zip(keys, answers[::2], answers[1::2], strict=True):
        wrong = next((each for each in (ttl, dump) if isinstance(each, ResponseError)), None)
        if wrong is not None:
            reason = f"not read from {database.name}: {printable(wrong)}"
            results[key] = Result(State.FAILED, reason)
        elif dump is None or ttl == NO_KEY:
            results[key] = _EXPIRED
        else:
            kept[key] = Kept(dump, ttl)
    return kept, results


def _left(kept: Kept, read_at: float) -> int | None:
    """The time to live that RESTORE is to set: 0 for none, None when it is over."""
    if kept.ttl == NO_EXPIRY:
        return 0
    left = kept.ttl - int(_passed(read_at))
    return left if left > 0 else None


def _passed(read_at: float) -> float:
    return (monotonic() - read_at) * 1_000


_EXPIRED = Result(State.SKIPPED, "expired or deleted since it was planned")
_OTHER = Result(State.SKIPPED, "there already, with another value or time to live")
_LOST = Result(
    State.FAILED, "it is not in the destination after it was written: does that evict keys?"
)
_DIFFERS = Result(
    State.FAILED,
    f"after {TRIES} tries the copy is not what the source has: it may change all the time",
)
