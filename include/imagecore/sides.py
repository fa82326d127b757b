"""The two sides of a comparison: a bucket's prefix, or a local folder, and what lies there."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from imagecore.errors import InfrastructureError, PlanRefused
from imagecore.listing import list_pages
from imagecore.s3 import Bucket, reaching
from imagecore.text import printable

KEY_BYTES = 1_024
"""The longest key S3 takes, in UTF-8."""

Reject = Callable[[str, str], None]
"""Called with a name, and why it is left out."""


class Entry(NamedTuple):
    """One object or file. The two sides are compared by `name`.

    `key` is below the side's prefix; `size` in bytes, `modified` in nanoseconds since 1970;
    `etag` is empty for files.
    """

    name: str
    key: str
    size: int
    modified: int
    etag: str


class Side(Protocol):
    """What S3DiffOperator compares."""

    @property
    def url(self) -> str:
        """Where it is, for people."""

    @property
    def ascending(self) -> bool:
        """Whether `entries` are expected in ascending order."""

    def key(self, key: str) -> str:
        """An entry's key as the bucket or folder knows it."""

    def entries(self, below: str, reject: Reject) -> Iterator[Entry]:
        """Everything there is whose key begins with `below`, each named by its key."""


@dataclass(frozen=True)
class S3Side:
    """The objects of a bucket below `prefix`, which is empty or ends with a slash."""

    bucket: Bucket
    prefix: str
    ascending = True

    @property
    def url(self) -> str:
        return self.bucket.url(self.prefix)

    def key(self, key: str) -> str:
        return self.prefix + key

    def entries(self, below: str, reject: Reject) -> Iterator[Entry]:
        """Folder markers (empty objects whose key ends with a slash) are left out."""
        start = len(self.prefix)
        with reaching(self.url):
            for page in list_pages(self.bucket.client, self.bucket.name, self.prefix + below):
                for key, size, modified, etag in page.entries:
                    name = key[start:]
                    if not size and key.endswith("/"):
                        continue
                    if name:
                        yield Entry(name, name, size, modified, etag)
                    else:
                        reject(key, "it is named as the folder itself")


@dataclass(frozen=True)
class LocalSide:
    """The files below a folder, or a mounted drive."""

    folder: Path
    ascending = False

    @property
    def url(self) -> str:
        return f"file://{printable(self.folder)}"

    def key(self, key: str) -> str:
        return key

    def identity(self) -> list[int]:
        """What tells that the same drive is still mounted here: device and inode of the folder.

        Raises:
            PlanRefused: there is no such folder.
        """
        try:
            found = self.folder.stat()
        except OSError as error:
            raise PlanRefused(
                f"The folder {printable(self.folder)} cannot be read ({error.strerror}): is the "
                "drive mounted? Correct the parameter that names it, or mount it."
            ) from error
        if not stat.S_ISDIR(found.st_mode):
            raise PlanRefused(f"{printable(self.folder)} is no folder: correct the parameter.")
        return [found.st_dev, found.st_ino]

    def entries(self, below: str, reject: Reject) -> Iterator[Entry]:
        """Regular files, in no order. What is none, or has a name S3 cannot hold, is rejected.

        Raises:
            InfrastructureError: a folder cannot be listed, so that the list would not be whole.
        """
        here = self.identity()
        pending = [os.fspath(self.folder)]
        root = len(os.path.join(self.folder, ""))
        while pending:
            for found in _scan(pending.pop()):
                key = found.path[root:]
                if _is_folder(found):
                    if below.startswith(f"{key}/") or f"{key}/".startswith(below):
                        pending.append(found.path)
                elif key.startswith(below):
                    entry = _file_entry(found, key, reject)
                    if entry is not None:
                        yield entry
        if self.identity() != here:
            raise InfrastructureError(
                f"Another drive is mounted at {printable(self.folder)} than when the listing "
                "began: is the drive still there?"
            )


def _scan(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        return  # gone since its parent was listed
    except OSError as error:
        raise _not_whole(folder, error) from error


def _is_folder(found: os.DirEntry[str]) -> bool:
    try:
        return found.is_dir(follow_symlinks=False)
    except OSError as error:  # where the drive does not say it with the name, as some do not
        raise _not_whole(found.path, error) from error


def _not_whole(folder: str, error: OSError) -> InfrastructureError:
    return InfrastructureError(
        f"The folder {printable(folder)} cannot be listed ({error.strerror}), so the list "
        "would not be whole. Mend it, give the worker the right to read it, or take it away."
    )


def _file_entry(found: os.DirEntry[str], key: str, reject: Reject) -> Entry | None:
    try:
        key_bytes = key.encode()
    except UnicodeEncodeError:
        reject(key, "its name is not UTF-8")
        return None
    if len(key_bytes) > KEY_BYTES:
        reject(key, f"its name has {len(key_bytes):,} bytes, and S3 takes {KEY_BYTES:,}")
        return None
    if found.is_symlink():
        reject(key, "it is a symbolic link, which is not followed")
        return None
    if not found.is_file(follow_symlinks=False):
        reject(key, "it is no regular file")
        return None
    try:
        status = found.stat(follow_symlinks=False)
    except OSError as error:
        reject(key, f"it cannot be looked at ({error.strerror})")
        return None
    return Entry(key, key, status.st_size, status.st_mtime_ns, "")
