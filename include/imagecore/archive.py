"""Unpacking tar archives that came from outside."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import posixpath
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from backports import zstd

from imagecore.errors import DiskFull, PlanRefused
from imagecore.tempspace import disk_errors, removed_on_error
from imagecore.text import printable

PIECE_BYTES = 2**20
DEPTH = 100
"""The most folders in each other: walks of a tree recurse."""

HEADER_BYTES = 2**20
"""The largest header of a member (a long name, extended attributes); tarfile holds it whole."""

SMALL_BYTES = 10 * 2**20
"""So much may come out of any archive, whatever its ratio."""

_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"BZh": bz2.open,
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x28\xb5\x2f\xfd": zstd.open,
}
"""By the first bytes of a file; anything else is taken for a plain tar."""

_DAMAGED = (
    tarfile.TarError,
    EOFError,
    lzma.LZMAError,
    zlib.error,
    zstd.ZstdError,
    OSError,
    RecursionError,
)
_DISK = (errno.ENOSPC, errno.EDQUOT)
_LARGE_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class ArchiveRefused(PlanRefused):
    """The archive is damaged, too large, or would write outside its folder; nothing is left."""


@dataclass(frozen=True)
class Limits:
    """What an archive may come to: bytes of its files, their number with folders and links, how
    many times its own size is unpacked, and bytes that stay free on the disk."""

    total_bytes: int = 200 * 10**9
    members: int = 5_000_000
    ratio: float = 200
    free_bytes: int = 10**9


@dataclass(frozen=True)
class Unpacked:
    """What was unpacked. Symbolic links are left out, as nothing here would follow them."""

    files: int
    bytes: int
    links_left_out: int


def unpack(archive: Path, target: Path, limits: Limits | None = None) -> Unpacked:
    """Unpack a tar, plain or compressed by bzip2, gzip, xz or zstd, to the new folder `target`.

    Files get the worker's own rights and owner. The folder is there whole or not at all; what a
    killed process left of it is removed by the next call.

    Raises:
        ArchiveRefused: a member has a path or link that leads out of the folder or is a device;
            the archive is damaged or cut off, or exceeds `limits`. The text names the member.
        DiskFull: the disk has too little space.
    """
    making = target.with_name(f"{target.name}.making")
    if making.exists():
        shutil.rmtree(making)
    making.mkdir(parents=True)
    with removed_on_error(making), disk_errors(making):
        unpacked = _Unpacking(making, limits or Limits()).all_of(archive)
        making.rename(target)
    return unpacked


class _Unpacking:
    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = os.fsencode(folder)
        self._limits = limits
        self._files = self._bytes = self._members = self._links = 0

    def all_of(self, archive: Path) -> Unpacked:
        with _reading(archive, self._limits.ratio) as stream:
            for member, tar in _members(stream, archive):
                name = _shown(member)
                self._members += 1
                if self._members > self._limits.members:
                    raise ArchiveRefused(
                        f"{archive.name} has more than {self._limits.members:,} members: the one "
                        f"too many is {name}."
                    )
                with _damage(f"{archive.name}, member {name}"):
                    self._extract(tar, member)
            stream.drain()
        return Unpacked(self._files, self._bytes, self._links)

    def _extract(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = self._path(member.name, member)
        if member.isdir():
            os.makedirs(path, exist_ok=True)
        elif member.isreg():
            self._room(member)
            _make_way(path)
            source = tar.extractfile(member)
            assert source is not None
            with source, open(path, "xb") as file:
                shutil.copyfileobj(source, file, PIECE_BYTES)
            self._files += 1
        elif member.islnk():
            self._link(path, member)
        elif member.issym():
            inside = posixpath.join(posixpath.dirname(member.name), member.linkname)
            self._path(inside, member)
            self._links += 1
        else:
            raise _refused(member, "it is a device or another special file")

    def _link(self, path: bytes, member: tarfile.TarInfo) -> None:
        source = self._path(member.linkname, member)
        if not os.path.isfile(source):
            raise _refused(member, "it is a link to a file that is not there")
        if source != path:
            _make_way(path)
            os.link(source, path)
            self._files += 1

    def _room(self, member: tarfile.TarInfo) -> None:
        self._bytes += member.size
        if self._bytes > self._limits.total_bytes:
            raise _refused(
                member, f"with it there are more than {self._limits.total_bytes:,} bytes"
            )
        free = shutil.disk_usage(self._folder).free
        if free - member.size < self._limits.free_bytes:
            raise DiskFull(
                f"No room for {_shown(member)} of {member.size:,} bytes: {free:,} bytes are free, "
                f"and {self._limits.free_bytes:,} are to stay so. Free some, or set TMPDIR to a "
                "larger disk."
            )

    def _path(self, name: str, member: tarfile.TarInfo) -> bytes:
        """Where a name lies, or a refusal. No link is ever made in the folder that could lead
        elsewhere, so the name alone decides."""
        normal = posixpath.normpath(name)
        if name.startswith("/") or normal == ".." or normal.startswith("../"):
            raise _refused(member, "it leads out of the folder")
        if normal.count("/") > DEPTH:
            raise _refused(member, f"it lies more than {DEPTH} folders deep")
        if "\0" in name:
            raise _refused(member, "it has a NUL in its name")
        return os.path.join(self._folder, os.fsencode(normal))


class _Header(tarfile.TarInfo):
    """A header that is whole. At a damaged or missing one tarfile would end as at the end mark."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> _Header:
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            raise ArchiveRefused("The archive is cut off: it has no end mark.") from error
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise ArchiveRefused(f"The archive is damaged, or no tar: {error}.") from error
        if member.size < 0:
            raise ArchiveRefused(
                f"The archive is damaged: {_shown(member)} has {member.size} bytes."
            )
        if member.type in _LARGE_HEADERS and member.size > HEADER_BYTES:
            raise ArchiveRefused(
                f"The header before {_shown(member)} has {member.size:,} bytes, and no more than "
                f"{HEADER_BYTES:,} are read."
            )
        return member


