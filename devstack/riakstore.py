"""Where `devstack.riakserver` keeps its objects: a SQLite database in a folder."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

REAP_SECONDS = 3
"""How long a tombstone is kept: Riak's `delete_mode`."""

_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VCLOCK = b"devstack"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS versions (
    kind TEXT, bucket BLOB, key BLOB, vtag TEXT, vclock TEXT, modified REAL, deleted INTEGER,
    headers TEXT, size INTEGER, data BLOB, PRIMARY KEY (kind, bucket, key, vtag));
CREATE TABLE IF NOT EXISTS properties (
    kind TEXT, bucket BLOB, name TEXT, value TEXT, PRIMARY KEY (kind, bucket, name));
"""


class Place(NamedTuple):
    """Where an object is: bucket type, bucket and key, of any bytes."""

    kind: str
    bucket: bytes
    key: bytes


@dataclass(frozen=True)
class Version:
    """One value of a key: its name among siblings, when (seconds since 1970), what came with it."""

    vtag: str
    vclock: str
    modified: float
    deleted: bool
    headers: dict[str, str]
    size: int


class Replaced(Exception):
    """Another value is there now: look again."""


@dataclass
class Store:
    """The objects. Threads may share it; every write is whole on disk, or is not, when it
    returns, and survives the end of the process. `clock` tells the seconds since 1970."""

    folder: Path
    clock: Callable[[], float] = time.time
    _local: threading.local = field(default_factory=threading.local)
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._write() as database:
            database.executescript(_SCHEMA)
        self.leave()

    def leave(self) -> None:
        """Close what this thread has open; it may still come back."""
        database: sqlite3.Connection | None = getattr(self._local, "database", None)
        if database is not None:
            database.close()
            self._local.database = None

    def find(self, place: Place) -> list[Version]:
        """The key's values: none, one, or siblings, the latest first."""
        rows = self._database().execute(
            "SELECT vtag, vclock, modified, deleted, headers, size FROM versions "
            "WHERE kind = ? AND bucket = ? AND key = ? ORDER BY rowid DESC",
            place,
        )
        found = [
            Version(vtag, vclock, modified, bool(deleted), json.loads(headers), size)
            for vtag, vclock, modified, deleted, headers, size in rows
        ]
        if len(found) == 1 and found[0].deleted and self._is_reaped(found[0].modified):
            return []
        return found

    def data(self, place: Place, vtag: str) -> bytes:
        """A value's bytes.

        Raises:
            Replaced: it was, since it was found.
        """
        row = (
            self._database()
            .execute(
                "SELECT data FROM versions WHERE kind = ? AND bucket = ? AND key = ? AND vtag = ?",
                (*place, vtag),
            )
            .fetchone()
        )
        if row is None:
            raise Replaced
        data: bytes = row[0]
        return data

    def write(
        self,
        place: Place,
        seen: str | None,
        headers: Mapping[str, str],
        data: bytes,
        *,
        siblings: bool,
        deleted: bool = False,
    ) -> None:
        """Write a value, or a tombstone. It replaces what there is, unless the bucket keeps
        `siblings` and `seen`, the vclock the writer read, is not the latest one.

        Source: "Causal Context", Riak KV documentation; here any writer that has not seen all is
        concurrent with all, as in buckets without `dvv_enabled`.
        """
        with self._write() as database:
            there = self.find(place)
            if not (siblings and there and seen != there[0].vclock):
                database.execute(
                    "DELETE FROM versions WHERE kind = ? AND bucket = ? AND key = ?", place
                )
            vclock = b64encode(_VCLOCK + secrets.token_bytes(16)).decode()
            database.execute(
                "UPDATE versions SET vclock = ? WHERE kind = ? AND bucket = ? AND key = ?",
                (vclock, *place),
            )
            database.execute(
                "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *place,
                    random_name(22),
                    vclock,
                    self.clock(),
                    deleted,
                    json.dumps(dict(headers)),
                    len(data),
                    data,
                ),
            )

    def keys(self, kind: str, bucket: bytes) -> list[bytes]:
        """Every key of a bucket, tombstones that are not reaped included."""
        rows = self._database().execute(
            "SELECT key, COUNT(*), MIN(deleted), MAX(modified) FROM versions "
            "WHERE kind = ? AND bucket = ? GROUP BY key",
            (kind, bucket),
        )
        return [
            key
            for key, number, deleted, modified in rows
            if not (number == 1 and deleted and self._is_reaped(modified))
        ]

    def properties(self, kind: str, bucket: bytes) -> dict[str, Any]:
        """What was set of a bucket's properties."""
        rows = self._database().execute(
            "SELECT name, value FROM properties WHERE kind = ? AND bucket = ?", (kind, bucket)
        )
        return {name: json.loads(value) for name, value in rows}

    def set_properties(self, kind: str, bucket: bytes, properties: Mapping[str, Any]) -> None:
        """Set some of them; with none, forget all."""
        with self._write() as database:
            if not properties:
                database.execute(
                    "DELETE FROM properties WHERE kind = ? AND bucket = ?", (kind, bucket)
                )
            for name, value in properties.items():
                database.execute(
                    "INSERT OR REPLACE INTO properties VALUES (?, ?, ?, ?)",
                    (kind, bucket, name, json.dumps(value)),
                )

    def _is_reaped(self, modified: float) -> bool:
        return self.clock() >= modified + REAP_SECONDS

    def _database(self) -> sqlite3.Connection:
        """This thread's connection. Write-ahead logging keeps what was committed when the process
        is killed; it takes a power cut to lose the last writes."""
        database: sqlite3.Connection | None = getattr(self._local, "database", None)
        if database is None:
            database = sqlite3.connect(
                self.folder / "riak.sqlite", timeout=60, isolation_level=None
            )
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            self._local.database = database
        return database

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._writing:
            database = self._database()
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            if database.in_transaction:  # executescript commits
                database.execute("COMMIT")


def is_vclock(text: str) -> bool:
    """Whether it is a vclock as this store makes them."""
    try:
        return b64decode(text, validate=True).startswith(_VCLOCK)
    except ValueError:
        return False


def random_name(length: int) -> str:
    """A name of letters and digits, as Riak gives to values and keys."""
    return "".join(secrets.choice(_LETTERS) for _ in range(length))
