"""An index of a tree of files by their exact names, and the file that a reference means."""

from __future__ import annotations

import os
import sqlite3
import unicodedata
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from threading import Lock

from imagecore.adler import HASH_PREFIX, Reference, adler32
from imagecore.errors import InfrastructureError
from imagecore.text import printable

SHOWN = 20
"""How many candidates a reason names."""

_TABLES = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    CREATE TABLE folders (id INTEGER PRIMARY KEY, path BLOB NOT NULL);
    CREATE TABLE files (name BLOB NOT NULL, folder INTEGER NOT NULL);
    CREATE TABLE spellings (normal TEXT NOT NULL, name BLOB NOT NULL);
"""
_INDEXES = """
    CREATE INDEX files_by_name ON files (name, folder);
    CREATE INDEX spellings_by_normal ON spellings (normal);
"""


@dataclass(frozen=True)
class Indexed:
    """What an index holds: regular files; and how many other things (symbolic links, devices)
    were left out."""

    files: int
    left_out: int


class Found(str, Enum):
    """What the assets have for a reference."""

    FILE = "file"
    NO_FILE = "no_file"
    OTHER_HASH = "other_hash"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True)
class Match:
    """The answer to a reference.

    `paths` are below the assets, as bytes, beginning with a slash: the one file, all that have
    the reference's hash, or all of its name when none has. `reason` says why there is no file.
    """

    found: Found
    paths: tuple[bytes, ...] = ()
    reason: str = ""


def build_index(assets: Path, index: Path, leave_out: str = "") -> Indexed:
    """Write an index of all regular files below the folder `assets` to the file `index`.

    Links are not followed, and the folder's own entry `leave_out` is left out. The file is whole
    or not there; it may be copied, and read by many processes at once.

    Raises:
        InfrastructureError: a folder cannot be listed, so that the index would not be whole.
    """
    making = index.with_name(f"{index.name}.making")
    making.unlink(missing_ok=True)
    walk = _Walk(os.fsencode(assets), os.fsencode(leave_out))
    with closing(sqlite3.connect(making, isolation_level=None)) as database:
        database.executescript(_TABLES)
        database.execute("BEGIN")
        files = _insert(database, walk)
        database.execute("COMMIT")
        database.executescript(_INDEXES)
    making.replace(index)
    return Indexed(files, walk.left_out)


def _insert(database: sqlite3.Connection, walk: _Walk) -> int:
    total = 0
    for number, (folder, names) in enumerate(walk.folders()):
        database.execute("INSERT INTO folders VALUES (?, ?)", (number, folder))
        database.executemany("INSERT INTO files VALUES (?, ?)", ((name, number) for name in names))
        spellings = ((_normal(name), name) for name in names if not name.isascii())
        database.executemany("INSERT INTO spellings VALUES (?, ?)", spellings)
        total += len(names)
    return total


class _Walk:
    """The folders below a root, each with the names of its regular files."""

    def __init__(self, root: bytes, leave_out: bytes) -> None:
        self._root = root
        self._leave_out = leave_out
        self.left_out = 0

    def folders(self) -> Iterator[tuple[bytes, list[bytes]]]:
        """Paths begin with a slash, and end without one."""
        pending = [b""]
        while pending:
            folder = pending.pop()
            names: list[bytes] = []
            try:
                with os.scandir(self._root + folder) as entries:
                    for entry in entries:
                        if not folder and entry.name == self._leave_out:
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(b"%b/%b" % (folder, entry.name))
                        elif entry.is_file(follow_symlinks=False):
                            names.append(entry.name)
                        else:
                            self.left_out += 1
            except OSError as error:
                where = printable(os.fsdecode(self._root + folder))
                raise InfrastructureError(
                    f"The folder {where} cannot be listed ({error.strerror}), so the index of the "
                    "assets would not be whole. Mend it, or give the worker the right to read it."
                ) from error
            yield folder, names


class AssetIndex:
    """An index that was built, opened for reading; for any number of threads. Lookups read only
    the few pages of the file that they need.

    :param hash_prefix: what stands before a path below the assets when it is hashed.
    """

    def __init__(self, index: Path, hash_prefix: str = HASH_PREFIX) -> None:
        uri = f"{index.resolve().as_uri()}?mode=ro&immutable=1"
        self._database = sqlite3.connect(uri, uri=True, check_same_thread=False)
        self._lock = Lock()
        self._prefix = hash_prefix.encode()

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def __enter__(self) -> AssetIndex:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def paths(self, name: bytes) -> list[bytes]:
        """Paths below the assets of the files of exactly this name, in ascending order."""
        query = "SELECT path FROM files JOIN folders ON id = folder WHERE name = ?"
        return sorted(b"%b/%b" % (folder, name) for (folder,) in self._select(query, name))

    def match(self, reference: Reference) -> Match:
        """The one file of the reference's name whose path has its hash."""
        paths = self.paths(reference.name)
        if not paths:
            return Match(Found.NO_FILE, (), self._why_missing(reference.name))
        hashes = {path: adler32(self._prefix + path) for path in paths}
        right = tuple(path for path, found in hashes.items() if int(found, 16) == reference.adler)
        if len(right) == 1:
            return Match(Found.FILE, right)
        if right:
            shown = _listed(_shown(path) for path in right)
            return Match(Found.AMBIGUOUS, right, f"{len(right)} files have this hash: {shown}")
        shown = _listed(f"{_shown(path)} ({found})" for path, found in hashes.items())
        reason = f"no file of this name has this hash: {shown}"
        return Match(Found.OTHER_HASH, tuple(paths), reason)

    def _why_missing(self, name: bytes) -> str:
        query = "SELECT DISTINCT name FROM spellings WHERE normal = ? ORDER BY name"
        found = self._select(query, _normal(name))
        others = [ascii(name.decode("utf-8", "backslashreplace")) for (name,) in found]
        if not others:
            return "no file has this name"
        return (
            "no file has exactly this name; the same letters in other bytes (Unicode "
            f"normalisation) has {_listed(others)}"
        )

    def _select(self, query: str, value: bytes | str) -> list[tuple[bytes]]:
        with self._lock:
            return self._database.execute(query, (value,)).fetchall()


def _normal(name: bytes) -> str:
    return unicodedata.normalize("NFC", name.decode("utf-8", "backslashreplace"))


def _shown(path: bytes) -> str:
    return printable(path.decode("utf-8", "backslashreplace"))


def _listed(texts: Iterator[str] | list[str]) -> str:
    shown = list(texts)
    more = f", … and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return ", ".join(shown[:SHOWN]) + more