class _Stream(io.RawIOBase):
    """What comes out of the decompressor, counted."""

    def __init__(self, source: IO[bytes], most: float, name: str) -> None:
        self._source = source
        self._left = most
        self._name = name

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size if size >= 0 else PIECE_BYTES)
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveRefused(
                f"{self._name} unpacks to far more than its own size (see Limits.ratio): it is "
                "likely to be a bomb."
            )
        return data

    def drain(self) -> None:
        """Read to the end, so that the checksums there are looked at."""
        with _damage(self._name):
            while self.read(PIECE_BYTES):
                pass


@contextmanager
def _reading(archive: Path, ratio: float) -> Iterator[_Stream]:
    with archive.open("rb") as file:
        start = file.read(max(map(len, _OPENERS)))
    opener = next((each for magic, each in _OPENERS.items() if start.startswith(magic)), None)
    most = max(SMALL_BYTES, ratio * archive.stat().st_size)
    with archive.open("rb") if opener is None else opener(archive) as source:
        yield _Stream(source, most, archive.name)


def _members(stream: _Stream, archive: Path) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """The members, one by one; read as a stream, since going back would unpack all anew."""
    with _damage(archive.name):
        tar = tarfile.open(  # noqa: SIM115 -- there is nothing in it to close
            fileobj=stream,
            mode="r|",
            tarinfo=_Header,
            encoding="utf-8",
            errors="surrogateescape",
        )
    while True:
        with _damage(archive.name):
            member = tar.next()
        if member is None:
            return
        tar.members = []  # type: ignore[attr-defined]  # which would hold all of them
        yield member, tar


@contextmanager
def _damage(what: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            raise
        raise ArchiveRefused(f"{what} cannot be unpacked: {printable(error)}") from error


def _make_way(path: bytes) -> None:
    """For a member whose name came before: the last one counts, and nothing is written through a
    link."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.isfile(path):
        os.unlink(path)


def _shown(member: tarfile.TarInfo) -> str:
    return printable(member.name, 300)


def _refused(member: tarfile.TarInfo, reason: str) -> ArchiveRefused:
    return ArchiveRefused(f"The archive's member {_shown(member)} is refused: {reason}.")
